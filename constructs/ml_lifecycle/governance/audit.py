"""The record of who did what: a CloudTrail trail, its bucket, and the table that Athena reads it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import aws_cdk as cdk
from aws_cdk import aws_cloudtrail as cloudtrail
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from constructs import Construct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, arn, service_principal

_IDENTITY: Final = (
    "struct<type:string,principalid:string,arn:string,accountid:string,invokedby:string,accesskeyid:string,"
    "username:string,sessioncontext:struct<attributes:struct<mfaauthenticated:string,creationdate:string>,"
    "sessionissuer:struct<type:string,principalid:string,arn:string,accountid:string,username:string>>>"
)
#: Columns of a CloudTrail table (Amazon Athena User Guide, "Query AWS CloudTrail logs").
COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("eventversion", "string"),
    ("useridentity", _IDENTITY),
    ("eventtime", "string"),
    ("eventsource", "string"),
    ("eventname", "string"),
    ("awsregion", "string"),
    ("sourceipaddress", "string"),
    ("useragent", "string"),
    ("errorcode", "string"),
    ("errormessage", "string"),
    ("requestparameters", "string"),
    ("responseelements", "string"),
    ("additionaleventdata", "string"),
    ("requestid", "string"),
    ("eventid", "string"),
    ("readonly", "string"),
    ("resources", "array<struct<arn:string,accountid:string,type:string>>"),
    ("eventtype", "string"),
    ("recipientaccountid", "string"),
    ("eventcategory", "string"),
)


class AuditTrail(Construct):
    """Define the trail of an account and Region: management events, and S3 data events of ``data_zones``.

    Log files go to a bucket and a key of their own, with digests that show a changed or removed file
    (``EnableLogFileValidation``), and are kept ``retention_days``. ``table`` lets Athena read them, a
    partition a day (projected, nobody registers them). Only roles given to ``grant_read`` read the bucket.
    Not CloudTrail Lake, which AWS charges by ingested volume.

    CloudTrail delivers within about five minutes of a call (CloudTrail User Guide, "How CloudTrail works").
    A reader whom Lake Formation lets in shows in data events as the role that registered the location; the
    event ``GetDataAccess`` of Lake Formation says for whom (``lakeFormationPrincipal``).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        access_logs: s3.IBucket,
        database_name: str,
        data_zones: Sequence[Zone] = (),
        retention_days: int = 365,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        if retention_days < 1:
            raise ValueError(f"audit trail: retention_days must be at least 1, got {retention_days}")
        self.name = name
        self.trail_arn = arn("cloudtrail", f"trail/{name}")
        self.key = kms.Key(
            self,
            "Key",
            description="Log files of the audit trail",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        self._let_cloudtrail_encrypt()
        self.zone = Zone(
            self,
            "Audit",
            key=self.key,
            access_logs=access_logs,
            database_name=database_name,
            lifecycle_rules=[s3.LifecycleRule(id="Expire", expiration=cdk.Duration.days(retention_days))],
            noncurrent_version_days=30,
            removal_policy=removal_policy,
        )
        self.prefix = f"AWSLogs/{ACCOUNT}/CloudTrail/{REGION}/"
        self._let_cloudtrail_write()
        self.trail = self._trail(data_zones)
        self.table = self._table()

    def _let_cloudtrail_encrypt(self) -> None:
        # CloudTrail User Guide, "Configure AWS KMS key policies for CloudTrail".
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudTrailEncrypts",
                principals=[service_principal("cloudtrail")],
                actions=["kms:GenerateDataKey*"],
                resources=["*"],  # in a key policy: this key
                conditions={
                    "StringEquals": {"aws:SourceArn": self.trail_arn},
                    "StringLike": {
                        "kms:EncryptionContext:aws:cloudtrail:arn": (
                            f"arn:{PARTITION}:cloudtrail:*:{ACCOUNT}:trail/*"
                        )
                    },
                },
            )
        )
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudTrailDescribes",
                principals=[service_principal("cloudtrail")],
                actions=["kms:DescribeKey"],
                resources=["*"],  # in a key policy: this key
                conditions={"StringEquals": {"aws:SourceArn": self.trail_arn}},
            )
        )

    def _let_cloudtrail_write(self) -> None:
        # CloudTrail User Guide, "Amazon S3 bucket policy for CloudTrail".
        bucket = self.zone.bucket
        source = {"StringEquals": {"aws:SourceArn": self.trail_arn}}
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudTrailAsks",
                principals=[service_principal("cloudtrail")],
                actions=["s3:GetBucketAcl"],
                resources=[bucket.bucket_arn],
                conditions=source,
            )
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudTrailWrites",
                principals=[service_principal("cloudtrail")],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects(f"AWSLogs/{ACCOUNT}/*")],
                conditions={
                    "StringEquals": {
                        "aws:SourceArn": self.trail_arn,
                        "s3:x-amz-acl": "bucket-owner-full-control",
                    }
                },
            )
        )

    def _trail(self, zones: Sequence[Zone]) -> cloudtrail.CfnTrail:
        props = cloudtrail.CfnTrail
        field = props.AdvancedFieldSelectorProperty
        selectors = [
            props.AdvancedEventSelectorProperty(
                name="Management events",
                field_selectors=[field(field="eventCategory", equal_to=["Management"])],
            )
        ]
        if zones:
            selectors.append(
                props.AdvancedEventSelectorProperty(
                    name="Objects of the lake",
                    field_selectors=[
                        field(field="eventCategory", equal_to=["Data"]),
                        field(field="resources.type", equal_to=["AWS::S3::Object"]),
                        field(
                            field="resources.ARN",
                            starts_with=[zone.bucket.arn_for_objects("") for zone in zones],
                        ),
                    ],
                )
            )
        trail = cloudtrail.CfnTrail(
            self,
            "Trail",
            trail_name=self.name,
            s3_bucket_name=self.zone.bucket.bucket_name,
            kms_key_id=self.key.key_arn,
            is_logging=True,
            enable_log_file_validation=True,
            include_global_service_events=True,
            is_multi_region_trail=False,
            advanced_event_selectors=selectors,
        )
        acknowledge(
            trail,
            "CloudTrailCloudWatchLogsEnabled",
            "Athena reads the trail where it lies, with row-level grants; a copy in CloudWatch Logs would be "
            "the same events once more, for more money and under weaker rules.",
            packs=COMPLIANCE,
        )
        # CloudTrail tries the bucket when the trail is made.
        if self.zone.bucket.policy is not None:
            trail.node.add_dependency(self.zone.bucket.policy)
        return trail

    def _table(self) -> glue.CfnTable:
        props = glue.CfnTable
        location = self.zone.uri(self.prefix)
        table = props(
            self,
            "Table",
            catalog_id=ACCOUNT,
            database_name=str(self.zone.database_name),
            table_input=props.TableInputProperty(
                name="cloudtrail",
                description="Events of the audit trail",
                table_type="EXTERNAL_TABLE",
                parameters={
                    "classification": "cloudtrail",
                    "EXTERNAL": "TRUE",
                    "projection.enabled": "true",
                    "projection.day.type": "date",
                    "projection.day.format": "yyyy/MM/dd",
                    "projection.day.range": "2026/01/01,NOW",
                    "projection.day.interval": "1",
                    "projection.day.interval.unit": "DAYS",
                    "storage.location.template": f"{location}${{day}}",
                },
                partition_keys=[props.ColumnProperty(name="day", type="string")],
                storage_descriptor=props.StorageDescriptorProperty(
                    columns=[props.ColumnProperty(name=name, type=kind) for name, kind in COLUMNS],
                    location=location,
                    input_format="com.amazon.emr.cloudtrail.CloudTrailInputFormat",
                    output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                    serde_info=props.SerdeInfoProperty(
                        serialization_library="org.apache.hive.hcatalog.data.JsonSerDe"
                    ),
                ),
            ),
        )
        if self.zone.database is not None:
            table.add_resource_dependency(self.zone.database)
        return table

    def grant_read(self, role: iam.Role) -> iam.Grant:
        """Grant reading the log files, and the table over them."""
        self.zone.grant_read(role, "AWSLogs/")
        self.zone.grant_describe_table(role, self.table.ref, select=True)
        base = f"arn:{PARTITION}:glue:{REGION}:{ACCOUNT}"
        return iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:GetDatabase", "glue:GetPartitions"],
            resource_arns=[
                f"{base}:catalog",
                f"{base}:database/{self.zone.database_name}",
                f"{base}:table/{self.zone.database_name}/{self.table.ref}",
            ],
        )
