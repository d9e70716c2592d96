"""The whole app: pure, tidy, least privilege, nothing that holds data deletable."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cdk_support import ROOT, Assembly, Template, normalised, offline, resources
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

ENVIRONMENTS = ("Dev", "Staging", "Prod")
STACKS = (
    "Foundation",
    "DataLake",
    "ClaimsFraudData",
    "ClaimsFraudSources",
    "ClaimsFraudModels",
    "ClaimsFraudServing",
    "ClaimsFraudLabels",
    "ClaimsFraudOperations",
    "HotlineDemandData",
    "HotlineDemandWindows",
    "HotlineDemandModels",
    "HotlineDemandServing",
    "HotlineDemandOperations",
    "MachineHealthData",
    "MachineHealthModels",
    "MachineHealthServing",
    "MachineHealthOperations",
)
#: What one environment alone has switched on.
MORE = {"Dev/Governance"}
REVIEWED = sorted({f"{environment}/{stack}" for environment in ENVIRONMENTS for stack in STACKS} | MORE)
#: What holds data, or the key without which data is lost.
STATEFUL = (
    "AWS::S3::Bucket",
    "AWS::KMS::Key",
    "AWS::Kinesis::Stream",
    "AWS::DynamoDB::Table",
    "AWS::Cognito::UserPool",
    "AWS::SageMaker::FeatureGroup",
    "AWS::SageMaker::ModelPackageGroup",
)
#: Actions that take no resource (Service Authorization Reference), each with what narrows it instead.
WITHOUT_RESOURCE = {
    "cloudwatch:PutMetricData": "a condition on the namespace",
    "ecr:GetAuthorizationToken": None,
    "ec2:DescribeDhcpOptions": None,
    "ec2:DescribeNetworkInterfaces": None,
    "ec2:DescribeRouteTables": None,
    "ec2:DescribeSecurityGroups": None,
    "ec2:DescribeSubnets": None,
    "ec2:DescribeVpcEndpoints": None,
    "ec2:DescribeVpcs": None,
    "lakeformation:GetDataAccess": None,
    "sagemaker:ListModelPackages": None,
    # What personas look for, and an auditor lists.
    **dict.fromkeys(
        (
            "cloudtrail:DescribeTrails",
            "cloudtrail:LookupEvents",
            "cloudwatch:GetMetricData",
            "cloudwatch:GetMetricStatistics",
            "cloudwatch:ListDashboards",
            "cloudwatch:ListMetrics",
            "guardduty:ListDetectors",
            "iam:ListRoles",
            "inspector2:ListFindings",
            "kms:ListKeys",
            "s3:ListAllMyBuckets",
            "sagemaker:ListEndpoints",
            "sagemaker:ListExperiments",
            "sagemaker:ListModelPackageGroups",
            "sagemaker:ListPipelines",
            "sagemaker:ListProcessingJobs",
            "sagemaker:ListTrainingJobs",
            "sagemaker:ListTrialComponents",
            "sagemaker:ListTrials",
            "sagemaker:Search",
        )
    ),
    # A state machine's log delivery (Step Functions Developer Guide, "Logging using CloudWatch Logs").
    "logs:CreateLogDelivery": None,
    "logs:DeleteLogDelivery": None,
    "logs:DescribeLogGroups": None,
    "logs:DescribeResourcePolicies": None,
    "logs:GetLogDelivery": None,
    "logs:ListLogDeliveries": None,
    "logs:PutResourcePolicy": None,
    "logs:UpdateLogDelivery": None,
    "xray:GetSamplingRules": None,
    "xray:GetSamplingTargets": None,
    "xray:PutTelemetryRecords": None,
    "xray:PutTraceSegments": None,
}
#: Streams of what can be computed again.
PASSING = {"HotlineDemandWindows": {"WindowsRows"}}


@pytest.fixture
def snapshot_json(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(JSONSnapshotExtension)


def test_should_hold_every_stack_of_every_environment_and_the_delivery(assembly: Assembly) -> None:
    assert set(assembly.stacks()) == {*REVIEWED, "Delivery"}


@pytest.mark.parametrize("stack", REVIEWED, ids=[stack.replace("/", "-") for stack in REVIEWED])
def test_should_synthesise_the_stack_as_it_was_reviewed(
    stack: str, assembly: Assembly, snapshot_json: SnapshotAssertion
) -> None:
    assert normalised(assembly.template(stack)) == snapshot_json


def test_should_synthesise_the_delivery_as_it_was_reviewed(
    assembly: Assembly, snapshot_json: SnapshotAssertion
) -> None:
    assert normalised(assembly.template("Delivery")) == snapshot_json


def test_should_synthesise_the_same_bytes_twice_without_sockets_or_credentials(
    assembly: Assembly, tmp_path: Path
) -> None:
    # A process of its own: caches of the first synthesis must not make the second one equal.
    script = (
        "import sys; sys.path[:0] = ['tests', 'constructs', 'contract', '.'];"
        "import conftest; from pathlib import Path; from cdk_support import synthesise_app;"
        f"synthesise_app(Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, env=_bare_environment())
    first, second = assembly.files(), Assembly(tmp_path).files()
    assert first.keys() == second.keys()
    assert [path for path in first if _pure(first[path]) != _pure(second[path])] == []


def _pure(content: bytes) -> bytes:
    """Leave out the folder that jsii unpacked the CDK into: creation stacks beside the templates show it."""
    return re.sub(rb"jsii-kernel-\w+", b"jsii-kernel", content)


def _bare_environment() -> dict[str, str]:
    import os

    return {name: os.environ[name] for name in ("PATH", "JSII_NODE", "HOME", "TMPDIR") if name in os.environ}


def test_should_synthesise_one_environment_when_it_is_picked(tmp_path: Path) -> None:
    import aws_cdk as cdk
    from cdk_support import cdk_context

    import app

    with offline():
        picked = app.build(cdk.App(context={**cdk_context(), "environment": "staging"}, outdir=str(tmp_path)))
    assert sorted(c.node.id for c in picked.node.children if isinstance(c, cdk.Stage)) == ["Staging"]
    with pytest.raises(ValueError, match="environment must be one of dev, staging, prod, got 'live'"):
        app.build(cdk.App(context={"environment": "live"}))


def test_should_say_in_one_line_what_is_wrong_with_the_picked_environment() -> None:
    context = json.dumps({"environment": "live"})
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**_bare_environment(), "CDK_CONTEXT_JSON": context, "PYTHONPATH": "contract:constructs"},
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: context key environment must be one of dev, staging, prod, got 'live'"
    )


# --- what holds data ------------------------------------------------------------------------------


def test_should_retain_everything_that_holds_data(assembly: Assembly) -> None:
    kept = 0
    for stack, template in assembly.templates().items():
        if stack == "Delivery":
            continue
        passing = tuple(PASSING.get(stack.partition("/")[2], ()))
        for name, resource in template["Resources"].items():
            if resource["Type"] in STATEFUL and not (passing and name.startswith(passing)):
                kept += 1
                assert resource.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate"), f"{stack} {name}"
                assert resource.get("UpdateReplacePolicy") == "Retain", f"{stack} {name}"
    assert kept >= 3 * len(STATEFUL)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_should_never_rename_what_holds_data(environment: str, assembly: Assembly) -> None:
    """A changed logical id makes CloudFormation create an empty one and forget the old."""
    found = {
        stack: sorted(
            n
            for n, r in assembly.template(f"{environment}/{stack}")["Resources"].items()
            if r["Type"] in STATEFUL
        )
        for stack in ("Foundation", "DataLake", "ClaimsFraudData")
    }
    assert found == {
        "Foundation": ["KeysDataA2F7C5E6", "KeysLogs7981C88C", "KeysMessagesE856B267"],
        "DataLake": [
            "LakeAccessLogs4431AB8D",
            "LakeArtifactsBucketA1C017F3",
            "LakeCuratedBucketD88CAD16",
            "LakeFeaturesBucketE546040C",
            "LakeKey7B6C155C",
            "LakeRawBucket28F84711",
        ],
        "ClaimsFraudData": ["FeaturesGroup43BCEBCA", "IngestionStreamE182A196"],
    }


def test_should_destroy_data_only_when_environment_and_command_line_both_say_so() -> None:
    import aws_cdk as cdk
    from aws_cdk import assertions

    from environments import DEV, STAGING
    from stacks.data_lake import DESTROY_CONTEXT, DataLakeStack

    def policies(environment: Any, context: dict[str, str]) -> set[str]:
        stack = DataLakeStack(cdk.App(context=context), "Lake", environment=environment)
        template = assertions.Template.from_stack(stack).to_json()
        return {r["DeletionPolicy"] for r in template["Resources"].values() if r["Type"] == "AWS::S3::Bucket"}

    assert policies(DEV, {}) == {"Retain"}
    assert policies(DEV, {DESTROY_CONTEXT: "staging"}) == {"Retain"}
    assert policies(DEV, {DESTROY_CONTEXT: "dev"}) == {"Delete"}
    with pytest.raises(
        ValueError, match="destroy_data must name an environment that has destroy_data=True, got 'staging'"
    ):
        policies(STAGING, {DESTROY_CONTEXT: "staging"})


# --- least privilege ------------------------------------------------------------------------------


def _statements(template: Template) -> list[tuple[str, Template]]:
    """What policies grant; a permissions boundary grants nothing."""
    found = []
    boundaries = [
        role["Properties"].get("PermissionsBoundary")
        for role in resources(template, "AWS::IAM::Role").values()
    ]
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        if {"Ref": name} in boundaries:
            continue
        documents = []
        if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            documents.append(properties["PolicyDocument"])
        if resource["Type"] == "AWS::IAM::Role":
            documents += [p["PolicyDocument"] for p in properties.get("Policies", [])]
        found += [(name, s) for d in documents for s in d["Statement"] if s["Effect"] == "Allow"]
    return found


def test_should_spell_out_every_action_of_an_environment(assembly: Assembly) -> None:
    wild = [
        f"{stack} {name}: {action}"
        for stack, template in assembly.templates().items()
        if stack != "Delivery"
        for name, statement in _statements(template)
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        if "*" in action
    ]
    assert wild == []


def test_should_use_a_bare_wildcard_only_where_aws_offers_no_resource(assembly: Assembly) -> None:
    wrong: list[str] = []
    used: set[str] = set()
    for stack, template in assembly.templates().items():
        if stack == "Delivery":
            continue
        for name, statement in _statements(template):
            wanted = (
                statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            )
            if "*" not in [r for r in wanted if isinstance(r, str)]:
                continue
            listed = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            used.update(listed)
            for action in listed:
                narrowed = WITHOUT_RESOURCE.get(action) is None or statement.get("Condition")
                if action not in WITHOUT_RESOURCE or not narrowed:
                    wrong.append(f"{stack} {name}: {action}")
    assert wrong == []
    assert used == set(WITHOUT_RESOURCE), "an exception that nobody needs any more must go"


def test_should_attach_no_managed_policy_of_aws(assembly: Assembly) -> None:
    attached = [
        f"{stack} {name}"
        for stack, template in assembly.templates().items()
        for name, role in resources(template, "AWS::IAM::Role").items()
        if role["Properties"].get("ManagedPolicyArns")
    ]
    assert attached == []


def test_should_deploy_without_a_custom_resource_in_node(assembly: Assembly) -> None:
    for stack, template in assembly.templates().items():
        for name, function in resources(template, "AWS::Lambda::Function").items():
            assert "nodejs" not in str(function["Properties"].get("Runtime", "")), f"{stack} {name}"


def test_should_tag_what_can_be_tagged_and_never_the_stack(assembly: Assembly) -> None:
    bucket = next(iter(resources(assembly.template("Dev/DataLake"), "AWS::S3::Bucket").values()))
    assert {"Key": "ml-lifecycle:environment", "Value": "dev"} in bucket["Properties"]["Tags"]
    job = next(iter(resources(assembly.template("Prod/ClaimsFraudData"), "AWS::Glue::Job").values()))
    assert job["Properties"]["Tags"] == {
        "ml-lifecycle:environment": "prod",
        "ml-lifecycle:workload": "claims_fraud",
    }
    for manifest in assembly.folder.rglob("manifest.json"):
        for artifact in json.loads(manifest.read_text()).get("artifacts", {}).values():
            assert not artifact.get("properties", {}).get("tags"), artifact


# --- assets ---------------------------------------------------------------------------------------


def test_should_hold_every_asset_that_it_names(assembly: Assembly) -> None:
    files = images = 0
    for path in assembly.folder.rglob("*.assets.json"):
        manifest = json.loads(path.read_text())
        for asset in manifest.get("files", {}).values():
            assert (path.parent / asset["source"]["path"]).exists(), asset
            files += 1
        for asset in manifest.get("dockerImages", {}).values():
            folder = path.parent / asset["source"]["directory"]
            assert (folder / asset["source"].get("dockerFile", "Dockerfile")).is_file(), asset
            for line in (folder / "Dockerfile").read_text().splitlines():
                if line.startswith("COPY "):
                    assert (folder / line.split()[1]).exists(), f"{folder.name}: {line}"
            images += 1
    assert files
    assert images


# --- security findings --------------------------------------------------------------------------


def test_should_fail_on_a_finding_that_nobody_acknowledged(tmp_path: Path) -> None:
    import aws_cdk as cdk
    from aws_cdk import aws_s3 as s3
    from cdk_nag import AwsSolutionsChecks
    from ml_lifecycle.acknowledge import acknowledge

    def app(*, acknowledged: bool) -> cdk.App:
        built = cdk.App(outdir=str(tmp_path / str(acknowledged)))
        cdk.Validations.of(built).add_plugins(AwsSolutionsChecks(built))
        bucket = s3.Bucket(cdk.Stack(built, "Open"), "Bucket", enforce_ssl=True)
        if acknowledged:
            acknowledge(bucket, "S1", "a test bucket that nobody ever reads from")
        return built

    app(acknowledged=True).synth()
    with pytest.raises(RuntimeError, match="The S3 Bucket has server access logs disabled"):
        app(acknowledged=False).synth()


def test_should_refuse_an_acknowledgement_without_a_reason() -> None:
    import aws_cdk as cdk
    from ml_lifecycle.acknowledge import acknowledge

    with pytest.raises(
        ValueError, match="reason must say in a sentence what compensates for S1, got 'false positive'"
    ):
        acknowledge(cdk.Stack(), "S1", "false positive")
