"""From a prediction back to the records that its model learned from, by AWS's public APIs alone.

A captured prediction names the model package that gave it (else its time tells, if there was one version only
by then). The package names its pipeline execution and its ``lineage.json``, which names the snapshot of the
curated rows, the feature files with their hashes, and the Parquet file that lists every record with its part.
Nothing is asked of the rehearsal: an account answers as well (``python -m tools.lineage``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["LineageError", "Trace", "Tracer", "trace_and_show", "tree"]


class LineageError(Exception):
    """The chain is broken; the text says where, and what was looked at."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The way from one prediction to its records. ``records`` is the Parquet file that names them."""

    prediction: dict[str, Any]
    endpoint: dict[str, Any]
    model: dict[str, Any]
    training: dict[str, Any]
    data: dict[str, Any]
    records: str
    lineage: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "prediction": self.prediction,
            "endpoint": self.endpoint,
            "model": self.model,
            "training": self.training,
            "data": self.data,
            "records": self.records,
            "lineage": self.lineage,
        }


@dataclass
class Tracer:
    """Traces predictions of an endpoint; ``client`` makes boto3 clients by the service's name."""

    client: Callable[[str], Any]
    endpoint: str
    #: ``YYYY-MM-DD``: looks at the captures of that day only; an endpoint's captures may be many.
    day: str | None = None
    _described: dict[str, Any] = field(default_factory=dict)

    def trace(self, inference_id: str) -> Trace:
        """Follow one prediction; raises LineageError where the chain ends."""
        line, uri = self._captured(inference_id)
        metadata = line["eventMetadata"]
        answer = _decoded(line["captureData"].get("endpointOutput"))
        moment = datetime.fromisoformat(metadata["inferenceTime"].replace("Z", "+00:00"))
        package_arn, named_by = self._package(answer, moment)
        package = self.client("sagemaker").describe_model_package(ModelPackageName=package_arn)
        notes = package.get("CustomerMetadataProperties") or {}
        if "Lineage" not in notes:
            raise LineageError(f"{package_arn} names no lineage; it was registered before training wrote any")
        document = json.loads(self._read(notes["Lineage"]))
        folder = notes["Lineage"].rsplit("/", 1)[0]
        return Trace(
            prediction={
                "inference_id": inference_id,
                "event_id": metadata["eventId"],
                "at": metadata["inferenceTime"],
                "captured_in": uri,
                "answer": _parsed(answer),
            },
            endpoint={
                "name": self.endpoint,
                "variant": uri.rsplit("/", 6)[1],
                "configs": self._configs(package_arn),
            },
            model={
                "package": package_arn,
                "version": package["ModelPackageVersion"],
                "status": package["ModelApprovalStatus"],
                "artifact": package["InferenceSpecification"]["Containers"][0].get("ModelDataUrl"),
                "reason": notes.get("Reason"),
                "named_by": named_by,
            },
            training=self._training(notes.get("PipelineExecution")),
            data={
                key: document.get(key)
                for key in ("workload", "contract", "named_by", "rows", "split", "features", "job")
            },
            records=f"{folder}/{document['records']}",
            lineage=notes["Lineage"],
        )

    def versions(self, trace: Trace) -> list[dict[str, Any]]:
        """Each feature file of the training set with its version in the bucket, found by its content.

        ``version`` is None where no version has that content any more: it has expired.
        """
        job = trace.data.get("job") or {}
        base = (job.get("inputs") or {}).get("features")
        if base is None:
            raise LineageError(f"{trace.lineage} does not say where the features lay")
        found = []
        for item in trace.data["features"]["files"]:
            uri = f"{base.rstrip('/')}/{item['file']}"
            found.append({"uri": uri, "version": self._version(uri, item["sha256"])})
        return found

    def download(self, trace: Trace, folder: Path) -> list[Path]:
        """Put the trace, the lineage document and the list of the records into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "trace.json", folder / "lineage.json", folder / "records.parquet"]
        written[0].write_text(json.dumps(trace.to_json(), indent=1, sort_keys=True, default=str) + "\n")
        written[1].write_bytes(self._read(trace.lineage))
        written[2].write_bytes(self._read(trace.records))
        return written

    # --- the prediction -------------------------------------------------------------------------------

    def _endpoint(self) -> dict[str, Any]:
        if self.endpoint not in self._described:
            self._described[self.endpoint] = self.client("sagemaker").describe_endpoint(
                EndpointName=self.endpoint
            )
        found: dict[str, Any] = self._described[self.endpoint]
        return found

    def _captured(self, inference_id: str) -> tuple[dict[str, Any], str]:
        """The captured line of a prediction, by its inference id or its event id, and its object."""
        config = self._endpoint().get("DataCaptureConfig") or {}
        if not config.get("DestinationS3Uri"):
            raise LineageError(f"endpoint {self.endpoint} captures nothing")
        base = f"{config['DestinationS3Uri'].rstrip('/')}/{self.endpoint}/"
        wanted = inference_id.encode()
        objects = 0
        for uri in self._newest_first(base):
            objects += 1
            body = self._read(uri)
            if wanted not in body:
                continue
            for text in body.splitlines():
                if wanted in text:
                    line: dict[str, Any] = json.loads(text)
                    metadata = line["eventMetadata"]
                    if inference_id in (metadata.get("inferenceId"), metadata["eventId"]):
                        return line, uri
        percent = config.get("CurrentSamplingPercentage")
        raise LineageError(
            f"no captured prediction has the id {inference_id}; {objects} files below {base} were read"
            f"{'' if self.day is None else f', of {self.day} only'}; {percent} % of requests are captured"
        )

    def _newest_first(self, base: str) -> Iterator[str]:
        parts = urlsplit(base)
        pages = (
            self.client("s3")
            .get_paginator("list_objects_v2")
            .paginate(Bucket=parts.netloc, Prefix=parts.path.lstrip("/"))
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        if self.day is not None:
            keys = [key for key in keys if f"/{self.day.replace('-', '/')}/" in key]
        # variant/yyyy/mm/dd/hh/file: by time whatever the variant.
        for key in sorted(keys, key=lambda key: key.split("/")[-5:], reverse=True):
            if key.endswith(".jsonl"):
                yield f"s3://{parts.netloc}/{key}"

    # --- the model ------------------------------------------------------------------------------------

    def _package(self, answer: bytes, moment: datetime) -> tuple[str, str]:
        """ARN of the model package that gave an answer, and what told it."""
        prefix = self._endpoint()["EndpointArn"].partition(":endpoint/")[0]
        document = _parsed(answer)
        if isinstance(document, dict) and "model" in document:
            return f"{prefix}:model-package/{document['model']}", "the answer"
        # Old configurations go with a rollout, so they cannot tell; versions of the package group stay.
        groups = {
            package.rsplit("/", 2)[1]
            for config in self._all_configs()
            for package in self._packages_of(config)
        }
        served = [version for group in sorted(groups) for version in self._versions_by(group, moment)]
        if len(served) == 1:
            return served.pop(), "the only version there was by then"
        raise LineageError(
            f"the answer names no model (only JSON does), and {len(served)} versions were there by "
            f"{moment.isoformat()}: {', '.join(served) or 'none that is still described'}"
        )

    def _versions_by(self, group: str, moment: datetime) -> list[str]:
        pages = self.client("sagemaker").get_paginator("list_model_packages")
        return [
            version["ModelPackageArn"]
            for page in pages.paginate(ModelPackageGroupName=group)
            for version in page["ModelPackageSummaryList"]
            if version["CreationTime"] <= moment
        ]

    def _all_configs(self) -> Iterator[dict[str, Any]]:
        sagemaker = self.client("sagemaker")
        # Configurations have names of CloudFormation's making: what they capture says whose they are.
        destination = (self._endpoint().get("DataCaptureConfig") or {}).get("DestinationS3Uri")
        for page in sagemaker.get_paginator("list_endpoint_configs").paginate():
            for summary in page["EndpointConfigs"]:
                config = sagemaker.describe_endpoint_config(EndpointConfigName=summary["EndpointConfigName"])
                if (config.get("DataCaptureConfig") or {}).get("DestinationS3Uri") == destination:
                    yield config

    def _packages_of(self, config: Mapping[str, Any]) -> Iterable[str]:
        for variant in config["ProductionVariants"]:
            model = self.client("sagemaker").describe_model(ModelName=variant["ModelName"])
            for container in (model.get("PrimaryContainer"), *(model.get("Containers") or ())):
                if container and "ModelPackageName" in container:
                    yield container["ModelPackageName"]

    def _configs(self, package: str) -> list[str]:
        """Endpoint configurations that serve a package and still stand; CloudFormation removes old ones."""
        return [
            config["EndpointConfigName"]
            for config in self._all_configs()
            if package in set(self._packages_of(config))
        ]

    # --- the training ---------------------------------------------------------------------------------

    def _training(self, execution: str | None) -> dict[str, Any]:
        if execution is None:
            return {}
        sagemaker = self.client("sagemaker")
        pages = sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
            PipelineExecutionArn=execution
        )
        jobs = {}
        for page in pages:
            for step in page["PipelineExecutionSteps"]:
                metadata = step.get("Metadata", {})
                for kind in ("ProcessingJob", "TrainingJob"):
                    if kind in metadata:
                        jobs[step["StepName"]] = metadata[kind]["Arn"]
                if "TuningJob" in metadata:
                    # The model is that of the best trial.
                    tuning = metadata["TuningJob"]["Arn"].rpartition("/")[2]
                    found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning)
                    jobs["Train"] = found["BestTrainingJob"]["TrainingJobArn"]
        return {"execution": execution, "jobs": jobs}

    # --- objects --------------------------------------------------------------------------------------

    def _read(self, uri: str) -> bytes:
        parts = urlsplit(uri)
        answer = self.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
        body: bytes = answer["Body"].read()
        return body

    def _version(self, uri: str, sha256: str) -> str | None:
        s3, parts = self.client("s3"), urlsplit(uri)
        key = parts.path.lstrip("/")
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=parts.netloc, Prefix=key):
            for version in page.get("Versions", ()):
                if version["Key"] != key:
                    continue
                answer = s3.get_object(Bucket=parts.netloc, Key=key, VersionId=version["VersionId"])
                if hashlib.sha256(answer["Body"].read()).hexdigest() == sha256:
                    return str(version["VersionId"])
        return None


def _decoded(side: Mapping[str, Any] | None) -> bytes:
    if side is None:
        return b""
    data = str(side["data"])
    return base64.b64decode(data) if side["encoding"] == "BASE64" else data.encode()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _source(snapshot: Mapping[str, Any]) -> str:
    """What the features were built from: curated rows, or a feature group's history."""
    if "feature_group" in snapshot:
        return (
            f"history of feature group {snapshot['feature_group']}, "
            f"snapshot {snapshot.get('offline_snapshot_id', 'of no table')}, cutoff {snapshot.get('cutoff')}"
        )
    if "curated_table" in snapshot:
        return f"curated rows {snapshot['curated_table']}, snapshot {snapshot['curated_snapshot_id']}"
    return "curated rows of a run that left no note"


