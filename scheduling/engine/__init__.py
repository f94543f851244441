"""Runs what is due: broker, node, execution, triggers, recovery and logs."""
