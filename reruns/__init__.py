"""The top floor: repairs what wrong upstream data poisoned, by rerunning exactly that."""
