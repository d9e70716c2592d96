"""Brings the records of a Kafka topic onto the Kinesis stream of a workload."""
