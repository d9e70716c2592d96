"""The row of the feature group: CloudFormation adds features where the group stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by, reached

__all__ = ["TABLE"]

#: Amazon SageMaker, UpdateFeatureGroup: FeatureAdditions.
_MOST_ADDITIONS = 100


def _changes(p: Properties, found: Mapping[str, Any]) -> Iterator[Properties]:
    """The updates, one at a time as the API takes them, that make the group what the template says.

    :raises ValueError: a feature would go or change its type, which no update does
    """
    there = {d["FeatureName"]: d["FeatureType"] for d in found["FeatureDefinitions"]}
    wanted = {d["FeatureName"]: d["FeatureType"] for d in p["FeatureDefinitions"]}
    broken = sorted(name for name, kind in there.items() if wanted.get(name) != kind)
    if broken:
        raise ValueError(
            f"features {', '.join(broken)} would be removed or change their type; "
            "UpdateFeatureGroup only adds features"
        )
    added = [d for d in p["FeatureDefinitions"] if d["FeatureName"] not in there]
    for start in range(0, len(added), _MOST_ADDITIONS):
        yield {"FeatureAdditions": added[start : start + _MOST_ADDITIONS]}
    time_to_live = (p.get("OnlineStoreConfig") or {}).get("TtlDuration")
    before = (found.get("OnlineStoreConfig") or {}).get("TtlDuration")
    if p.get("OnlineStoreConfig") is not None and _plain(time_to_live) != _plain(before):
        # Without a unit and a value there is none any more.
        yield {"OnlineStoreConfig": {"TtlDuration": time_to_live or {}}}
    throughput = p.get("ThroughputConfig")
    if throughput is not None and _plain(throughput) != _plain(
        found.get("ThroughputConfig", {"ThroughputMode": "OnDemand"})
    ):
        yield {"ThroughputConfig": throughput}


def _plain(value: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(item) for key, item in (value or {}).items()}


def _first(p: Properties, context: Context) -> Properties:
    name = p["FeatureGroupName"]
    found = context.client("sagemaker").describe_feature_group(FeatureGroupName=name)
    change = next(_changes(p, found), {})
    return {"FeatureGroupName": name, **change}


def _rest(p: Properties, ident: Properties, context: Context) -> None:
    """Make the further updates of one change of the template."""
    client = context.client("sagemaker")
    while True:
        found = client.describe_feature_group(**ident)
        change = next(_changes(p, found), None)
        if change is None:
            return
        client.update_feature_group(**ident, **_typed(change))


def _typed(change: Any) -> Any:
    """Numbers as numbers: a template may say them as texts."""
    if isinstance(change, dict):
        return {key: _typed(value) for key, value in change.items()}
    return int(change) if isinstance(change, str) and change.isdigit() else change


TABLE: Mapping[str, Row] = {
    "AWS::SageMaker::FeatureGroup": Row(
        service="sagemaker",
        create="CreateFeatureGroup",
        read="DescribeFeatureGroup",
        update="UpdateFeatureGroup",
        delete="DeleteFeatureGroup",
        name="FeatureGroupName",
        identify=by("FeatureGroupName"),
        settled=reached("FeatureGroupStatus", ["Created"], ["CreateFailed", "DeleteFailed"]),
        convert_update=_first,
        finish=_rest,
    )
}
