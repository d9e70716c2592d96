"""The data lake: what is there by default, each option, each error, exact grants."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import Template, actions, only, resources, statements, synthesise_stacks
from ml_lifecycle.data_lake import DataLake, Expiration, parquet_table

BUCKET = "AWS::S3::Bucket"
ADMIN = "arn:aws:iam::111122223333:role/LakeAdmin"


def _role(stack: cdk.Stack, name: str = "Reader") -> iam.Role:
    return iam.Role(stack, name, assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))


def _grants(stack: cdk.Stack) -> None:
    lake = DataLake(stack, "Lake", database_prefix="t")
    lake.raw.grant_read(_role(stack, "Reader"), "claims/data/")
    lake.curated.grant_write(_role(stack, "Writer"), "claims/data/")
    lake.curated.grant_write(_role(stack, "Eraser"), "claims/data/", delete=True)
    lake.raw.grant_describe_table(_role(stack, "Describer"), "claims")
    lake.raw.grant_maintain_partitions(_role(stack, "Crawler"), "claims")


def _options(stack: cdk.Stack) -> None:
    DataLake(
        stack,
        "Lake",
        database_prefix="t",
        raw_to_ia_days=45,
        raw_to_glacier_days=90,
        noncurrent_version_days=7,
        access_log_days=14,
        expirations=[
            Expiration(zone="artifacts", prefix="claims/capture/", days=9),
            Expiration(zone="raw", prefix="claims/delivery-errors/", days=5),
        ],
        administrators=[ADMIN],
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("lake"),
        {
            "Default": lambda stack: DataLake(stack, "Lake", database_prefix="t"),
            "Options": _options,
            "Grants": _grants,
            "Destroyed": lambda stack: DataLake(
                stack,
                "Lake",
                database_prefix="t",
                removal_policy=cdk.RemovalPolicy.DESTROY,
                destroy_data=True,
            ),
        },
    )


def zones(template: Template) -> dict[str, Template]:
    """Zone buckets by name; the bucket of access logs has no logging of its own."""
    found = {}
    for bucket in resources(template, BUCKET).values():
        logging = bucket["Properties"].get("LoggingConfiguration")
        if logging:
            found[logging["LogFilePrefix"].rstrip("/")] = bucket["Properties"]
    return found


def rules(bucket: Template) -> dict[str, Template]:
    return {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}


def test_should_make_four_zones_and_a_bucket_of_access_logs(templates: dict[str, Template]) -> None:
    assert set(zones(templates["Default"])) == {"raw", "curated", "features", "artifacts"}
    logs = [
        b
        for b in resources(templates["Default"], BUCKET).values()
        if "LoggingConfiguration" not in b["Properties"]
    ]
    assert [b["Properties"]["BucketEncryption"] for b in logs] == [
        {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    ]


def test_should_encrypt_every_zone_with_the_rotating_key_and_a_bucket_key(
    templates: dict[str, Template],
) -> None:
    template = templates["Default"]
    assert only(template, "AWS::KMS::Key")["EnableKeyRotation"] is True
    key = next(iter(resources(template, "AWS::KMS::Key")))
    for name, zone in zones(template).items():
        (rule,) = zone["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule == {
            "BucketKeyEnabled": True,
            "ServerSideEncryptionByDefault": {
                "KMSMasterKeyID": {"Fn::GetAtt": [key, "Arn"]},
                "SSEAlgorithm": "aws:kms",
            },
        }, name


def test_should_version_every_bucket_and_close_it_to_the_public(templates: dict[str, Template]) -> None:
    for name, bucket in resources(templates["Default"], BUCKET).items():
        properties = bucket["Properties"]
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}, name
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert properties["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}], name


def test_should_send_events_of_every_zone_to_eventbridge_without_a_custom_resource(
    templates: dict[str, Template],
) -> None:
    for name, zone in zones(templates["Default"]).items():
        assert zone["NotificationConfiguration"] == {
            "EventBridgeConfiguration": {"EventBridgeEnabled": True}
        }, name
    kinds = {r["Type"] for r in templates["Default"]["Resources"].values()}
    assert not [kind for kind in kinds if kind.startswith("Custom::") or kind == "AWS::Lambda::Function"]


def test_should_refuse_plain_http_and_old_tls_on_every_bucket(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    buckets = set(resources(template, BUCKET))
    denied = {"aws:SecureTransport": set(), "s3:TlsVersion": set()}  # type: dict[str, set[str]]
    for policy in resources(template, "AWS::S3::BucketPolicy").values():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny":
                for condition in statement["Condition"].values():
                    for key in condition:
                        assert statement["Principal"] == {"AWS": "*"}
                        denied[key].add(policy["Properties"]["Bucket"]["Ref"])
    assert denied == {"aws:SecureTransport": buckets, "s3:TlsVersion": buckets}


def test_should_let_only_log_delivery_of_this_account_write_access_logs(
    templates: dict[str, Template],
) -> None:
    allowed = [
        statement
        for policy in resources(templates["Default"], "AWS::S3::BucketPolicy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    ]
    (statement,) = allowed
    assert statement["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    assert statement["Action"] == "s3:PutObject"
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    prefixes = sorted(resource["Fn::Join"][1][1] for resource in statement["Resource"])
    assert prefixes == ["/artifacts/*", "/curated/*", "/features/*", "/raw/*"]


def test_should_age_raw_data_and_tier_the_rest_by_default(templates: dict[str, Template]) -> None:
    found = zones(templates["Default"])
    assert rules(found["raw"])["Ageing"]["Transitions"] == [
        {"StorageClass": "STANDARD_IA", "TransitionInDays": 30},
        {"StorageClass": "GLACIER_IR", "TransitionInDays": 180},
    ]
    for name in ("curated", "features", "artifacts"):
        assert rules(found[name])["Tiering"]["Transitions"] == [
            {"StorageClass": "INTELLIGENT_TIERING", "TransitionInDays": 0}
        ]
    for name, zone in found.items():
        housekeeping = rules(zone)["Housekeeping"]
        assert housekeeping["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}, name
        assert housekeeping["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}, name
        assert "ExpirationInDays" not in housekeeping, "current objects of a zone never expire by themselves"
    assert [c["Id"] for c in found["raw"]["AnalyticsConfigurations"]] == ["StorageClass"]


def test_should_keep_access_logs_for_a_year_by_default(templates: dict[str, Template]) -> None:
    (logs,) = [
        b["Properties"]
        for b in resources(templates["Default"], BUCKET).values()
        if "LoggingConfiguration" not in b["Properties"]
    ]
    assert rules(logs)["Housekeeping"]["ExpirationInDays"] == 365


def test_should_take_every_lifecycle_option(templates: dict[str, Template]) -> None:
    found = zones(templates["Options"])
    assert [t["TransitionInDays"] for t in rules(found["raw"])["Ageing"]["Transitions"]] == [45, 90]
    assert rules(found["raw"])["Housekeeping"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}
    assert rules(found["raw"])["Expire0"] == {
        "Id": "Expire0",
        "Prefix": "claims/delivery-errors/",
        "ExpirationInDays": 5,
        "Status": "Enabled",
    }
    assert rules(found["artifacts"])["Expire0"]["Prefix"] == "claims/capture/"
    assert rules(found["artifacts"])["Expire0"]["ExpirationInDays"] == 9
    assert "Expire0" not in rules(found["curated"])


def test_should_name_a_database_per_zone_that_holds_tables(templates: dict[str, Template]) -> None:
    databases = resources(templates["Default"], "AWS::Glue::Database").values()
    assert sorted(d["Properties"]["DatabaseInput"]["Name"] for d in databases) == [
        "t_curated",
        "t_features",
        "t_raw",
    ]


def test_should_register_zones_in_hybrid_mode_and_leave_the_accounts_settings_alone(
    templates: dict[str, Template],
) -> None:
    template = templates["Default"]
    registered = resources(template, "AWS::LakeFormation::Resource").values()
    assert len(registered) == 3
    for registration in registered:
        assert registration["Properties"]["HybridAccessEnabled"] is True
        assert registration["Properties"]["UseServiceLinkedRole"] is False
        assert any("RegistrationRole" in name for name in registration["DependsOn"])
    (role,) = [
        r["Properties"] for n, r in resources(template, "AWS::IAM::Role").items() if "RegistrationRole" in n
    ]
    trusted = role["AssumeRolePolicyDocument"]["Statement"]
    assert [(sorted(s["Principal"]["Service"]), "Condition" in s) for s in trusted] == [
        (["glue.amazonaws.com", "lakeformation.amazonaws.com"], False)
    ]
    assert not resources(template, "AWS::LakeFormation::DataLakeSettings")


def test_should_append_administrators_and_the_deploying_role_before_anything_is_registered(
    templates: dict[str, Template],
) -> None:
    template = templates["Options"]
    settings = only(template, "AWS::LakeFormation::DataLakeSettings")
    assert settings["MutationType"] == "APPEND"
    listed = [admin["DataLakePrincipalIdentifier"] for admin in settings["Admins"]]
    assert listed[0] == ADMIN
    assert "cfn-exec-role" in str(listed[1])
    name = next(iter(resources(template, "AWS::LakeFormation::DataLakeSettings")))
    for kind in ("AWS::LakeFormation::Resource", "AWS::Glue::Database"):
        for resource in resources(template, kind).values():
            assert name in resource["DependsOn"]


def test_should_retain_every_bucket_and_the_key(templates: dict[str, Template]) -> None:
    for kind in (BUCKET, "AWS::KMS::Key"):
        for name, resource in resources(templates["Default"], kind).items():
            assert resource["DeletionPolicy"] == "Retain", name
            assert resource["UpdateReplacePolicy"] == "Retain", name


def test_should_delete_data_with_both_consents_only(templates: dict[str, Template]) -> None:
    for resource in resources(templates["Destroyed"], BUCKET).values():
        assert resource["DeletionPolicy"] == "Delete"
    with pytest.raises(ValueError, match="removal_policy DESTROY needs destroy_data=True, got False"):
        DataLake(cdk.Stack(), "Lake", database_prefix="t", removal_policy=cdk.RemovalPolicy.DESTROY)


def test_should_report_every_wrong_retention_at_once() -> None:
    with pytest.raises(
        ValueError, match=r"raw_to_ia_days must be at least 30 .*, got 10; raw_to_glacier_days .*got 20"
    ):
        DataLake(cdk.Stack(), "Lake", database_prefix="t", raw_to_ia_days=10, raw_to_glacier_days=20)


@pytest.mark.parametrize(
    ("prefix", "days", "message"),
    [
        ("claims/", 0, "days must be at least 1, got 0"),
        ("claims", 3, "prefix must end with '/' and not start with it, got 'claims'"),
        ("/claims/", 3, "prefix must end with '/' and not start with it, got '/claims/'"),
    ],
)
def test_should_refuse_a_wrong_expiration(prefix: str, days: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Expiration(zone="raw", prefix=prefix, days=days)


def test_should_grant_reading_one_prefix_and_decrypting(templates: dict[str, Template]) -> None:
    found = statements(templates["Grants"], "Reader")
    assert actions(found) == {"s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation", "kms:Decrypt"}
    (objects,) = [s for s in found if s["Action"] == "s3:GetObject"]
    assert objects["Resource"]["Fn::Join"][1][1] == "/claims/data/*"
    (listing,) = [s for s in found if s["Action"] == "s3:ListBucket"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["claims/data/", "claims/data/*"]}}


def test_should_grant_writing_one_prefix_and_deleting_only_when_asked(templates: dict[str, Template]) -> None:
    writing = {
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    }
    assert actions(statements(templates["Grants"], "Writer")) == writing
    assert actions(statements(templates["Grants"], "Eraser")) == writing | {"s3:DeleteObject"}


def test_should_grant_a_table_in_iam_and_in_lake_formation(templates: dict[str, Template]) -> None:
    template = templates["Grants"]
    assert actions(statements(template, "Describer")) == {
        "glue:GetTable",
        "glue:GetTableVersion",
        "glue:GetTableVersions",
    }
    permissions = {
        p["Properties"]["Principal"]["DataLakePrincipalIdentifier"]["Fn::GetAtt"][0][:7]: p["Properties"]
        for p in resources(template, "AWS::LakeFormation::PrincipalPermissions").values()
    }
    assert permissions["Describ"]["Permissions"] == ["DESCRIBE"]
    assert permissions["Crawler"]["Permissions"] == ["DESCRIBE", "ALTER", "INSERT"]
    assert permissions["Crawler"]["Resource"]["Table"]["DatabaseName"] == "t_raw"
    assert permissions["Crawler"]["PermissionsWithGrantOption"] == []


def test_should_refuse_a_prefix_that_no_key_has_and_a_table_where_no_database_is() -> None:
    stack = cdk.Stack()
    lake = DataLake(stack, "Lake", database_prefix="t")
    with pytest.raises(ValueError, match="prefix must not start with '/', got '/x/'"):
        lake.raw.grant_read(_role(stack), "/x/")
    with pytest.raises(ValueError, match="zone must have a database to hold table 'x', got zone Artifacts"):
        parquet_table(
            stack,
            "T",
            zone=lake.artifacts,
            name="x",
            columns=[("a", "string")],
            prefix="x/",
            partition_key=("d", "date"),
        )
    with pytest.raises(ValueError, match="zone Artifacts must have a database_name to hold tables, got None"):
        lake.artifacts.grant_describe_table(_role(stack, "Other"), "x")


def test_should_archive_old_versions_and_access_logs_only_when_told(
    tmp_path: Path, templates: dict[str, Template]
) -> None:
    told = synthesise_stacks(
        tmp_path,
        {
            "Archived": lambda stack: DataLake(
                stack,
                "Lake",
                database_prefix="t",
                noncurrent_version_days=400,
                noncurrent_to_deep_archive_days=30,
                access_logs_to_deep_archive_days=90,
            )
        },
    )["Archived"]
    for zone in zones(told).values():
        assert rules(zone)["Housekeeping"]["NoncurrentVersionTransitions"] == [
            {"StorageClass": "DEEP_ARCHIVE", "TransitionInDays": 30}
        ]
    (logs,) = (
        b["Properties"]
        for b in resources(told, BUCKET).values()
        if "LoggingConfiguration" not in b["Properties"]
    )
    assert rules(logs)["Housekeeping"]["Transitions"] == [
        {"StorageClass": "DEEP_ARCHIVE", "TransitionInDays": 90}
    ]
    for zone in zones(templates["Default"]).values():
        assert "NoncurrentVersionTransitions" not in rules(zone)["Housekeeping"]
    with pytest.raises(
        ValueError, match="noncurrent_to_deep_archive_days must be between 1 and 20, 180 days"
    ):
        DataLake(
            cdk.Stack(),
            "Lake",
            database_prefix="t",
            noncurrent_version_days=200,
            noncurrent_to_deep_archive_days=21,
        )
