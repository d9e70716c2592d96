"""From a record on a stream to a row of Parquet in the raw zone, or to a quarantine with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_kinesisfirehose as firehose
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import lambda_context
from ml_lifecycle.data_lake import IcebergTable, Zone, parquet_table
from ml_lifecycle.foundation import log_group
from ml_lifecycle.pseudo import ACCOUNT, REGION, arn, service_principal

#: Partition column of the raw table: the day of arrival (UTC).
INGEST_DATE = "ingest_date"
#: Amazon Data Firehose invokes a function with at most this much (ProcessorParameter BufferSizeInMBs) ...
_LAMBDA_BUFFER_MIB = 1
#: ... and waits at most five minutes for it ("Data transformation failure handling").
_LAMBDA_TIMEOUT_SECONDS = 120
#: An Iceberg commit that fails is tried again for so long (IcebergDestinationConfiguration, RetryOptions).
_RETRY_SECONDS = 300
#: A provisioned stream has 1 to 10,000 shards (UpdateShardCount), on-demand mode scales by itself.
_MOST_SHARDS = 10_000


class StreamIngestion(Construct):
    """Define the way of streamed records into the raw zone.

    Kinesis stream, Firehose reading it, a container-image function that checks each record against the
    contract, Parquet by the schema of a Glue table. Below ``<slug>/`` of the raw zone:

    - ``data/ingest_date=YYYY-MM-DD/``: the rows. With ``format="iceberg"`` an Iceberg table stands in
      ``data/``, divided by the values of ``partition_by`` (dynamic partitioning; none by default), to which
      Firehose commits
    - ``quarantine/``: records the contract refuses, as they came, with every reason; written by the function
    - ``delivery-errors/``: what Firehose itself could not process or convert

    Defaults: on-demand stream that keeps a day, 60 s or 64 MiB per file (64 is Firehose's floor when it
    converts), Parquet. ``alarm_topic`` is told when the stream is read late, when the function fails, when
    it cannot be asked, and when records do not convert.

    A stream may take records of 10 MiB (``max_record_kib``), an invocation holds 6 MB (Lambda quotas,
    "Invocation payload") and a record 64 KiB (``ml_contract.records.codec``). What an invocation holds, the
    function quarantines; what none holds, Firehose keeps below ``delivery-errors/processing-failed/`` (Amazon
    Data Firehose Developer Guide, "Handle failure in data transformation").
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        zone: Zone,
        stream_key: kms.IKey,
        log_key: kms.IKey,
        mode: Literal["on_demand", "provisioned"] = "on_demand",
        shards: int = 1,
        retention_hours: int = 24,
        max_record_kib: int = 1024,
        format: Literal["parquet", "iceberg"] = "parquet",
        partition_by: Sequence[str] = (),
        buffer_seconds: int = 60,
        buffer_mib: int = 64,
        memory_mib: int = 1024,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = _problems(
            shards=shards,
            retention_hours=retention_hours,
            max_record_kib=max_record_kib,
            buffer_seconds=buffer_seconds,
            buffer_mib=buffer_mib,
            memory_mib=memory_mib,
        )
        if partition_by and format != "iceberg":
            given = ", ".join(partition_by)
            problems.append(f"partition_by goes with format='iceberg', got {given} with {format!r}")
        unknown = [name for name in partition_by if name not in contract.by_name]
        if unknown:
            problems.append(f"partition_by must name fields of {contract.name}, got {', '.join(unknown)}")
        if problems:
            raise ValueError("stream ingestion: " + "; ".join(problems))
        self.zone = zone
        self.format = format
        self.stream_key = stream_key
        base = f"{contract.slug}/"
        self.data_prefix = f"{base}data/"
        self.quarantine_prefix = f"{base}quarantine/"
        self.error_prefix = f"{base}delivery-errors/"

        self.stream = kinesis.Stream(
            self,
            "Stream",
            stream_mode=kinesis.StreamMode.ON_DEMAND
            if mode == "on_demand"
            else kinesis.StreamMode.PROVISIONED,
            shard_count=None if mode == "on_demand" else shards,
            retention_period=cdk.Duration.hours(retention_hours),
            encryption=kinesis.StreamEncryption.KMS,
            encryption_key=stream_key,
            # What is not delivered yet exists nowhere else.
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        resource = self.stream.node.default_child
        if not isinstance(resource, kinesis.CfnStream):
            raise TypeError(f"the stream's default child must be a CfnStream, got {type(resource).__name__}")
        if max_record_kib != 1024:
            resource.max_record_size_in_kib = max_record_kib
        acknowledge(
            self.stream,
            "KDS3",
            "a customer-managed key costs requests, and buys a key policy and a rotation of our own",
        )
        self.table: glue.CfnTable | IcebergTable
        if format == "iceberg":
            self.table = IcebergTable(
                self,
                "IcebergTable",
                zone=zone,
                name=contract.name,
                columns=contract.glue_columns(),
                prefix=self.data_prefix,
                partition_by=[("identity", name) for name in partition_by],
                log_key=log_key,
                log_retention_days=log_retention_days,
            )
        else:
            self.table = parquet_table(
                self,
                "Table",
                zone=zone,
                name=contract.name,
                columns=contract.glue_columns(),
                prefix=self.data_prefix,
                partition_key=(INGEST_DATE, "string"),
            )
        self.function = self._function(contract, memory_mib, log_key, log_retention_days)
        self.delivery_log_group = log_group(
            self, "DeliveryLogs", key=log_key, retention_days=log_retention_days
        )
        self.delivery_role = self._delivery_role()
        self.delivery_stream = self._delivery_stream(contract.name, buffer_seconds, buffer_mib)
        self.alarms = self._alarms(alarm_topic, buffer_seconds)

    @property
    def stream_name(self) -> str:
        """Name of the Kinesis stream that producers write to."""
        return self.stream.stream_name

    @property
    def delivery_stream_name(self) -> str:
        """Name of the Firehose stream."""
        return self.delivery_stream.ref

    def _function(
        self, contract: CompiledContract, memory_mib: int, log_key: kms.IKey, log_retention_days: int
    ) -> lambda_.DockerImageFunction:
        group = log_group(self, "TransformLogs", key=log_key, retention_days=log_retention_days)
        role = iam.Role(
            self,
            "TransformRole",
            assumed_by=service_principal("lambda"),
            description="Checks records, writes refused ones to quarantine",
        )
        _grant_log(group, role)
        self.zone.grant_write(role, self.quarantine_prefix)
        return lambda_.DockerImageFunction(
            self,
            "Transform",
            code=lambda_.DockerImageCode.from_image_asset(
                str(lambda_context("record_transform", contract)), platform=ecr_assets.Platform.LINUX_AMD64
            ),
            architecture=lambda_.Architecture.X86_64,
            memory_size=memory_mib,
            timeout=cdk.Duration.seconds(_LAMBDA_TIMEOUT_SECONDS),
            role=role,
            log_group=group,
            environment={"QUARANTINE_URI": self.zone.uri(self.quarantine_prefix)},
            description=f"Checks records of {contract.name} against the contract",
        )

    def _delivery_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "DeliveryRole",
            description="Firehose: from the stream through the function into the raw zone",
            assumed_by=service_principal("firehose", own_account=True),
        )
        # Amazon Data Firehose Developer Guide, "Controlling access", for a stream source, an S3
        # destination, a function and a Glue schema.
        self.grant_read(role)
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"],
            resource_arns=[self.function.function_arn, f"{self.function.function_arn}:$LATEST"],
        )
        if isinstance(self.table, IcebergTable):
            # "Grant Firehose access to Apache Iceberg tables": it reads and commits the table, and keeps what
            # it cannot put there.
            self.table.grant_commit(role)
            self.zone.grant_read(role, self.error_prefix)
            self.zone.grant_write(role, self.error_prefix)
        else:
            for prefix in (self.data_prefix, self.error_prefix):
                self.zone.grant_read(role, prefix)
                self.zone.grant_write(role, prefix)
            # The reference, not the name: Lake Formation knows the table only once it is there.
            self.zone.grant_describe_table(role, self.table.ref)
        iam.Grant.add_to_principal(
            grantee=role,
            # Firehose asks for the bucket itself, which no condition on a prefix would let it.
            actions=["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            resource_arns=[self.zone.bucket.bucket_arn],
        )
        _grant_log(self.delivery_log_group, role, create=False)
        return role

    def _delivery_stream(
        self, table_name: str, buffer_seconds: int, buffer_mib: int
    ) -> firehose.CfnDeliveryStream:
        log_stream = logs.LogStream(
            self,
            "DeliveryLog",
            log_group=self.delivery_log_group,
            log_stream_name="delivery",
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        props = firehose.CfnDeliveryStream
        logging = props.CloudWatchLoggingOptionsProperty(
            enabled=True,
            log_group_name=self.delivery_log_group.log_group_name,
            log_stream_name=log_stream.log_stream_name,
        )
        hints = props.BufferingHintsProperty(interval_in_seconds=buffer_seconds, size_in_m_bs=buffer_mib)
        destination: dict[str, Any] = (
            {"iceberg_destination_configuration": self._iceberg(self.table, hints, logging)}
            if isinstance(self.table, IcebergTable)
            else {
                "extended_s3_destination_configuration": self._parquet(self.table, table_name, hints, logging)
            }
        )
        delivery = firehose.CfnDeliveryStream(
            self,
            "Delivery",
            delivery_stream_type="KinesisStreamAsSource",
            kinesis_stream_source_configuration=props.KinesisStreamSourceConfigurationProperty(
                kinesis_stream_arn=self.stream.stream_arn, role_arn=self.delivery_role.role_arn
            ),
            **destination,
        )
        acknowledge(
            delivery,
            "KDF1",
            "Firehose takes no key of its own when a Kinesis stream feeds it; that stream has a key",
        )
        if isinstance(self.table, IcebergTable):
            delivery.node.add_dependency(self.table)
        else:
            delivery.add_resource_dependency(self.table)
        # Roles are used as soon as the stream exists: their policies must be there.
        delivery.node.add_dependency(self.delivery_role, self.function)
        return delivery

    def _processing(self) -> firehose.CfnDeliveryStream.ProcessingConfigurationProperty:
        props = firehose.CfnDeliveryStream
        values = {
            "LambdaArn": f"{self.function.function_arn}:$LATEST",
            "RoleArn": self.delivery_role.role_arn,
            "BufferSizeInMBs": str(_LAMBDA_BUFFER_MIB),
            "BufferIntervalInSeconds": "60",
            "NumberOfRetries": "3",
        }
        parameters = [
            props.ProcessorParameterProperty(parameter_name=name, parameter_value=value)
            for name, value in values.items()
        ]
        return props.ProcessingConfigurationProperty(
            enabled=True, processors=[props.ProcessorProperty(type="Lambda", parameters=parameters)]
        )

    def _encryption(self) -> firehose.CfnDeliveryStream.EncryptionConfigurationProperty:
        props = firehose.CfnDeliveryStream
        return props.EncryptionConfigurationProperty(
            kms_encryption_config=props.KMSEncryptionConfigProperty(awskms_key_arn=self.zone.key.key_arn)
        )

    @property
    def _error_output(self) -> str:
        kind = "!{firehose:error-output-type}"
        return f"{self.error_prefix}{kind}/{INGEST_DATE}=!{{timestamp:yyyy-MM-dd}}/"

    def _parquet(
        self,
        table: glue.CfnTable,
        table_name: str,
        hints: firehose.CfnDeliveryStream.BufferingHintsProperty,
        logging: firehose.CfnDeliveryStream.CloudWatchLoggingOptionsProperty,
    ) -> firehose.CfnDeliveryStream.ExtendedS3DestinationConfigurationProperty:
        props = firehose.CfnDeliveryStream
        return props.ExtendedS3DestinationConfigurationProperty(
            bucket_arn=self.zone.bucket.bucket_arn,
            role_arn=self.delivery_role.role_arn,
            prefix=f"{self.data_prefix}{INGEST_DATE}=!{{timestamp:yyyy-MM-dd}}/",
            error_output_prefix=self._error_output,
            file_extension=".parquet",
            buffering_hints=hints,
            # Parquet compresses inside; Firehose accepts nothing else here with format conversion.
            compression_format="UNCOMPRESSED",
            encryption_configuration=self._encryption(),
            cloud_watch_logging_options=logging,
            processing_configuration=self._processing(),
            data_format_conversion_configuration=props.DataFormatConversionConfigurationProperty(
                enabled=True,
                input_format_configuration=props.InputFormatConfigurationProperty(
                    deserializer=props.DeserializerProperty(
                        open_x_json_ser_de=props.OpenXJsonSerDeProperty(case_insensitive=False)
                    )
                ),
                output_format_configuration=props.OutputFormatConfigurationProperty(
                    serializer=props.SerializerProperty(
                        parquet_ser_de=props.ParquetSerDeProperty(compression="SNAPPY")
                    )
                ),
                schema_configuration=props.SchemaConfigurationProperty(
                    catalog_id=ACCOUNT,
                    region=REGION,
                    role_arn=self.delivery_role.role_arn,
                    database_name=table.database_name,
                    table_name=table_name,
                    version_id="LATEST",
                ),
            ),
        )

    def _iceberg(
        self,
        table: IcebergTable,
        hints: firehose.CfnDeliveryStream.BufferingHintsProperty,
        logging: firehose.CfnDeliveryStream.CloudWatchLoggingOptionsProperty,
    ) -> firehose.CfnDeliveryStream.IcebergDestinationConfigurationProperty:
        props = firehose.CfnDeliveryStream
        return props.IcebergDestinationConfigurationProperty(
            role_arn=self.delivery_role.role_arn,
            catalog_configuration=props.CatalogConfigurationProperty(catalog_arn=arn("glue", "catalog")),
            # Records are only added: a later version of one stands beside the earlier, as in Parquet, and the
            # curate job chooses; Firehose then needs no key to update by.
            append_only=True,
            destination_table_configuration_list=[
                props.DestinationTableConfigurationProperty(
                    destination_database_name=table.database_name,
                    destination_table_name=table.name,
                    s3_error_output_prefix=f"{self.error_prefix}iceberg-failed/",
                )
            ],
            buffering_hints=hints,
            cloud_watch_logging_options=logging,
            processing_configuration=self._processing(),
            retry_options=props.RetryOptionsProperty(duration_in_seconds=_RETRY_SECONDS),
            # Where what fails is kept; rows go where the table says.
            s3_backup_mode="FailedDataOnly",
            s3_configuration=props.S3DestinationConfigurationProperty(
                bucket_arn=self.zone.bucket.bucket_arn,
                role_arn=self.delivery_role.role_arn,
                error_output_prefix=self._error_output,
                encryption_configuration=self._encryption(),
                cloud_watch_logging_options=logging,
            ),
        )

    def grant_put_records(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant what a producer needs: putting records on the stream, describing it, and its key."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["kinesis:PutRecord", "kinesis:PutRecords", "kinesis:DescribeStreamSummary"],
            resource_arns=[self.stream.stream_arn],
        )
        return grant.combine(
            iam.Grant.add_to_principal(
                grantee=grantee, actions=["kms:GenerateDataKey"], resource_arns=[self.stream_key.key_arn]
            )
        )

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the stream, and its key."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=[
                "kinesis:DescribeStream",
                "kinesis:GetShardIterator",
                "kinesis:GetRecords",
                "kinesis:ListShards",
            ],
            resource_arns=[self.stream.stream_arn],
        )
        iam.Grant.add_to_principal(
            grantee=grantee, actions=["kms:Decrypt"], resource_arns=[self.stream_key.key_arn]
        )
        return grant

    def grant_read_quarantine(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading refused records."""
        return self.zone.grant_read(grantee, self.quarantine_prefix)

    def metric_incoming_records(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Records put on the stream."""
        return self._metric("AWS/Kinesis", "IncomingRecords", {"StreamName": self.stream_name}, "Sum", period)

    def metric_read_age(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Milliseconds that the last record Firehose read had waited."""
        return self._metric(
            "AWS/Firehose",
            "KinesisMillisBehindLatest",
            {"DeliveryStreamName": self.delivery_stream_name},
            "Maximum",
            period,
        )

    def metric_delivery_freshness(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Seconds since the oldest record that Firehose holds arrived; Firehose tells it of S3 only."""
        if self.format == "iceberg":
            raise ValueError(
                "Firehose tells no freshness of Iceberg tables, got format='iceberg'; use metric_read_age"
            )
        return self._metric(
            "AWS/Firehose",
            "DeliveryToS3.DataFreshness",
            {"DeliveryStreamName": self.delivery_stream_name},
            "Maximum",
            period,
        )

    def metric_delivered_records(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Records delivered to the raw zone."""
        return self._metric(
            "AWS/Firehose",
            "DeliveryToIceberg.SuccessfulRowCount"
            if isinstance(self.table, IcebergTable)
            else "DeliveryToS3.Records",
            {"DeliveryStreamName": self.delivery_stream_name},
            "Sum",
            period,
        )

    def metric_failed_conversions(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Records that Firehose could not convert or commit; they lie below ``delivery-errors``."""
        return self._metric(
            "AWS/Firehose",
            self._failed,
            {"DeliveryStreamName": self.delivery_stream_name},
            "Sum",
            period,
        )

    @property
    def _failed(self) -> str:
        iceberg = isinstance(self.table, IcebergTable)
        return "DeliveryToIceberg.FailedRowCount" if iceberg else "FailedConversion.Records"

    def metric_transform_errors(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Invocations of the function that failed; Firehose tries again."""
        return self._metric(
            "AWS/Lambda", "Errors", {"FunctionName": self.function.function_name}, "Sum", period
        )

    def _metric(
        self,
        namespace: str,
        name: str,
        dimensions: dict[str, str],
        statistic: str,
        period: cdk.Duration | None,
    ) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=dimensions,
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    def _alarms(self, topic: sns.ITopic | None, buffer_seconds: int) -> tuple[cloudwatch.CfnAlarm, ...]:
        delivery = {"DeliveryStreamName": self.delivery_stream_name}
        late = alarm(
            self,
            "ReadLate",
            what="Firehose reads the stream more than 15 minutes late: records are lost after its retention",
            runbook="stream-read-late",
            namespace="AWS/Firehose",
            metric="KinesisMillisBehindLatest",
            dimensions=delivery,
            statistic="Maximum",
            threshold=15 * 60 * 1000,
            periods=3,
            topic=topic,
        )
        failing = alarm(
            self,
            "TransformFails",
            what="The transform function fails: nothing is delivered until it works again",
            runbook="transform-fails",
            namespace="AWS/Lambda",
            metric="Errors",
            dimensions={"FunctionName": self.function.function_name},
            topic=topic,
        )
        unconverted = alarm(
            self,
            "ConversionFails",
            what="Records do not convert to Parquet: look below delivery-errors of the raw zone",
            runbook="conversion-fails",
            namespace="AWS/Firehose",
            metric=self._failed,
            dimensions=delivery,
            topic=topic,
        )
        unasked = alarm(
            self,
            "TransformNotAsked",
            what="The transform function gave no answer or could not be asked, as for a record that no "
            "invocation holds: look below delivery-errors of the raw zone",
            runbook="transform-fails",
            namespace="AWS/Firehose",
            metric="ExecuteProcessing.Success",
            dimensions=delivery,
            statistic="Average",
            threshold=1,
            comparison="LessThanThreshold",
            topic=topic,
        )
        if self.format == "iceberg":
            # Firehose tells no freshness of Iceberg tables.
            return (late, failing, unconverted, unasked)
        stuck = alarm(
            self,
            "DeliveryLate",
            what="What Firehose holds has waited 15 minutes longer than its buffer for the raw zone",
            runbook="delivery-late",
            namespace="AWS/Firehose",
            metric="DeliveryToS3.DataFreshness",
            dimensions=delivery,
            statistic="Maximum",
            threshold=buffer_seconds + 15 * 60,
            periods=3,
            topic=topic,
        )
        return (late, failing, unconverted, unasked, stuck)


def _problems(**given: int) -> list[str]:
    """What is wrong with the numbers, each by itself."""
    bounds = {
        "shards": (1, _MOST_SHARDS, ""),
        "retention_hours": (24, 8760, " (a year)"),
        # Kinesis API reference, UpdateMaxRecordSize; a stream takes 1 MiB unless told otherwise.
        "max_record_kib": (1024, 10_240, " (10 MiB)"),
        "buffer_seconds": (0, 900, ""),
        "buffer_mib": (64, 128, " with format conversion"),
        "memory_mib": (128, 10_240, ""),
    }
    return [
        f"{name} must be between {low} and {high}{note}, got {given[name]}"
        for name, (low, high, note) in bounds.items()
        if not low <= given[name] <= high
    ]


def _grant_log(group: logs.ILogGroup, grantee: iam.IGrantable, *, create: bool = True) -> iam.Grant:
    """Grant writing to one log group. Its ARN ends in ``:*``, every stream of it, as policies name it."""
    return iam.Grant.add_to_principal(
        grantee=grantee,
        actions=["logs:CreateLogStream", "logs:PutLogEvents"] if create else ["logs:PutLogEvents"],
        resource_arns=[group.log_group_arn],
    )