def tree(trace: Trace) -> str:
    """The trace as lines for a terminal, from the prediction down to the records."""
    snapshot = (trace.data["features"] or {}).get("snapshot") or {}
    job = trace.data.get("job") or {}
    rows = ", ".join(f"{count} {part}" for part, count in sorted((trace.data["rows"] or {}).items()))
    levels: list[tuple[str, list[str]]] = [
        (
            f"prediction {trace.prediction['inference_id']}",
            [f"{trace.prediction['at']}  {json.dumps(trace.prediction['answer'])[:120]}"],
        ),
        (
            f"endpoint {trace.endpoint['name']}, variant {trace.endpoint['variant']}",
            [f"configuration {name}" for name in trace.endpoint["configs"]] or ["configuration gone since"],
        ),
        (
            f"model package {trace.model['package']}",
            [f"{trace.model['status']}; told by {trace.model['named_by']}", str(trace.model["artifact"])],
        ),
        (
            f"pipeline execution {trace.training.get('execution')}",
            [f"{step}: {arn}" for step, arn in sorted(trace.training.get("jobs", {}).items())],
        ),
        (
            f"training set of {job.get('name')}",
            [
                f"features {(job.get('inputs') or {}).get('features')} "
                f"({len((trace.data['features'] or {}).get('files', ()))} files)",
                _source(snapshot),
            ],
        ),
        (f"records {trace.records}", [f"{rows}; named by {trace.data['named_by']}"]),
    ]
    lines = []
    for depth, (title, notes) in enumerate(levels):
        pad = "   " * depth
        lines.append(f"{pad}{'└─ ' if depth else ''}{title}")
        lines += [f"{pad}   {'   ' if depth else ''}{note}" for note in notes]
    return "\n".join(lines)


def trace_and_show(
    client: Callable[[str], Any],
    inference_id: str,
    *,
    endpoint: str | None = None,
    day: str | None = None,
    as_json: bool = False,
    versions: bool = False,
    save: Path | None = None,
) -> str:
    """Trace a prediction and return what a terminal shows of it.

    ``endpoint`` may be left out where there is one only. ``save`` also puts trace and records into a folder.
    """
    if endpoint is None:
        found = client("sagemaker").list_endpoints(MaxResults=10)["Endpoints"]
        names = [item["EndpointName"] for item in found]
        if len(names) != 1:
            raise LineageError(f"say which endpoint was asked; there are: {', '.join(names) or 'none'}")
        endpoint = names[0]
    tracer = Tracer(client, endpoint, day)
    trace = tracer.trace(inference_id)
    places = tracer.versions(trace) if versions else []
    written = [] if save is None else tracer.download(trace, save)
    if as_json:
        shown = {**trace.to_json(), **({"versions": places} if versions else {})}
        return json.dumps(shown, indent=1, sort_keys=True, default=str)
    lines = [tree(trace)]
    lines += [f"{place['uri']} version {place['version'] or 'expired'}" for place in places]
    lines += [f"written: {path}" for path in written]
    return "\n".join(lines)
