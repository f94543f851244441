"""The middle floor: tasks in DAGs, DAGs on a calendar. It runs a node by making a scheduling batch."""
