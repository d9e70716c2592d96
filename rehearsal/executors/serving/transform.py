"""Batch transform: files of S3 through a model's container, an `.out` file for each.

Source: "Batch transform for inference with Amazon SageMaker AI", developer guide. Files are read and written
as the model's execution role. A file with a bad record gets no output; the others do, and the job has failed.
"""

from __future__ import annotations

import gzip
import io
import json
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import urllib3

from rehearsal.executors import containers, transfer
from rehearsal.executors.serving import programs, records
from rehearsal.executors.serving.invocations import Answer, Sent, send
from rehearsal.executors.serving.programs import FleetError, Instance
from rehearsal.executors.serving.records import RecordError
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

__all__ = ["create", "stop"]

_STOPS = containers.Stops()
_LOG_GROUP = "/aws/sagemaker/TransformJobs"
_MIB = 1024 * 1024
# CreateTransformJob: MaxPayloadInMB is 6 unless given, at most 100, also times MaxConcurrentTransforms.
_PAYLOAD_MB, _LARGEST_MB = 6, 100
# ModelClientConfig: 600 seconds and 3 tries more unless given.
_TIMEOUT_SECONDS, _RETRIES = 600, 3


def _refuse(message: str) -> ApiError:
    return ApiError("ValidationException", message)


@instead("sagemaker", "CreateTransformJob")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Check the job as far as SageMaker does before it answers, then start it."""
    params = call.params
    if service.peek("Model", params["ModelName"]) is None:
        raise _refuse(f'Could not find model "{params["ModelName"]}".')
    source = params["TransformInput"]
    kind = source["DataSource"]["S3DataSource"]["S3DataType"]
    if kind not in ("S3Prefix", "ManifestFile"):
        raise _refuse(f"the rehearsal reads S3Prefix and ManifestFile, got {kind}")
    split = source.get("SplitType", "None")
    if split not in ("None", "Line"):
        raise _refuse(f"the rehearsal splits by Line or not at all, got {split}")
    payload = params.get("MaxPayloadInMB", _PAYLOAD_MB)
    if payload * max(1, params.get("MaxConcurrentTransforms", 1)) > _LARGEST_MB:
        raise _refuse(
            f"MaxPayloadInMB times MaxConcurrentTransforms must be at most {_LARGEST_MB}, got {payload} "
            f"times {params.get('MaxConcurrentTransforms', 1)}"
        )
    if params.get("BatchStrategy") and split == "None":
        raise _refuse("BatchStrategy needs a SplitType")
    _check_processing(params, split)
    output = service.generic(call)
    record = service.get("TransformJob", params["TransformJobName"])
    record.status = "InProgress"
    _tell(service, record)
    signal = _STOPS.begin(record.arn)
    containers.start_work(service.runtime, f"transform job {record.name}", _run, service, record, signal)
    return output


def _check_processing(params: Mapping[str, Any], split: str) -> None:
    """Filters and joins work on records: of CSV or JSON lines, the same in and out."""
    processing = params.get("DataProcessing", {})
    paths = [processing.get(key, "$") for key in ("InputFilter", "OutputFilter")]
    for path in paths:
        try:
            records.path_of(path)
        except RecordError as error:
            raise _refuse(str(error)) from error
    if processing.get("JoinSource", "None") == "None" and paths == ["$", "$"]:
        return
    kind = params["TransformInput"].get("ContentType")
    accept = params["TransformOutput"].get("Accept", kind)
    if kind not in (records.CSV, records.JSON) or accept != kind:
        raise _refuse(
            f"DataProcessing needs the ContentType and Accept {records.CSV} or {records.JSON}, "
            f"got {kind} and {accept}"
        )
    if split != "Line" or params["TransformOutput"].get("AssembleWith") != "Line":
        raise _refuse("DataProcessing needs SplitType Line and AssembleWith Line")


@instead("sagemaker", "StopTransformJob")
def stop(service: Service, call: Call) -> dict[str, Any]:
    """Ask a running job to stop; what it has written stays."""
    record = service.get("TransformJob", call.params["TransformJobName"])
    if record.status != "InProgress" or not _STOPS.stop(record.arn):
        raise _refuse(f"The job {record.name} is {record.status}; only one InProgress can be stopped")
    record.status = "Stopping"
    _tell(service, record)
    return {}


def _tell(service: Service, record: Record) -> None:
    service.runtime.emit(
        "aws.sagemaker",
        "SageMaker Transform Job State Change",
        containers.event_detail(service, "TransformJob", record),
        [record.arn],
        region=service.region,
    )


def _run(service: Service, record: Record, stopped: threading.Event) -> None:
    runtime = service.runtime
    service.update(record, TransformStartTime=runtime.clock.now())
    status, changes = "Failed", dict[str, Any]()
    detail: dict[str, Any] = {}
    try:
        detail = _work(service, record, stopped)
        failed = detail["failed"]
        if failed:
            reason = f"ClientError: {len(failed)} of {detail['files']} files failed: {'; '.join(failed)}"
            changes = {"FailureReason": reason[:1024]}
        else:
            status = "Stopped" if stopped.is_set() else "Completed"
    except (transfer.TransferError, FleetError, ApiError) as error:
        changes = {"FailureReason": str(error)[:1024]}
    except Exception as error:
        changes = {"FailureReason": f"InternalServerError: {error}"}
        raise
    finally:
        service.update(record, status=status, TransformEndTime=runtime.clock.now(), **changes)
        _STOPS.end(record.arn)
        if status == "Failed":
            runtime.ledger.failed("transform-job", record.name, changes.get("FailureReason", ""), **detail)
        else:
            runtime.ledger.ran("transform-job", record.name, **detail)
        _tell(service, record)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the workers of one job share."""

    service: Service
    data: Mapping[str, Any]
    instance: Instance
    payload: int
    single: bool
    stopped: threading.Event

    @property
    def role(self) -> str:
        return self.instance.program.role


