"""A Flink application that keeps window features current in an online store."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_kinesisanalyticsv2 as flink
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract
from ml_contract.evolution.feature_lock import GroupVersion, schema_hash
from ml_contract.windows.flink_job import window_definitions, window_job

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import code_root, staged
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.foundation import grant_encrypt_decrypt, log_group
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["WindowedFeatures"]

#: Managed Service for Apache Flink Developer Guide, "Release versions": Flink 1.20, Python 3.11.
RUNTIME = "FLINK-1_20"
#: Where the job's program looks for the connector inside the application's zip.
CONNECTOR = "lib/connector.jar"
#: Batches of rows that the writer gets at once; it puts the newest of each key only.
_BATCH = 500
_ATTEMPTS = 10


class WindowedFeatures(Construct):
    """Define the window features of one workload as they stand now: one row per key in an online store.

    Records of ``source_stream`` -> Managed Service for Apache Flink, which runs the SQL that the contract's
    windows make (the text that Spark runs in the batch path) -> a stream of rows -> a function that puts the
    newest row of each key -> a feature group of its own, online and offline.

    A caller reads the row of a key (``GetRecord``) and sends its values with the record to the endpoint.

    Defaults: one Kinesis processing unit that scales by itself, checkpoints and snapshots on, both
    streams and the store encrypted with ``data_key``. ``connector`` is the jar of Flink's Kinesis connector:
    no package index has it, so it is given by path; without it a warning says that the application cannot
    start in an account. ``alarm_topic`` is told when the job is down, when rows cannot be put and when the
    writer fails.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        name_prefix: str,
        source_stream: kinesis.IStream,
        zone: Zone,
        data_key: kms.IKey,
        message_key: kms.IKey,
        log_key: kms.IKey,
        allowed_lateness_hours: int = 1,
        parallelism: int = 1,
        connector: Path | None = None,
        small_stream: bool = False,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if contract.windows is None:
            problems.append(
                f"contract must have windows, {contract.name} has none; declare them in its workload"
            )
        # Managed Service for Apache Flink quotas: 64 processing units by default, one per parallel task here.
        if not 1 <= parallelism <= 64:
            problems.append(f"parallelism must be between 1 and 64, got {parallelism}")
        if connector is not None and not connector.is_file():
            problems.append(f"connector must be the path of a jar, got {connector}")
        if problems:
            raise ValueError("windowed features: " + "; ".join(problems))
        self.contract = contract
        self.source_stream = source_stream
        self.data_key = data_key
        self.name = f"{name_prefix}-windows"
        definitions = window_definitions(contract)
        key = definitions[0][0]
        self.feature_group = FeatureGroup(
            self,
            "Features",
            contract=contract,
            name_prefix=self.name,
            zone=zone,
            online_key=data_key,
            offline_prefix=f"{contract.slug}/windows-store/",
            version=GroupVersion(
                number=1,
                suffix=schema_hash(key, contract.event_time, definitions),
                identifier=key,
                event_time=contract.event_time,
                definitions=definitions,
            ),
            removal_policy=removal_policy,
        )
        self.stream = kinesis.Stream(
            self,
            "Rows",
            # One shard costs less than half of a stream on demand, and takes 1,000 rows a second.
            stream_mode=kinesis.StreamMode.PROVISIONED if small_stream else kinesis.StreamMode.ON_DEMAND,
            shard_count=1 if small_stream else None,
            encryption=kinesis.StreamEncryption.KMS,
            encryption_key=data_key,
            retention_period=cdk.Duration.hours(24),
            # It holds what can be computed again.
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        acknowledge(
            self.stream,
            "KDS3",
            "a customer-managed key costs requests, and buys a key policy and a rotation of our own",
        )
        self.log_group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.code = self._code(allowed_lateness_hours, connector)
        self.role = self._role()
        self.application = self._application(parallelism)
        self.starter = self._started(log_key, log_retention_days)
        self.dead_letters = DeadLetterQueue(self, "Kept", key=message_key)
        self.writer = self._writer(key, log_key, log_retention_days)
        self.alarms = self._alarms(alarm_topic)

    def _code(self, lateness: int, connector: Path | None) -> s3_assets.Asset:
        parts: dict[str, Path | str] = {
            "main.py": code_root("flink") / "window_features" / "main.py",
            "job.sql": window_job(self.contract, lateness_hours=lateness),
        }
        if connector is not None:
            parts[CONNECTOR] = connector
        else:
            cdk.Annotations.of(self).add_warning_v2(
                "ml-lifecycle:flink-connector",
                "The window job has no Kinesis connector, so it cannot start in an account; "
                "give the environment flink_connector, the path of "
                "flink-sql-connector-aws-kinesis-streams for Flink 1.20 "
                "(docs/constructs/windows.md says where it is found)",
            )
        return s3_assets.Asset(self, "Code", path=str(staged(f"flink-{self.contract.name}", parts)))

    def _role(self) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            description="The window job reads records and writes rows through it",
            assumed_by=service_principal("kinesisanalytics"),
        )
        # The connector's own needs (Flink, "Amazon Kinesis Data Streams SQL Connector").
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "kinesis:DescribeStream",
                "kinesis:DescribeStreamSummary",
                "kinesis:GetRecords",
                "kinesis:GetShardIterator",
                "kinesis:ListShards",
            ],
            resource_arns=[self.source_stream.stream_arn],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:PutRecords"],
            resource_arns=[self.stream.stream_arn],
        )
        grant_encrypt_decrypt(self.data_key, role)
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["s3:GetObject", "s3:GetObjectVersion"],
            resource_arns=[self.code.bucket.arn_for_objects(self.code.s3_object_key)],
        )
        logs = self.log_group.log_group_arn
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:DescribeLogStreams", "logs:PutLogEvents"],
            resource_arns=[logs],
        )
        groups = arn("logs", "log-group:*")
        iam.Grant.add_to_principal(grantee=role, actions=["logs:DescribeLogGroups"], resource_arns=[groups])
        acknowledge_wildcards(
            role,
            "DescribeLogGroups lists names of groups, no events, and knows no narrower resource; Managed "
            "Flink asks for it (its Developer Guide, 'Set up application logging').",
            resources=[groups],
        )
        return role

    def _application(self, parallelism: int) -> flink.CfnApplication:
        props = flink.CfnApplication
        application = props(
            self,
            "Application",
            application_name=self.name,
            application_description=f"Window features of {self.contract.name}",
            runtime_environment=RUNTIME,
            service_execution_role=self.role.role_arn,
            application_configuration=props.ApplicationConfigurationProperty(
                application_code_configuration=props.ApplicationCodeConfigurationProperty(
                    code_content=props.CodeContentProperty(
                        s3_content_location=props.S3ContentLocationProperty(
                            bucket_arn=self.code.bucket.bucket_arn, file_key=self.code.s3_object_key
                        )
                    ),
                    code_content_type="ZIPFILE",
                ),
                environment_properties=props.EnvironmentPropertiesProperty(
                    property_groups=[
                        props.PropertyGroupProperty(
                            property_group_id="kinesis.analytics.flink.run.options",
                            property_map={"python": "main.py", "jarfile": CONNECTOR},
                        ),
                        props.PropertyGroupProperty(
                            property_group_id="job",
                            property_map={
                                "source_arn": self.source_stream.stream_arn,
                                "sink_arn": self.stream.stream_arn,
                                "region": cdk.Aws.REGION,
                            },
                        ),
                    ]
                ),
                flink_application_configuration=props.FlinkApplicationConfigurationProperty(
                    checkpoint_configuration=props.CheckpointConfigurationProperty(
                        configuration_type="CUSTOM",
                        checkpointing_enabled=True,
                        checkpoint_interval=60_000,
                        min_pause_between_checkpoints=5_000,
                    ),
                    monitoring_configuration=props.MonitoringConfigurationProperty(
                        configuration_type="CUSTOM", log_level="INFO", metrics_level="TASK"
                    ),
                    parallelism_configuration=props.ParallelismConfigurationProperty(
                        configuration_type="CUSTOM",
                        auto_scaling_enabled=True,
                        parallelism=parallelism,
                        parallelism_per_kpu=1,
                    ),
                ),
                application_snapshot_configuration=props.ApplicationSnapshotConfigurationProperty(
                    snapshots_enabled=True
                ),
            ),
        )
        application.node.add_dependency(self.role)
        logging = flink.CfnApplicationCloudWatchLoggingOption
        stream = cdk.aws_logs.CfnLogStream(
            self, "LogStream", log_group_name=self.log_group.log_group_name, log_stream_name="job"
        )
        logging(
            self,
            "Logging",
            application_name=application.ref,
            cloud_watch_logging_option=logging.CloudWatchLoggingOptionProperty(
                log_stream_arn=arn("logs", f"log-group:{self.log_group.log_group_name}:log-stream:job")
            ),
        ).add_resource_dependency(stream)
        return application

    def _started(self, log_key: kms.IKey, log_retention_days: int) -> cdk.CustomResource:
        function = zip_function(
            self,
            "Starter",
            package="flink_application",
            description=f"Starts {self.name}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            timeout=cdk.Duration.minutes(10),
        )
        iam.Grant.add_to_principal(
            grantee=function,
            actions=[
                "kinesisanalytics:DescribeApplication",
                "kinesisanalytics:StartApplication",
                "kinesisanalytics:StopApplication",
            ],
            resource_arns=[self.application_arn],
        )
        resource = cdk.CustomResource(
            self,
            "Running",
            service_token=function.function_arn,
            resource_type="Custom::FlinkApplicationRunning",
            properties={"ApplicationName": self.application.ref},
            service_timeout=cdk.Duration.minutes(11),
        )
        if function.role is not None:
            resource.node.add_dependency(function.role)
        return resource

    def _writer(self, key: str, log_key: kms.IKey, log_retention_days: int) -> lambda_.Function:
        function = zip_function(
            self,
            "Writer",
            package="window_writer",
            description=f"Puts window features of {self.contract.name} into the online store",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "FEATURE_GROUP_NAME": self.feature_group.name,
                "KEY_FEATURE": key,
                "EVENT_TIME_FEATURE": self.contract.event_time,
            },
        )
        iam.Grant.add_to_principal(
            grantee=function, actions=["sagemaker:PutRecord"], resource_arns=[self.feature_group.arn]
        )
        # Lambda Developer Guide, "Process Amazon Kinesis Data Streams records with Lambda": permissions.
        iam.Grant.add_to_principal(
            grantee=function,
            actions=[
                "kinesis:DescribeStream",
                "kinesis:DescribeStreamSummary",
                "kinesis:GetRecords",
                "kinesis:GetShardIterator",
                "kinesis:ListShards",
            ],
            resource_arns=[self.stream.stream_arn],
        )
        # kinesis:ListStreams of the documented policy is the console's.
        grant_encrypt_decrypt(self.data_key, function)
        self.dead_letters.grant_send(function)
        props = lambda_.CfnEventSourceMapping
        mapping = props(
            self,
            "Mapping",
            function_name=function.function_name,
            event_source_arn=self.stream.stream_arn,
            starting_position="TRIM_HORIZON",
            batch_size=_BATCH,
            bisect_batch_on_function_error=True,
            function_response_types=["ReportBatchItemFailures"],
            maximum_retry_attempts=_ATTEMPTS,
            destination_config=props.DestinationConfigProperty(
                on_failure=props.OnFailureProperty(destination=self.dead_letters.queue.queue_arn)
            ),
        )
        if function.role is not None:
            mapping.node.add_dependency(function.role)
        return function

    @property
    def application_arn(self) -> str:
        """ARN of the Flink application."""
        return arn("kinesisanalytics", f"application/{self.name}")

    def grant_get_windows(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the newest windows of a key."""
        return self.feature_group.grant_get_records(grantee)

    def metric(
        self, metric_name: str, *, statistic: str = "Maximum", period: cdk.Duration | None = None
    ) -> cloudwatch.Metric:
        """Return a metric of the application, e.g. ``downtime`` (ms) or ``fullRestarts``."""
        return cloudwatch.Metric(
            namespace="AWS/KinesisAnalytics",
            metric_name=metric_name,
            dimensions_map={"Application": self.name},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    def _alarms(self, topic: sns.ITopic | None) -> tuple[cloudwatch.CfnAlarm, ...]:
        return (
            alarm(
                self,
                "Down",
                # An application that is stopped on purpose reports nothing: no data is no trouble.
                what="The window job is down: windows in the online store grow old",
                runbook="windows-down",
                namespace="AWS/KinesisAnalytics",
                metric="downtime",
                dimensions={"Application": self.name},
                statistic="Maximum",
                topic=topic,
            ),
            alarm(
                self,
                "KeptRows",
                what="Rows of the window job could not be put; the next row of the same key heals it",
                runbook="dead-letters",
                namespace="AWS/SQS",
                metric="ApproximateNumberOfMessagesVisible",
                dimensions={"QueueName": self.dead_letters.queue.queue_name},
                statistic="Maximum",
                topic=topic,
            ),
            alarm(
                self,
                "WriterFails",
                what="The writer of windows fails: rows wait in their stream",
                runbook="function-fails",
                namespace="AWS/Lambda",
                metric="Errors",
                dimensions={"FunctionName": self.writer.function_name},
                statistic="Maximum",
                topic=topic,
            ),
        )
