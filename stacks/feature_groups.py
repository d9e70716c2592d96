"""The feature groups of one workload: each version that its lock file names, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_kms as kms
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.features import FeatureGroup, Throughput

from constructs import Construct

__all__ = ["FeatureGroups", "feature_groups"]


@dataclass(frozen=True)
class FeatureGroups:
    """The versions that stand; ``newest`` is written, ``active`` is what readers are told."""

    newest: FeatureGroup
    active: FeatureGroup
    every: tuple[FeatureGroup, ...]


def feature_groups(
    scope: Construct, workload: LoadedWorkload, *, name_prefix: str, zone: Zone, online_key: kms.IKey
) -> FeatureGroups:
    """Define every version of a workload's feature group.

    The first keeps the id ``Features`` whatever comes after it: a new version must not replace it.
    """
    store = workload.workload.features.store
    versions, active = workload.feature_groups
    groups = {
        version.number: FeatureGroup(
            scope,
            "Features" if version.number == 1 else f"FeaturesV{version.number}",
            contract=workload.compiled,
            name_prefix=name_prefix,
            zone=zone,
            online_key=online_key,
            # What cannot change is the version's own; what can is the workload's, if the version takes it.
            table_format="Iceberg" if version.offline_format == "Iceberg" else "Glue",
            online=version.online,
            storage="InMemory" if version.storage == "InMemory" else "Standard",
            ttl_days=store.ttl_days if version.online else None,
            throughput=Throughput(
                read_units=store.throughput.read_units, write_units=store.throughput.write_units
            )
            if version.online and version.storage == "Standard"
            else Throughput(),
            version=version,
        )
        for version in versions
    }
    return FeatureGroups(
        newest=groups[versions[-1].number], active=groups[active], every=tuple(groups.values())
    )
