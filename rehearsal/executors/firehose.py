"""Amazon Data Firehose: delivery streams that read, buffer, transform, convert and write for real.

Each step acts as the role that the delivery stream names for it. A record ends in exactly one of four ways,
and all four are counted: delivered, dropped by the transform, in the error output, or still buffered.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control
from rehearsal.executors import delivery_format
from rehearsal.executors import delivery_iceberg as iceberg
from rehearsal.executors.delivery_format import Column, ConversionError
from rehearsal.iam import AccessDeniedError
from rehearsal.ministack_bridge import Check

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["Delivery", "install"]

MIB = 1024 * 1024
#: Defaults of BufferingHints; with format conversion the size is 64 at least and 128 by default.
INTERVAL_SECONDS = 300
SIZE_MIB = 5
CONVERSION_SIZE_MIB = 128
#: Defaults of a Lambda processor.
LAMBDA_SIZE_MIB = 1.0
LAMBDA_RETRIES = 3
#: A synchronous invocation takes 6 MB, and the records travel as base64.
LAMBDA_LIMIT_MIB = 3.0
#: Lambda quotas, "Invocation payload" (synchronous). A record of a stream may hold 10 MiB, so that one alone
#: can be too much: "Handle failure in data transformation" keeps it under the error prefix.
LAMBDA_PAYLOAD_BYTES = 6 * MIB
TOO_LARGE = "Lambda.RequestTooLarge"


@dataclass(frozen=True)
class Pending:
    """A record on its way."""

    record_id: str
    data: bytes
    arrival: datetime
    sequence_number: str | None = None
    partition_key: str | None = None


@dataclass
class Counts:
    """How the records of a delivery stream ended."""

    received: int = 0
    delivered: int = 0
    dropped: int = 0
    processing_failed: int = 0
    conversion_failed: int = 0
    objects: int = 0


class DeliveryError(Exception):
    """Nothing could be written now; the records stay buffered and are tried again."""


@dataclass
class _Outcome:
    """What became of one batch before it is written."""

    good: list[tuple[Pending, bytes]] = field(default_factory=list)
    dropped: int = 0
    #: Lines of the error output.
    failed: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class _Object:
    """An object to write and how its records end: the name of their count."""

    body: bytes
    oldest: datetime
    ending: str
    records: int
    extension: str = ""


#: ``!{firehose:error-output-type}`` of the endings that are errors.
_ERROR_TYPES = {
    "processing_failed": "processing-failed",
    "conversion_failed": "format-conversion-failed",
    "iceberg_failed": "iceberg-failed",
}
#: Endings that another count stands for.
_COUNTS = {"iceberg_failed": "conversion_failed"}
#: So long (on the clock) until a stream that could not be read is read again.
READ_AGAIN_SECONDS = 10
#: Errors of reading that pass by themselves.
PASSING_CODES = frozenset(
    {
        "ExpiredTokenException",
        "KMSThrottlingException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
    }
)
#: What keeps a batch in the buffer: AWS refused a step, or the configuration asks for what is not here.
_FAILURES = (ClientError, BotoCoreError, DeliveryError, NotImplementedError, ValueError)


class Delivery:
    """One delivery stream."""

    def __init__(self, runtime: Runtime, name: str, region: str) -> None:
        self.runtime = runtime
        self.name = name
        self.region = region
        self.counts = Counts()
        self._buffer: list[Pending] = []
        self._unwritten: list[_Object] = []
        self._bytes = 0
        self._cancel: Callable[[], None] | None = None
        self._after: dict[str, str] = {}
        self._pull_lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._lock = threading.Lock()

    # -- configuration ---------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return the delivery stream as DescribeDeliveryStream shows it."""
        client = self.runtime.client("firehose", region=self.region)
        found: dict[str, Any] = client.describe_delivery_stream(DeliveryStreamName=self.name)
        description: dict[str, Any] = found["DeliveryStreamDescription"]
        return description

    @staticmethod
    def destination(description: Mapping[str, Any]) -> dict[str, Any]:
        """Return the destination: S3, or an Iceberg table with the bucket that keeps what fails."""
        for destination in description["Destinations"]:
            if "IcebergDestinationDescription" in destination:
                iceberg = dict(destination["IcebergDestinationDescription"])
                kept = iceberg["S3DestinationDescription"]
                return {**{k: v for k, v in kept.items() if k != "BufferingHints"}, **iceberg}
            for key in ("ExtendedS3DestinationDescription", "S3DestinationDescription"):
                if key in destination:
                    return dict(destination[key])
        raise DeliveryError("its destination is neither S3 nor Iceberg; others are not emulated")

    # -- in --------------------------------------------------------------------------------------------

    def pull(self) -> None:
        """Read everything new from the source stream, as the source's role."""
        with self._pull_lock:
            description = self.describe()
            source = description["Source"]["KinesisStreamSourceDescription"]
            stream = source["KinesisStreamARN"]
            since = source["DeliveryStartTimestamp"]
            self._require_stream_key(source["RoleARN"], stream)
            client = self.runtime.client("kinesis", role=source["RoleARN"], region=self.region)
            for shard in client.list_shards(StreamARN=stream)["Shards"]:
                for record in self._shard(client, stream, shard["ShardId"]):
                    if record.arrival >= since.replace(microsecond=0):
                        self.add([self._on_our_clock(record)], description)

    def _require_stream_key(self, role: str, stream: str) -> None:
        """Check that the source's role may decrypt an encrypted stream.

        :raises AccessDeniedError: it may not
        """
        runtime = self.runtime
        runtime.authorizer.note_service_use(role, ("kinesis:DescribeStream",), stream, self.region)
        operator = runtime.client("kinesis", region=self.region)
        summary = operator.describe_stream_summary(StreamARN=stream)["StreamDescriptionSummary"]
        if summary.get("EncryptionType") != "KMS":
            return
        key = bridge.kms_key_arn(summary["KeyId"], account=runtime.account, region=self.region)
        principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
        if key is None or principal is None:
            raise DeliveryError(f"the key {summary['KeyId']} of {stream} is not there")
        context = {
            "kms:CallerAccount": runtime.account,
            "kms:ViaService": f"kinesis.{self.region}.amazonaws.com",
        }
        check = Check(action="kms:Decrypt", resource=key, context=context)
        runtime.authorizer.require(principal, "kms", [check], self.region)

    def _on_our_clock(self, record: Pending) -> Pending:
        """Move an arrival from the machine's clock, which the stream lives on, to the rehearsal's."""
        ahead = self.runtime.clock.now() - datetime.now(UTC)
        return Pending(
            record.record_id,
            record.data,
            record.arrival + ahead,
            record.sequence_number,
            record.partition_key,
        )

    def _shard(self, client: Any, stream: str, shard: str) -> Iterator[Pending]:
        position = self._after.get(shard)
        start = (
            {"ShardIteratorType": "TRIM_HORIZON"}
            if position is None
            else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": position}
        )
        iterator = client.get_shard_iterator(StreamARN=stream, ShardId=shard, **start)["ShardIterator"]
        while iterator is not None:
            answer = client.get_records(StreamARN=stream, ShardIterator=iterator, Limit=10_000)
            for record in answer["Records"]:
                number = record["SequenceNumber"]
                arrival = record["ApproximateArrivalTimestamp"].astimezone(UTC)
                yield Pending(f"{number}000000", record["Data"], arrival, number, record["PartitionKey"])
                self._after[shard] = number
            if not answer["Records"]:
                return
            iterator = answer.get("NextShardIterator")

    def add(self, records: Sequence[Pending], description: Mapping[str, Any]) -> None:
        """Buffer records; a full buffer is flushed at once, another one after the interval."""
        hints = self._hints(self.destination(description))
        with self._lock:
            self._buffer.extend(records)
            self._bytes += sum(len(record.data) for record in records)
            self.counts.received += len(records)
            full = self._bytes >= hints["SizeInMBs"] * MIB
            if self._buffer and self._cancel is None and not full:
                due = self.runtime.clock.now() + timedelta(seconds=hints["IntervalInSeconds"])
                self._cancel = self.runtime.clock.at(due, f"firehose {self.name}", self._start_flush)
        if full:
            self._start_flush()

    @staticmethod
    def _hints(destination: Mapping[str, Any]) -> dict[str, int]:
        converts = _conversion(destination) is not None
        size = CONVERSION_SIZE_MIB if converts else SIZE_MIB
        defaults = {"SizeInMBs": size, "IntervalInSeconds": INTERVAL_SECONDS}
        given = {key: int(value) for key, value in destination.get("BufferingHints", {}).items()}
        return {**defaults, **given}

    def _start_flush(self) -> None:
        self.runtime.background(f"firehose {self.name}", self.flush)

    @property
    def buffered(self) -> int:
        """Return how many records wait."""
        with self._lock:
            return len(self._buffer) + sum(one.records for one in self._unwritten)

    # -- out -------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Deliver what is buffered. What cannot be written stays buffered and is tried after the interval."""
        with self._flush_lock:
            with self._lock:
                records, self._buffer, self._bytes = self._buffer, [], 0
                objects, self._unwritten = self._unwritten, []
                if self._cancel is not None:
                    self._cancel()
                    self._cancel = None
            if not records and not objects:
                return
            description: dict[str, Any] | None = None
            try:
                description = self.describe()
                objects += self._prepare(records, description)
                records = []
                self._write(objects, description)
            except _FAILURES as error:
                self._put_back(records, objects, description, error)

    def _put_back(
        self,
        records: list[Pending],
        objects: list[_Object],
        description: Mapping[str, Any] | None,
        error: Exception,
    ) -> None:
        with self._lock:
            self._buffer = [*records, *self._buffer]
            self._bytes += sum(len(record.data) for record in records)
            self._unwritten = [*objects, *self._unwritten]
            if self._cancel is None:
                due = self.runtime.clock.now() + timedelta(seconds=INTERVAL_SECONDS)
                self._cancel = self.runtime.clock.at(due, f"firehose {self.name}", self._start_flush)
        why = f"{type(error).__name__}: {error}; {self.buffered} records stay buffered"
        self.runtime.ledger.failed("firehose", self.name, why)
        if description is not None:
            self._log_error(self.destination(description), why)

    def _prepare(self, records: list[Pending], description: Mapping[str, Any]) -> list[_Object]:
        """Transform and convert a batch into the objects to write. Nothing is written here."""
        if not records:
            return []
        destination = self.destination(description)
        outcome = self._transform(records, description, destination)
        oldest = min(record.arrival for record in records)
        conversion = _conversion(destination)
        objects: list[_Object] = []
        if outcome.failed:
            body = b"".join(outcome.failed)
            objects.append(_Object(body, oldest, "processing_failed", len(outcome.failed)))
        if _is_iceberg(destination) and outcome.good:
            rows, refused, columns = self._iceberg_rows(outcome.good, destination)
            if refused:
                objects.append(_Object(b"".join(refused), oldest, "iceberg_failed", len(refused)))
            if rows:
                # Names the batch, so that a commit whose answer is lost is not made twice.
                mark = uuid.uuid4().hex
                body = delivery_format.parquet(rows, columns, "SNAPPY")
                objects.append(_Object(body, oldest, "delivered", len(rows), mark))
        elif conversion is not None and outcome.good:
            columns = self._columns(conversion)
            rows, refused = self._convert(outcome.good, columns, conversion)
            if refused:
                objects.append(_Object(b"".join(refused), oldest, "conversion_failed", len(refused)))
            if rows:
                body = delivery_format.parquet(rows, columns, _parquet_compression(conversion))
                objects.append(_Object(body, oldest, "delivered", len(rows), ".parquet"))
        elif outcome.good:
            body, extension = delivery_format.compressed(
                b"".join(data for _, data in outcome.good),
                destination.get("CompressionFormat", "UNCOMPRESSED"),
            )
            objects.append(_Object(body, oldest, "delivered", len(outcome.good), extension))
        with self._lock:
            self.counts.dropped += outcome.dropped
        return objects

    def _write(self, objects: list[_Object], description: Mapping[str, Any]) -> None:
        """Write the objects; each that is written leaves the list, so that none is written twice."""
        destination = self.destination(description)
        while objects:
            one = objects[0]
            if _is_iceberg(destination) and one.ending == "delivered":
                key = self._commit(one, destination)
            else:
                key = self._put(one, description, destination)
            del objects[0]
            with self._lock:
                self.counts.objects += 1
                count = _COUNTS.get(one.ending, one.ending)
                setattr(self.counts, count, getattr(self.counts, count) + one.records)
            self._tell(destination, one, key)

    def _put(self, one: _Object, description: Mapping[str, Any], destination: Mapping[str, Any]) -> str:
        error_type = _ERROR_TYPES.get(one.ending)
        prefix = destination.get("Prefix" if error_type is None else "ErrorOutputPrefix", "")
        folder = delivery_format.object_prefix(
            prefix, one.oldest, error_type=error_type, random=uuid.uuid4().hex[:11]
        )
        extension = one.extension if error_type else destination.get("FileExtension") or one.extension
        stamp = f"{one.oldest:%Y-%m-%d-%H-%M-%S}"
        version = description.get("VersionId", "1")
        key = f"{folder}{self.name}-{version}-{stamp}-{uuid.uuid4()}{extension}"
        bucket = destination["BucketARN"].rpartition(":")[2]
        settings: dict[str, Any] = {}
        encryption = destination.get("EncryptionConfiguration", {}).get("KMSEncryptionConfig", {})
        if "AWSKMSKeyARN" in encryption:
            settings = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": encryption["AWSKMSKeyARN"]}
        client = self.runtime.client("s3", role=destination["RoleARN"], region=self.region)
        client.put_object(Bucket=bucket, Key=key, Body=one.body, **settings)
        return f"s3://{bucket}/{key}"

    # -- the transform ---------------------------------------------------------------------------------

    def _transform(
        self, records: list[Pending], description: Mapping[str, Any], destination: Mapping[str, Any]
    ) -> _Outcome:
        outcome = _Outcome(good=[(record, record.data) for record in records])
        for processor in _processors(destination):
            if processor["Type"] == "AppendDelimiterToRecord":
                outcome.good = [(record, data + b"\n") for record, data in outcome.good]
                continue
            if processor["Type"] != "Lambda":
                raise NotImplementedError(f"processor {processor['Type']!r} is not emulated")
            waiting, outcome.good = outcome.good, []
            for batch in _batches(waiting, processor):
                self._invoke(batch, processor, description, destination, outcome)
        return outcome

    def _invoke(
        self,
        batch: list[tuple[Pending, bytes]],
        processor: Mapping[str, Any],
        description: Mapping[str, Any],
        destination: Mapping[str, Any],
        outcome: _Outcome,
    ) -> None:
        settings = _parameters(processor)
        function = settings["LambdaArn"]
        attempts = 1 + int(settings.get("NumberOfRetries", LAMBDA_RETRIES))
        event = _event(batch, description, self.region)
        code, message = "", ""
        for _ in range(attempts):
            try:
                answers = self._answers(event, settings.get("RoleArn", destination["RoleARN"]), function)
            except _InvocationError as error:
                code, message = error.code, str(error)
                self._metric("ExecuteProcessing.Success", 0)
                continue
            self._metric("ExecuteProcessing.Success", 1)
            self._sort(batch, answers, function, outcome)
            return
        if code != TOO_LARGE:  # nothing failed there: no function can be asked, and the record is kept
            self.runtime.ledger.failed("firehose", self.name, f"{function}: {code}: {message}")
        ended = self.runtime.clock.now()
        for record, data in batch:
            line = _processing_failed(
                record, data, ended=ended, attempts=attempts, code=code, message=message, function=function
            )
            outcome.failed.append(line)

    def _answers(self, event: Mapping[str, Any], role: str, function: str) -> dict[str, dict[str, Any]]:
        actions = ("lambda:GetFunctionConfiguration",)
        self.runtime.authorizer.note_service_use(role, actions, function, self.region)
        client = self.runtime.client("lambda", role=role, region=self.region)
        payload = json.dumps(event).encode()
        if len(payload) > LAMBDA_PAYLOAD_BYTES:
            text = f"{len(payload)} byte payload is too large for the Invoke operation"
            raise _InvocationError(TOO_LARGE, text)
        try:
            answer = client.invoke(FunctionName=function, Payload=payload)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            known = {
                "AccessDeniedException": "Lambda.InvokeAccessDenied",
                "TooManyRequestsException": "Lambda.InvokeLimitExceeded",
                "ResourceNotFoundException": "Lambda.ResourceNotFound",
            }
            raise _InvocationError(known.get(code, "Lambda.InvokeError"), str(error)) from error
        said = answer["Payload"].read()
        if answer.get("FunctionError"):
            text = said.decode("utf-8", "replace")
            raise _InvocationError("Lambda.FunctionError", f"The Lambda function failed: {text[:2000]}")
        try:
            records = json.loads(said)["records"]
            return {str(record["recordId"]): record for record in records}
        except (ValueError, KeyError, TypeError) as error:
            raise _InvocationError("Lambda.JsonProcessingException", f"no records: {error}") from error

    def _sort(
        self,
        batch: list[tuple[Pending, bytes]],
        answers: Mapping[str, dict[str, Any]],
        function: str,
        outcome: _Outcome,
    ) -> None:
        """Put each record where the function's answer to it says."""
        ended = self.runtime.clock.now()
        for record, data in batch:
            answer = answers.get(record.record_id)
            result = None if answer is None else answer.get("result")
            if result == "Dropped":
                outcome.dropped += 1
            elif answer is not None and result == "Ok":
                outcome.good.append((record, base64.b64decode(answer.get("data") or "")))
            else:
                code, message = _refusal(answer, result)
                line = _processing_failed(
                    record, data, ended=ended, attempts=1, code=code, message=message, function=function
                )
                outcome.failed.append(line)

    # -- the conversion --------------------------------------------------------------------------------

    def _columns(self, conversion: Mapping[str, Any]) -> list[Column]:
        schema = conversion["SchemaConfiguration"]
        region = schema.get("Region", self.region)
        client = self.runtime.client("glue", role=schema["RoleARN"], region=region)
        # Firehose reads the newest version of the table.
        self.runtime.authorizer.note_service_use(
            schema["RoleARN"],
            ("glue:GetTableVersion", "glue:GetTableVersions"),
            _table_arn(region, self.runtime.account, schema),
            region,
        )
        table = client.get_table(DatabaseName=schema["DatabaseName"], Name=schema["TableName"])["Table"]
        found = table["StorageDescriptor"]["Columns"]
        return [Column(column["Name"].lower(), column["Type"].lower()) for column in found]

    def _convert(
        self, good: list[tuple[Pending, bytes]], columns: Sequence[Column], conversion: Mapping[str, Any]
    ) -> tuple[list[Mapping[str, Any]], list[bytes]]:
        formats, fold = _timestamp_formats(conversion), _folds_case(conversion)
        schema = conversion["SchemaConfiguration"]
        rows: list[Mapping[str, Any]] = []
        refused: list[bytes] = []
        for record, data in good:
            try:
                rows.append(delivery_format.row_of(data, columns, formats, fold_case=fold))
            except ConversionError as error:
                refused.append(
                    delivery_format.error_line(
                        data,
                        record.arrival,
                        self.runtime.clock.now(),
                        1,
                        lastErrorCode=error.code,
                        lastErrorMessage=str(error),
                        sequenceNumber=record.sequence_number,
                        subSequenceNumber=None,
                        dataCatalogTable={
                            "catalogId": schema.get("CatalogId"),
                            "databaseName": schema["DatabaseName"],
                            "tableName": schema["TableName"],
                            "region": schema.get("Region", self.region),
                            "versionId": schema.get("VersionId", "LATEST"),
                            "roleArn": schema["RoleARN"],
                        },
                    )
                )
        return rows, refused

    # -- Iceberg ---------------------------------------------------------------------------------------

    def _table(self, destination: Mapping[str, Any]) -> Any:
        """Load the destination's table as the delivery stream's role."""
        return iceberg.load_table(self.runtime, destination, self.region)

    def _iceberg_rows(
        self, good: list[tuple[Pending, bytes]], destination: Mapping[str, Any]
    ) -> tuple[list[Mapping[str, Any]], list[bytes], list[Column]]:
        """Read records into the table's columns; what does not fit them is kept with the reason."""
        columns = iceberg.hive_columns(self._table(destination))
        rows: list[Mapping[str, Any]] = []
        refused: list[bytes] = []
        for record, data in good:
            try:
                rows.append(delivery_format.row_of(data, columns))
            except ConversionError as error:
                refused.append(
                    delivery_format.error_line(
                        data,
                        record.arrival,
                        self.runtime.clock.now(),
                        1,
                        errorCode="Iceberg.InvalidRecord",
                        errorMessage=str(error),
                        EventId=record.record_id,
                    )
                )
        return rows, refused, columns

    def _commit(self, one: _Object, destination: Mapping[str, Any]) -> str:
        """Append rows to the table in one snapshot; the table's own spec divides them into partitions."""
        try:
            return iceberg.append(self._table(destination), one.body, batch=one.extension)
        except iceberg.FAILURES as error:
            raise DeliveryError(f"the table was not written: {type(error).__name__}: {error}") from error

    # -- telling ---------------------------------------------------------------------------------------

    def _tell(self, destination: Mapping[str, Any], one: _Object, key: str) -> None:
        now = self.runtime.clock.now()
        self.runtime.ledger.ran("firehose", self.name, ending=one.ending, records=one.records, object=key)
        delivered = one.ending == "delivered"
        known: dict[str, dict[str, float]] = {
            "delivered": {
                "DeliveryToS3.Records": one.records,
                "DeliveryToS3.Success": 1,
                "DeliveryToS3.DataFreshness": max(0.0, (now - one.oldest).total_seconds()),
                "SucceedConversion.Records": one.records,
            },
            "processing_failed": {"FailedProcessing.Records": one.records},
            "conversion_failed": {"FailedConversion.Records": one.records},
            "iceberg_failed": {"DeliveryToIceberg.FailedRowCount": one.records},
        }
        if _is_iceberg(destination):
            known["delivered"] = {
                "DeliveryToIceberg.SuccessfulRowCount": one.records,
                "DeliveryToIceberg.IncomingRecords": one.records,
            }
        for name, value in known[one.ending].items():
            self._metric(name, value)
        role, region, bucket = destination["RoleARN"], self.region, destination["BucketARN"]
        for resource, actions in ((bucket, _BUCKET_ACTIONS), (f"{bucket}/{_key(key)}", _OBJECT_ACTIONS)):
            self.runtime.authorizer.note_service_use(role, actions, resource, region)
        logging = destination.get("CloudWatchLoggingOptions", {})
        if delivered and logging.get("Enabled"):
            region, account = self.region, self.runtime.account
            stream = f"log-group:{logging['LogGroupName']}:log-stream:{logging['LogStreamName']}"
            arn = f"arn:aws:logs:{region}:{account}:{stream}"
            # Firehose writes errors only; a policy must allow it before the first one.
            self.runtime.authorizer.note_service_use(
                destination["RoleARN"], ("logs:PutLogEvents",), arn, region
            )

    def _metric(self, name: str, value: float) -> None:
        bridge.put_metric(
            account=self.runtime.account,
            region=self.region,
            namespace="AWS/Firehose",
            name=name,
            dimensions={"DeliveryStreamName": self.name},
            timestamp=self.runtime.clock.now().timestamp(),
            unit="None",
            values=[float(value)],
        )

    def _log_error(self, destination: Mapping[str, Any], message: str) -> None:
        logging = destination.get("CloudWatchLoggingOptions", {})
        if not logging.get("Enabled"):
            return
        client = self.runtime.client("logs", role=destination["RoleARN"], region=self.region)
        try:
            client.put_log_events(
                logGroupName=logging["LogGroupName"],
                logStreamName=logging["LogStreamName"],
                logEvents=[{"timestamp": int(time.time() * 1000), "message": message}],
            )
        except ClientError as error:
            self.runtime.ledger.failed("firehose", self.name, f"its error log was not written: {error}")


