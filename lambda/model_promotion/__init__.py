"""Bring the approved model into service, and undo it when CloudFormation rolled it back.

``handler`` (Lambda entry, one SQS batch) -> ``logic`` (decides, no AWS) -> ``aws`` (its calls).
"""
