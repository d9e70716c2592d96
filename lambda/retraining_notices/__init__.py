"""Tell people what happened to a workload's models: drift, trainings, versions that wait for approval.

``handler`` (Lambda entry) -> ``logic`` (what is said of an event) -> ``aws`` (what is read for it).
"""
