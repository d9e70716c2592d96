"""Starts and stops the Flink application of a stack: CloudFormation only defines it."""
