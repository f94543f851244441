"""The pages of reruns: asking for one in steps, the list of them, and the record of each."""