def _work(service: Service, record: Record, stopped: threading.Event) -> dict[str, Any]:
    """Transform every file; which failed and why.

    :raises TransferError: the input cannot be read at all
    :raises FleetError: the container did not come up
    """
    data = record.data
    program = programs.program_of(service, service.get("Model", data["ModelName"]))
    program = replace(program, environment={**program.environment, **data.get("Environment", {})})
    containers.assume(program.role)
    base, files = _files(service, data, program.role)
    count = data["TransformResources"]["InstanceCount"]
    if count > 1:
        service.runtime.ledger.recorded(
            "transform-job", record.name, f"one process stands for the {count} instances asked for"
        )
    instance = programs.start(
        service,
        program,
        kind="transform-jobs",
        name=record.name,
        stream=record.name,
        variables={"SAGEMAKER_BATCH": "true", **_said(data)},
    )
    try:
        settings = {**_own_parameters(instance), **data}
        job = _Job(
            service=service,
            data=data,
            instance=instance,
            # 0 means no limit of its own.
            payload=(int(settings.get("MaxPayloadInMB", _PAYLOAD_MB)) or _LARGEST_MB) * _MIB,
            single=str(settings.get("BatchStrategy", "MultiRecord")).upper().replace("_", "")
            == "SINGLERECORD",
            stopped=stopped,
        )
        workers = max(1, int(settings.get("MaxConcurrentTransforms", 1)))
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix=record.name) as pool:
            outcomes = list(pool.map(lambda uri: _file(job, base, uri), files))
        _capture(job, base, files)
    finally:
        programs.end(service, instance, group=_LOG_GROUP)
    return {
        "files": len(files),
        "records": sum(records_ for records_, _ in outcomes),
        "failed": [reason for _, reason in outcomes if reason is not None],
    }


def _said(data: Mapping[str, Any]) -> dict[str, str]:
    """What the container is told by its environment."""
    names = {
        "MaxPayloadInMB": "SAGEMAKER_MAX_PAYLOAD_IN_MB",
        "BatchStrategy": "SAGEMAKER_BATCH_STRATEGY",
        "MaxConcurrentTransforms": "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
    }
    return {name: str(data[key]) for key, name in names.items() if key in data}


def _own_parameters(instance: Instance) -> dict[str, Any]:
    """What the container says for itself at /execution-parameters, if it does."""
    try:
        answer = instance.pool.request("GET", "/execution-parameters", timeout=2.0)
        return dict(json.loads(answer.data)) if answer.status == 200 else {}
    except (urllib3.exceptions.HTTPError, ValueError, TypeError):
        return {}


def _files(service: Service, data: Mapping[str, Any], role: str) -> tuple[str, list[str]]:
    """The prefix of the input and the URIs of its files.

    :raises TransferError: there are none, or the role may not see them
    """
    source = data["TransformInput"]["DataSource"]["S3DataSource"]
    uri = source["S3Uri"]
    if source["S3DataType"] == "ManifestFile":
        try:
            first, *rest = json.loads(transfer.fetch(service.runtime, uri, role=role, region=service.region))
            base = str(first["prefix"])
        except (ValueError, KeyError, TypeError) as error:
            raise transfer.TransferError(f"ClientError: {uri} is no manifest: {error}") from error
        return base, [f"{base}{name}" for name in rest]
    found = transfer.listed(service.runtime, uri, role=role, region=service.region)
    if not found:
        raise transfer.TransferError(f"ClientError: no S3 objects found under {uri}")
    return uri, found


