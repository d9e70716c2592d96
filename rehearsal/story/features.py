"""Chapter: features as of a moment, their history, their evolution."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rehearsal.story.ingestion import read_parquet
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, require, wait_until

__all__ = ["STEPS"]

CHAPTER = "Feature Store"
#: Records whose labels are asked for, each at three moments.
SAMPLE = 40
JOB_SECONDS = 600
SCRATCH = "rehearsal-scratch"
#: Seconds that a record of the scratch group lives after its event.
SHORT_LIFE = 30


def _now(tale: Tale) -> datetime:
    return datetime.fromisoformat(tale.cloud.server.control("GET", "/clock")["now"])


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# -- as of a moment -----------------------------------------------------------------------------------------


def _as_of(tale: Tale, evidence: Evidence) -> None:
    outputs, contract = tale.outputs("Data"), tale.contract
    group = outputs["FeatureGroupName"]
    # Everything of the offline store is older than this moment, and what is corrected below is newer.
    tale.cloud.idle()
    tale.cloud.advance(seconds=5)
    cutoff = _now(tale)
    tale.cloud.advance(seconds=5)
    features: dict[Any, dict[str, Any]] = tale.known["features"]
    chosen = random.Random(tale.seed).sample(sorted(features, key=str), min(SAMPLE, len(features)))  # noqa: S311
    _correct(tale, group, features[chosen[0]])
    labels = _labels(tale, features, chosen)
    tale.cloud.objects.write(f"{outputs['LabelsUri']}rehearsal.parquet", _parquet(labels))
    _run(tale, outputs["PointInTimeJobName"], {"--cutoff": cutoff.isoformat()})
    target = f"{outputs['PointInTimeUri']}latest/"
    made = read_parquet(tale, target).to_pylist()
    note = tale.cloud.objects.read_json(f"{target}_snapshot.json")
    history = _history(tale, group)
    wanted = [row for label in labels if (row := _oracle(contract, history, label, cutoff)) is not None]
    evidence |= {
        "labels": len(labels),
        "history": len(history),
        "rows": len(made),
        "labels_without_features": note["labels_without_features"],
        "offline_snapshot": note.get("offline_snapshot_id"),
        "cutoff": cutoff.isoformat(),
    }
    require(len(made) == note["rows"] == len(wanted), f"{len(made)} rows were made, {len(wanted)} are right")
    require(0 < len(wanted) < len(labels), "labels before the first feature must stay without features")

    def key(row: Mapping[str, Any]) -> tuple[str, str]:
        return str(row[contract.identifier]), row[contract.event_time]

    for one, other in zip(sorted(made, key=key), sorted(wanted, key=key), strict=True):
        different = [name for name in other if not _same(one.get(name), other[name])]
        require(
            not different, f"{different} of a label at {other[contract.event_time]} are not as known then"
        )
    evidence["rows_compared"] = len(wanted)
    later = _oracle(contract, history, labels[0], _now(tale))
    seen = _oracle(contract, history, labels[0], cutoff)
    require(later != seen, "the correction after the cutoff is in the history")


def _correct(tale: Tale, group: str, row: Mapping[str, Any]) -> None:
    """Put another version of a record into the history, as somebody who corrects it does."""
    contract = tale.contract
    name = next(f.name for f in contract.features if f.type == "number" and row[f.name] is not None)
    corrected = {**row, name: float(row[name]) + 1.0}
    tale.cloud.client("sagemaker-featurestore-runtime").put_record(
        FeatureGroupName=group,
        Record=[
            {"FeatureName": key, "ValueAsString": str(value)}
            for key, value in corrected.items()
            if value is not None
        ],
        TargetStores=["OfflineStore"],
    )
    tale.cloud.idle()


def _labels(tale: Tale, features: Mapping[Any, Mapping[str, Any]], chosen: list[Any]) -> list[dict[str, Any]]:
    """Each record asked for at its event, a day before it and a year after."""
    contract = tale.contract
    labels = []
    for identifier in chosen:
        row = features[identifier]
        at = datetime.fromisoformat(row[contract.event_time].replace("Z", "+00:00"))
        labels += [
            {
                contract.identifier: identifier,
                "label_time": at + timedelta(days=days),
                contract.label.field: row[contract.label.field],
            }
            for days in (0, -1, 365)
        ]
    return labels


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, coerce_timestamps="us")
    return sink.getvalue()


def _run(tale: Tale, name: str, arguments: Mapping[str, str]) -> None:
    """Run a Glue job to its end; it must succeed."""
    glue = tale.cloud.client("glue")
    run = glue.start_job_run(JobName=name, Arguments=dict(arguments))["JobRunId"]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = glue.get_job_run(JobName=name, RunId=run)["JobRun"]
        return None if found["JobRunState"] in ("STARTING", "RUNNING", "WAITING") else found

    found = wait_until(f"the end of {name}", ended, seconds=JOB_SECONDS, every=0.3)
    why = found.get("ErrorMessage")
    require(found["JobRunState"] == "SUCCEEDED", f"{name} is {found['JobRunState']}: {why}")


def _history(tale: Tale, group: str) -> list[dict[str, Any]]:
    """Every row of the offline store, read by what the Data Catalog says of it."""
    store = tale.cloud.client("sagemaker").describe_feature_group(FeatureGroupName=group)[
        "OfflineStoreConfig"
    ]
    if store.get("TableFormat") != "Iceberg":
        rows: list[dict[str, Any]] = read_parquet(
            tale, store["S3StorageConfig"]["ResolvedOutputS3Uri"]
        ).to_pylist()
        return rows
    from pyiceberg.catalog.glue import GlueCatalog

    environment = tale.cloud.server.environment()
    catalog = GlueCatalog(
        "glue",
        client=tale.cloud.client("glue"),
        **{
            "s3.endpoint": tale.cloud.server.endpoint,
            "s3.region": environment["AWS_REGION"],
            "s3.access-key-id": environment["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": environment["AWS_SECRET_ACCESS_KEY"],
        },
    )
    place = store["DataCatalogConfig"]
    table = catalog.load_table((place["Database"], place["TableName"]))
    found: list[dict[str, Any]] = table.scan().to_arrow().to_pylist()
    return found


def _oracle(
    contract: Any, history: list[dict[str, Any]], label: Mapping[str, Any], cutoff: datetime
) -> dict[str, Any] | None:
    """What was known of a record at its label's moment, looked for in every row there is."""
    asked = _text(label["label_time"])
    known = [
        row
        for row in history
        if row[contract.identifier] == label[contract.identifier]
        and row[contract.event_time] <= asked
        and row["write_time"] <= cutoff
    ]
    newest = max(
        known,
        key=lambda row: (row[contract.event_time], row["write_time"], row["api_invocation_time"]),
        default=None,
    )
    if newest is None or newest["is_deleted"]:
        return None
    return {
        contract.identifier: label[contract.identifier],
        contract.event_time: asked,
        contract.label.field: label[contract.label.field],
        **{feature.name: newest[feature.name] for feature in contract.features},
    }


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    return left == right


