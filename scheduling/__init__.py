"""The ground: teams, nodes, tasks, batches and their instances, and the engine that runs them."""
