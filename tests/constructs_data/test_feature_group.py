"""The feature group: schema from the contract, a hash in the name, both stores, exact grants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.features import FeatureGroup, GroupVersion, Throughput, schema_hash

GROUP = "AWS::SageMaker::FeatureGroup"


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def group(stack: cdk.Stack, contract: CompiledContract, **options: object) -> FeatureGroup:
    around = Surroundings(stack, contract)
    return FeatureGroup(
        stack,
        "Features",
        contract=contract,
        zone=around.lake.features,
        online_key=around.key,
        **{"name_prefix": "dev-parcel-delay", **options},  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = group(stack, contract)
        built.grant_put_records(
            iam.Role(stack, "Writer", assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))
        )
        built.grant_get_records(
            iam.Role(stack, "Reader", assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))
        )
        built.grant_delete_records(
            iam.Role(stack, "Eraser", assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))
        )
        built.grant_read_history(
            iam.Role(stack, "Historian", assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))
        )

    return synthesise_stacks(
        tmp_path_factory.mktemp("features"),
        {
            "Default": lambda stack: group(stack, contract),
            "Iceberg": lambda stack: group(
                stack, contract, table_format="Iceberg", online=False, offline_prefix="elsewhere/"
            ),
            "Fast": lambda stack: group(
                stack, contract, ttl_days=30, throughput=Throughput(read_units=10, write_units=5)
            ),
            "Memory": lambda stack: group(stack, contract, storage="InMemory"),
            "Grants": grants,
        },
    )


def test_should_take_the_schema_from_the_contract(
    templates: dict[str, Template], contract: CompiledContract
) -> None:
    found = only(templates["Default"], GROUP)
    assert [
        (d["FeatureName"], d["FeatureType"]) for d in found["FeatureDefinitions"]
    ] == contract.feature_definitions()
    assert found["RecordIdentifierFeatureName"] == "parcel"
    assert found["EventTimeFeatureName"] == "sent_at"


def test_should_keep_both_stores_encrypted_with_customer_managed_keys(templates: dict[str, Template]) -> None:
    found = only(templates["Default"], GROUP)
    assert found["OnlineStoreConfig"]["EnableOnlineStore"] is True
    assert found["OnlineStoreConfig"]["SecurityConfig"]["KmsKeyId"]["Fn::GetAtt"][0].startswith("DataKey")
    offline = found["OfflineStoreConfig"]
    assert offline["S3StorageConfig"]["S3Uri"]["Fn::Join"][1][-1] == "/parcel-delay/offline-store"
    assert offline["S3StorageConfig"]["KmsKeyId"]["Fn::GetAtt"][0].startswith("LakeKey")
    assert offline["TableFormat"] == "Glue"


def test_should_take_iceberg_an_own_prefix_and_no_online_store(templates: dict[str, Template]) -> None:
    found = only(templates["Iceberg"], GROUP)
    assert found["OfflineStoreConfig"]["TableFormat"] == "Iceberg"
    assert found["OfflineStoreConfig"]["S3StorageConfig"]["S3Uri"]["Fn::Join"][1][-1] == "/elsewhere"
    assert "OnlineStoreConfig" not in found


def test_should_be_on_demand_of_the_standard_tier_and_keep_records_unless_told(
    templates: dict[str, Template],
) -> None:
    plain = only(templates["Default"], GROUP)
    assert plain["ThroughputConfig"] == {"ThroughputMode": "OnDemand"}
    assert plain["OnlineStoreConfig"]["StorageType"] == "Standard"
    assert "TtlDuration" not in plain["OnlineStoreConfig"]
    fast = only(templates["Fast"], GROUP)
    assert fast["ThroughputConfig"] == {
        "ThroughputMode": "Provisioned",
        "ProvisionedReadCapacityUnits": 10,
        "ProvisionedWriteCapacityUnits": 5,
    }
    assert fast["OnlineStoreConfig"]["TtlDuration"] == {"Unit": "Days", "Value": 30}
    assert only(templates["Memory"], GROUP)["OnlineStoreConfig"]["StorageType"] == "InMemory"
    assert "ThroughputConfig" not in only(templates["Iceberg"], GROUP)


def test_should_say_nothing_that_changes_where_only_creation_takes_it(
    contract: CompiledContract, templates: dict[str, Template]
) -> None:
    found = only(templates["Default"], GROUP)
    assert "Tags" not in found
    assert found["Description"] == "Features of parcel_delay"


def test_should_take_the_schema_and_the_name_from_a_version(contract: CompiledContract) -> None:
    version = replace(GroupVersion.of(contract), suffix="v2-deadbeef", definitions=(("parcel", "String"),))
    built = group(cdk.Stack(), contract, version=version)
    assert built.name == "dev-parcel-delay-v2-deadbeef"


def test_should_retain_the_group(templates: dict[str, Template]) -> None:
    (found,) = resources(templates["Default"], GROUP).values()
    assert (found["DeletionPolicy"], found["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_should_name_the_group_anew_when_and_only_when_its_schema_changes(contract: CompiledContract) -> None:
    definitions = contract.feature_definitions()
    name = schema_hash(contract.identifier, contract.event_time, definitions)
    assert schema_hash(contract.identifier, contract.event_time, list(definitions)) == name
    assert schema_hash(contract.identifier, contract.event_time, definitions[:-1]) != name
    assert schema_hash(contract.identifier, contract.event_time, definitions[::-1]) != name
    assert schema_hash("other", contract.event_time, definitions) != name
    renamed = replace(contract, late_after_days=3)
    assert group(cdk.Stack(), renamed).name == f"dev-parcel-delay-{name}"


def test_should_let_the_store_write_below_its_prefix_only(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "FeaturesRole")
    assert actions(found) == {
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "s3:ListBucket",
        "s3:GetBucketLocation",
        "s3:GetBucketAcl",
        "s3:PutObjectAcl",
        "glue:GetTable",
        "glue:UpdateTable",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    }
    for action in ("s3:PutObject", "s3:PutObjectAcl"):
        (objects,) = [s for s in found if action in _listed(s["Action"])]
        assert objects["Resource"]["Fn::Join"][1][1] == "/parcel-delay/offline-store/*"
    (tables,) = [s for s in found if "glue:UpdateTable" in s["Action"]]
    name = only(templates["Default"], GROUP)["FeatureGroupName"].replace("-", "_")
    assert [resource["Fn::Join"][1][-1].split(":", 2)[-1] for resource in tables["Resource"]] == [
        "catalog",
        "database/sagemaker_featurestore",
        f"table/sagemaker_featurestore/{name}*",
    ]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_should_be_assumed_by_a_service_that_may_not_tell_for_whom(templates: dict[str, Template]) -> None:
    roles = resources(templates["Default"], "AWS::IAM::Role")
    (role,) = [r["Properties"] for name, r in roles.items() if name.startswith("FeaturesRole")]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert (trust["Principal"], "Condition" in trust) == ({"Service": "sagemaker.amazonaws.com"}, False)


def test_should_grant_writing_and_reading_records_of_this_group_only(templates: dict[str, Template]) -> None:
    template = templates["Grants"]
    writing, reading = statements(template, "Writer"), statements(template, "Reader")
    assert actions(writing) == {
        "sagemaker:PutRecord",
        "sagemaker:DescribeFeatureGroup",
        "sagemaker:BatchGetRecord",
        "sagemaker:DeleteRecord",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    }
    assert actions(reading) == {"sagemaker:GetRecord", "sagemaker:BatchGetRecord", "kms:Decrypt"}
    erasing, history = statements(template, "Eraser"), statements(template, "Historian")
    assert actions(erasing) == {
        "sagemaker:DeleteRecord",
        "sagemaker:DescribeFeatureGroup",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    }
    assert actions(history) == {
        "sagemaker:DescribeFeatureGroup",
        "glue:GetTable",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:GetBucketLocation",
        "kms:Decrypt",
    }
    name = only(template, GROUP)["FeatureGroupName"]
    for statement in (*writing, *reading, *erasing):
        assert statement["Resource"] != "*"
        if any(action.startswith("sagemaker:") for action in statement["Action"]):
            assert statement["Resource"]["Fn::Join"][1][-1].endswith(f":feature-group/{name}")


def test_should_refuse_a_name_too_long_and_reading_records_that_no_store_serves(
    contract: CompiledContract,
) -> None:
    with pytest.raises(ValueError, match="feature group name must have at most 64 characters, got 69"):
        group(cdk.Stack(), contract, name_prefix="x" * 60)
    with pytest.raises(ValueError, match=r"ttl_days must be 1 or more.*storage must be Standard"):
        group(
            cdk.Stack(),
            contract,
            ttl_days=0,
            storage="InMemory",
            throughput=Throughput(read_units=1, write_units=1),
        )
    with pytest.raises(ValueError, match="are of the online store, got online=False"):
        group(cdk.Stack(), contract, online=False, ttl_days=3)
    with pytest.raises(ValueError, match="must have read_units and write_units, or none"):
        Throughput(read_units=1)
    with pytest.raises(ValueError, match=r"units must be between 1 and 10000000, got \[0\]"):
        Throughput(read_units=0, write_units=1)
    stack = cdk.Stack()
    offline = group(stack, contract, online=False)
    with pytest.raises(ValueError, match="got a group with online=False; read the offline store"):
        offline.grant_get_records(iam.Role(stack, "R", assumed_by=iam.ServicePrincipal("glue.amazonaws.com")))


def test_should_offer_metrics_of_one_operation(contract: CompiledContract) -> None:
    built = group(cdk.Stack(), contract)
    metric = built.metric("Latency", operation="PutRecord", statistic="p99")
    assert metric.dimensions == {"FeatureGroupName": built.name, "OperationName": "PutRecord"}
    assert (metric.namespace, metric.statistic) == ("AWS/SageMaker/FeatureStore", "p99")


def test_should_pass_the_security_pack_with_all_its_grants(
    contract: CompiledContract, tmp_path: Path
) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Pack")
    built = group(stack, contract, table_format="Iceberg")
    role = iam.Role(stack, "User", assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))
    for grant in (
        built.grant_put_records,
        built.grant_get_records,
        built.grant_delete_records,
        built.grant_read_history,
    ):
        grant(role)
    for stand_in, rule in (("DataKey", "KMS5"), ("LogKey", "KMS5"), ("Topic", "SNS3")):
        acknowledge(stack.node.find_child(stand_in), rule, "a stand-in of this test for the foundation's own")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
