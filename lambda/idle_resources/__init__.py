"""Stops what serves a workload while nobody uses it, and starts it again when asked to."""