def _file(job: _Job, base: str, uri: str) -> tuple[int, str | None]:
    """Transform one file; its number of records, and why it failed."""
    if job.stopped.is_set():
        return 0, None
    name = transfer.relative(transfer.split_uri(uri)[1], transfer.split_uri(base)[1])
    try:
        content = transfer.fetch(job.service.runtime, uri, role=job.role, region=job.service.region)
        if job.data["TransformInput"].get("CompressionType") == "Gzip":
            content = gzip.decompress(content)
        count, output = _transformed(job, content)
        _put(job, f"{job.data['TransformOutput']['S3OutputPath'].rstrip('/')}/{name}.out", output)
    except (RecordError, transfer.TransferError, OSError) as error:
        return 0, f"{name}: {error}"
    return count, None


def _transformed(job: _Job, content: bytes) -> tuple[int, bytes]:
    """What becomes of a file's content.

    :raises RecordError: one of its records could not be transformed
    """
    lines = job.data["TransformInput"].get("SplitType") == "Line"
    given = records.lines_of(content) if lines else [content]
    processing = job.data.get("DataProcessing", {})
    assemble = job.data["TransformOutput"].get("AssembleWith") == "Line"
    parts: list[bytes] = []
    kind = job.data["TransformInput"].get("ContentType", "")
    path = records.path_of(processing.get("InputFilter", "$"))
    sent = [records.rendered(records.filtered(records.parsed(one, kind), path), kind) for one in given]
    if not path:
        sent = list(given)
    at = 0
    for batch in records.batches(sent, largest=job.payload, single=job.single):
        body = b"".join(line + b"\n" for line in batch) if lines else batch[0]
        answer = _ask(job, body).body
        if processing.get("JoinSource", "None") == "None" and processing.get("OutputFilter", "$") == "$":
            parts.append(answer.rstrip(b"\n") + b"\n" if assemble else answer)
        else:
            parts += _combined(processing, kind, given[at : at + len(batch)], records.lines_of(answer))
        at += len(batch)
    return len(given), b"".join(parts)


def _combined(
    processing: Mapping[str, Any], kind: str, given: list[bytes], answers: list[bytes]
) -> list[bytes]:
    """Answers joined with their records and filtered, a line each."""
    if len(answers) != len(given):
        raise RecordError(
            f"{len(given)} records were answered by {len(answers)} lines: they cannot be joined"
        )
    path = records.path_of(processing.get("OutputFilter", "$"))
    out = []
    for record, answer in zip(given, answers, strict=True):
        value = records.parsed(answer, kind)
        if processing.get("JoinSource", "None") == "Input":
            value = records.joined(records.parsed(record, kind), value, kind)
        out.append(records.rendered(records.filtered(value, path), kind) + b"\n")
    return out


def _ask(job: _Job, body: bytes) -> Answer:
    """Send a payload to the container; what fails on its side is tried again.

    :raises RecordError: it was refused, or failed to the last
    """
    client = job.data.get("ModelClientConfig", {})
    headers = {"Content-Type": job.data["TransformInput"].get("ContentType", "application/octet-stream")}
    if "Accept" in job.data["TransformOutput"]:
        headers["Accept"] = job.data["TransformOutput"]["Accept"]
    sent = Sent(
        body=body,
        headers=headers,
        timeout=float(client.get("InvocationsTimeoutInSeconds", _TIMEOUT_SECONDS)),
    )
    for _ in range(1 + int(client.get("InvocationsMaxRetries", _RETRIES))):
        answer = send(job.instance, sent)
        if answer.good or 400 <= answer.status < 500 or job.stopped.is_set():
            break
    if not answer.good:
        raise RecordError(f"the model answered {answer.status}: {answer.text[:200]}")
    return answer


def _put(job: _Job, uri: str, content: bytes) -> None:
    """Write an output as the model's role.

    :raises TransferError: the role may not
    """
    from botocore.exceptions import ClientError

    bucket, key = transfer.split_uri(uri)
    kms = job.data["TransformOutput"].get("KmsKeyId")
    extra = {} if kms is None else {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms}
    client = job.service.runtime.client("s3", role=job.role, region=job.service.region)
    try:
        client.put_object(Bucket=bucket, Key=key, Body=io.BytesIO(content), **extra)
    except ClientError as error:
        raise transfer.TransferError(f"ClientError: {uri}: {error}") from error


def _capture(job: _Job, base: str, files: list[str]) -> None:
    """Leave manifests of what went in and came out, where data capture asks for them."""
    config = job.data.get("DataCaptureConfig")
    if config is None:
        return
    now = job.service.runtime.clock.now()
    names = [transfer.relative(transfer.split_uri(u)[1], transfer.split_uri(base)[1]) for u in files]
    output = job.data["TransformOutput"]["S3OutputPath"].rstrip("/") + "/"
    for side, prefix, listed in (
        ("input", base, names),
        ("output", output, [f"{name}.out" for name in names]),
    ):
        uri = f"{config['DestinationS3Uri'].rstrip('/')}/{side}/{now:%Y/%m/%d/%H}/{uuid.uuid4()}.json"
        _put(job, uri, json.dumps([{"prefix": prefix}, *listed]).encode())
