"""A small workload that is not the worked example, and what constructs need around them."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract
from ml_contract.load import LoadedWorkload, load_workload
from ml_lifecycle.data_lake import DataLake

YAML = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true, max_length: 40, sensitive: pii}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number, minimum: 0, maximum: 70}
    stops: {type: integer, minimum: 0}
    express: {type: boolean}
    carrier: {type: string, allowed: [north, south]}
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
acceptance: {metric: rmse, at_most: 30}
"""


def parcels(folder: Path) -> LoadedWorkload:
    """Write the workload below ``folder`` and load it."""
    path = folder / "parcel_delay"
    path.mkdir(parents=True, exist_ok=True)
    (path / "workload.yaml").write_text(YAML)
    return load_workload(path)


class Surroundings:
    """Lake, keys and topic of one stack."""

    def __init__(self, stack: cdk.Stack, contract: CompiledContract) -> None:
        self.stack = stack
        self.contract = contract
        self.lake = DataLake(stack, "Lake", database_prefix="t")
        self.key = kms.Key(stack, "DataKey")
        self.log_key = kms.Key(stack, "LogKey")
        self.topic = sns.Topic(stack, "Topic")