# -- evolution ----------------------------------------------------------------------------------------------


def _template(*features: str, life: int | None = SHORT_LIFE, tag: str | None = None) -> str:
    definitions = [{"FeatureName": name, "FeatureType": "String"} for name in ("id", "at", *features)]
    online: dict[str, Any] = {"EnableOnlineStore": True}
    if life is not None:
        online["TtlDuration"] = {"Unit": "Seconds", "Value": life}
    group = {
        "Type": "AWS::SageMaker::FeatureGroup",
        "DeletionPolicy": "Delete",
        "Properties": {
            "FeatureGroupName": SCRATCH,
            "RecordIdentifierFeatureName": "id",
            "EventTimeFeatureName": "at",
            "FeatureDefinitions": definitions,
            "OnlineStoreConfig": online,
            **({} if tag is None else {"Tags": [{"Key": "cost-centre", "Value": tag}]}),
        },
    }
    return json.dumps({"Resources": {"Group": group}})


def _evolution(tale: Tale, evidence: Evidence) -> None:
    cloudformation = tale.cloud.client("cloudformation")
    runtime = tale.cloud.client("sagemaker-featurestore-runtime")
    sagemaker = tale.cloud.client("sagemaker")

    def settled(wanted: str) -> str:
        def status() -> str | None:
            found = str(cloudformation.describe_stacks(StackName=SCRATCH)["Stacks"][0]["StackStatus"])
            return None if found.endswith("IN_PROGRESS") else found

        found: str = wait_until(f"the end of stack {SCRATCH}", status, seconds=120)
        require(found == wanted, f"stack {SCRATCH} is {found}, expected {wanted}")
        return found

    def put(identifier: str, **more: str) -> None:
        values = {"id": identifier, "at": _text(_now(tale)), **more}
        runtime.put_record(
            FeatureGroupName=SCRATCH,
            Record=[{"FeatureName": name, "ValueAsString": value} for name, value in values.items()],
        )

    def get(identifier: str) -> dict[str, str] | None:
        answer = runtime.get_record(FeatureGroupName=SCRATCH, RecordIdentifierValueAsString=identifier)
        found = answer.get("Record")
        return None if found is None else {f["FeatureName"]: f["ValueAsString"] for f in found}

    cloudformation.create_stack(StackName=SCRATCH, TemplateBody=_template("colour", life=None))
    settled("CREATE_COMPLETE")
    made = sagemaker.describe_feature_group(FeatureGroupName=SCRATCH)["CreationTime"]
    put("first", colour="red")
    cloudformation.update_stack(StackName=SCRATCH, TemplateBody=_template("colour", "size", life=None))
    evidence["a feature more"] = settled("UPDATE_COMPLETE")
    found = sagemaker.describe_feature_group(FeatureGroupName=SCRATCH)
    require(found["CreationTime"] == made, "the group was made anew")
    require((get("first") or {}).get("colour") == "red", "the record is lost")
    put("second", colour="blue", size="large")
    require((get("second") or {}).get("size") == "large", "the new feature is not kept")

    cloudformation.update_stack(StackName=SCRATCH, TemplateBody=_template("size", life=None))
    evidence["a feature less"] = settled("UPDATE_ROLLBACK_COMPLETE")
    require(get("first") is not None, "the refused change has lost the record")
    cloudformation.update_stack(
        StackName=SCRATCH, TemplateBody=_template("colour", "size", life=None, tag="42")
    )
    evidence["a tag"] = settled("UPDATE_ROLLBACK_COMPLETE")
    require(get("first") is not None, "the refused tag has lost the record")

    cloudformation.update_stack(StackName=SCRATCH, TemplateBody=_template("colour", "size"))
    evidence["a time to live"] = settled("UPDATE_COMPLETE")
    put("brief", colour="green")
    require(get("brief") is not None, "a record goes before its time")
    runtime.delete_record(
        FeatureGroupName=SCRATCH,
        RecordIdentifierValueAsString="second",
        EventTime=_text(_now(tale) + timedelta(seconds=2)),
        DeletionMode="HardDelete",
    )
    require(get("second") is None, "a record that was erased can be read")
    tale.cloud.advance(seconds=SHORT_LIFE + 1)
    require(get("brief") is None, f"a record lives longer than {SHORT_LIFE} s")
    require(get("first") is not None, "a record from before the time to live is gone")
    evidence["expired"] = f"{SHORT_LIFE} s after its event; a record from before the change stays"
    cloudformation.delete_stack(StackName=SCRATCH)


STEPS: tuple[Step, ...] = (
    Step(
        id="point-in-time",
        title="Labels get the features that were known at their moment, none of later",
        chapter=CHAPTER,
        run=_as_of,
        capabilities=lambda _: ("feature.pointintime", "feature.offline"),
        applies=lambda w: w.features.store.point_in_time,
    ),
    Step(
        id="feature-evolution",
        title="A feature more is added in place, a feature less is refused; records expire and are erased",
        chapter=CHAPTER,
        run=_evolution,
        capabilities=lambda _: ("feature.evolution", "feature.online"),
    ),
)
