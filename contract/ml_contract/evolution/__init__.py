"""How a workload may change: its lock files."""
