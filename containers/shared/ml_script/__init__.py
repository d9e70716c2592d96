"""Starts a workload's training program in one of SageMaker's framework images. Standard library only."""