#: What Firehose also does with the bucket (Developer Guide, "Controlling access").
_BUCKET_ACTIONS = ("s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads")
_OBJECT_ACTIONS = ("s3:AbortMultipartUpload", "s3:GetObject")


def _key(uri: str) -> str:
    return uri.removeprefix("s3://").partition("/")[2]


class _InvocationError(Exception):
    """A transform that gave no usable answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _refusal(answer: Mapping[str, Any] | None, result: object) -> tuple[str, str]:
    if answer is None:
        return "Lambda.MissingRecordId", "the function's answer lacks the record"
    if result == "ProcessingFailed":
        return "Lambda.ProcessingFailedStatus", "ProcessingFailed status set for record"
    return "Lambda.InvalidResult", f"result must be Ok, Dropped or ProcessingFailed, got {result!r}"


def _processing_failed(
    record: Pending, data: bytes, *, ended: datetime, attempts: int, code: str, message: str, function: str
) -> bytes:
    return delivery_format.error_line(
        data,
        record.arrival,
        ended,
        attempts,
        errorCode=code,
        errorMessage=message,
        lambdaArn=function,
        EventId=record.record_id,
    )


def _conversion(destination: Mapping[str, Any]) -> dict[str, Any] | None:
    conversion = destination.get("DataFormatConversionConfiguration") or {}
    return dict(conversion) if conversion and _truthy(conversion.get("Enabled", True)) else None


def _is_iceberg(destination: Mapping[str, Any]) -> bool:
    return "CatalogConfiguration" in destination


def _truthy(value: object) -> bool:
    # Templates may carry booleans as text.
    return value is True or str(value).lower() == "true"


def _parquet_compression(conversion: Mapping[str, Any]) -> str:
    serializer = conversion["OutputFormatConfiguration"]["Serializer"]
    if "ParquetSerDe" not in serializer:
        raise NotImplementedError(f"output format {sorted(serializer)} is not emulated; here: ParquetSerDe")
    return str((serializer["ParquetSerDe"] or {}).get("Compression", "SNAPPY"))


def _timestamp_formats(conversion: Mapping[str, Any]) -> list[str] | None:
    deserializer = conversion["InputFormatConfiguration"]["Deserializer"]
    if "HiveJsonSerDe" in deserializer:
        return list((deserializer["HiveJsonSerDe"] or {}).get("TimestampFormats", ()))
    return None


def _folds_case(conversion: Mapping[str, Any]) -> bool:
    openx = conversion["InputFormatConfiguration"]["Deserializer"].get("OpenXJsonSerDe") or {}
    return _truthy(openx.get("CaseInsensitive", True))


def _processors(destination: Mapping[str, Any]) -> list[dict[str, Any]]:
    processing = destination.get("ProcessingConfiguration") or {}
    return list(processing.get("Processors", ())) if _truthy(processing.get("Enabled", False)) else []


def _parameters(processor: Mapping[str, Any]) -> dict[str, str]:
    return {item["ParameterName"]: str(item["ParameterValue"]) for item in processor.get("Parameters", ())}


def _batches(
    records: list[tuple[Pending, bytes]], processor: Mapping[str, Any]
) -> Iterator[list[tuple[Pending, bytes]]]:
    size = float(_parameters(processor).get("BufferSizeInMBs", LAMBDA_SIZE_MIB))
    limit = min(size, LAMBDA_LIMIT_MIB) * MIB
    batch: list[tuple[Pending, bytes]] = []
    held = 0
    for record, data in records:
        if batch and held + len(data) > limit:
            yield batch
            batch, held = [], 0
        batch.append((record, data))
        held += len(data)
    if batch:
        yield batch


def _event(batch: list[tuple[Pending, bytes]], description: Mapping[str, Any], region: str) -> dict[str, Any]:
    """Build the event as Firehose invokes a transform with it."""
    source = description.get("Source", {}).get("KinesisStreamSourceDescription")
    records = []
    for record, data in batch:
        arrival = int(record.arrival.timestamp() * 1000)
        shown: dict[str, Any] = {
            "recordId": record.record_id,
            "approximateArrivalTimestamp": arrival,
            "data": base64.b64encode(data).decode(),
        }
        if source is not None:
            shown["kinesisRecordMetadata"] = {
                "sequenceNumber": record.sequence_number,
                "subsequenceNumber": 0,
                "partitionKey": record.partition_key,
                "shardId": "shardId-000000000000",
                "approximateArrivalTimestamp": arrival,
            }
        records.append(shown)
    event: dict[str, Any] = {
        "invocationId": str(uuid.uuid4()),
        "deliveryStreamArn": description["DeliveryStreamARN"],
        "region": region,
        "records": records,
    }
    if source is not None:
        event["sourceKinesisStreamArn"] = source["KinesisStreamARN"]
    return event


def _table_arn(region: str, account: str, schema: Mapping[str, Any]) -> str:
    return f"arn:aws:glue:{region}:{account}:table/{schema['DatabaseName']}/{schema['TableName']}"


# -- all delivery streams -----------------------------------------------------------------------------------


class Deliveries:
    """The delivery streams of a server."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._known: dict[tuple[str, str], Delivery] = {}
        self._numbers = itertools.count()
        self._pulling: set[str] = set()
        self._lock = threading.Lock()

    def get(self, name: str, region: str) -> Delivery:
        """Return the delivery stream of that name."""
        with self._lock:
            if (region, name) not in self._known:
                self._known[region, name] = Delivery(self.runtime, name, region)
            return self._known[region, name]

    def all(self) -> list[Delivery]:
        """Return those that had a record."""
        with self._lock:
            return list(self._known.values())

    def from_kinesis(self, region: str, stream: str) -> None:
        """Read a stream that has new records, once for all that come meanwhile."""
        with self._lock:
            if stream in self._pulling:
                return
            self._pulling.add(stream)
        self.runtime.background(f"firehose reads {stream.rpartition('/')[2]}", self._pull, region, stream)

    def _pull(self, region: str, stream: str) -> None:
        with self._lock:
            # Taken off before reading: a record that comes from now on starts another reading.
            self._pulling.discard(stream)
        for name in self.fed_by(region, stream):
            try:
                self.get(name, region).pull()
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if error.response["Error"]["Code"] not in PASSING_CODES and status < 500:
                    raise
                # Firehose goes on trying: nothing of the stream is passed over.
                self.runtime.ledger.failed("firehose", name, f"it could not read {stream}: {error}")
                due = self.runtime.clock.now() + timedelta(seconds=READ_AGAIN_SECONDS)
                again = f"firehose {name} reads again"
                self.runtime.clock.at(due, again, lambda: self.from_kinesis(region, stream))

    def fed_by(self, region: str, stream: str) -> list[str]:
        """Return the names of the delivery streams that a Kinesis stream feeds."""
        client = self.runtime.client("firehose", region=region)
        names = client.list_delivery_streams(Limit=10_000, DeliveryStreamType="KinesisStreamAsSource")
        return [
            name
            for name in names["DeliveryStreamNames"]
            if self.get(name, region).describe()["Source"]["KinesisStreamSourceDescription"][
                "KinesisStreamARN"
            ]
            == stream
        ]

    def put(self, region: str, name: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Take records of PutRecord and PutRecordBatch."""
        arrival = self.runtime.clock.now()
        pending = [Pending(record_id, bytes(data), arrival) for record_id, data in records]
        self.runtime.background(f"firehose {name} takes records", self._take, name, region, pending)

    def _take(self, name: str, region: str, pending: Sequence[Pending]) -> None:
        delivery = self.get(name, region)
        delivery.add(pending, delivery.describe())


_DELIVERIES: dict[int, Deliveries] = {}


def install(runtime: Runtime) -> None:
    """Take delivery over from ministack, which writes each record as an object of its own."""
    deliveries = Deliveries(runtime)
    _DELIVERIES[id(runtime)] = deliveries
    bridge.use_own_delivery(deliveries.from_kinesis, deliveries.put)


def _summary(delivery: Delivery) -> dict[str, Any]:
    return {"region": delivery.region, "buffered": delivery.buffered, **vars(delivery.counts)}


@control("POST", "/firehose/flush")
def _flush(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Deliver now what is buffered: of ``delivery_stream``, or of every one. Answers the counts of each."""
    wanted = body.get("delivery_stream")
    region = body.get("region", runtime.region)
    deliveries = _DELIVERIES[id(runtime)]
    client = runtime.client("firehose", region=region)
    known = client.list_delivery_streams(Limit=10_000)["DeliveryStreamNames"]
    if wanted is not None and wanted not in known:
        raise ControlError(
            f"no delivery stream {wanted!r} in {region}; there are: {', '.join(known) or 'none'}"
        )
    chosen = [deliveries.get(name, region) for name in known if wanted in (None, name)]
    for delivery in chosen:
        try:
            if delivery.describe()["DeliveryStreamType"] == "KinesisStreamAsSource":
                delivery.pull()
        except (ClientError, AccessDeniedError) as error:
            raise ControlError(f"{delivery.name} cannot read its source: {error}") from None
        delivery.flush()
    return {"delivery_streams": {delivery.name: _summary(delivery) for delivery in chosen}}


@control("GET", "/firehose")
def _status(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of every delivery stream that had a record."""
    del body
    deliveries = _DELIVERIES[id(runtime)].all()
    return {"delivery_streams": {delivery.name: _summary(delivery) for delivery in deliveries}}
