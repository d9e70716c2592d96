"""What looks at an account, a shelf of trial endpoints, a Studio domain: defaults, errors, grants."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_config as config
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from cdk_support import Template, only, resources, statements, synthesise_stacks
from ml_lifecycle.audit import (
    RULES,
    ConfigRecorder,
    ConfigRules,
    FindingNotices,
    ImageScanning,
    SecurityStandards,
    ThreatDetection,
)
from ml_lifecycle.catalog import TrialCatalog, TrialEndpoint
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.foundation import Keys, Network, Notices
from ml_lifecycle.studio import StudioDomain
from ml_lifecycle.studio import domain as studio_domain
from ml_lifecycle.training import JobNetwork, TrackingServer

KEY = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"


def _looked_after(stack: cdk.Stack) -> None:
    keys = Keys(stack, "Keys", own={"data": KEY, "logs": KEY, "messages": KEY})
    lake = DataLake(stack, "Lake", database_prefix="dev")
    rules = ConfigRules(
        stack,
        "Rules",
        tag_key="team",
        tag_value="parcels",
        trail=True,
        without=["NetworksLogged"],
        recorder=ConfigRecorder(stack, "Recorder", access_logs=lake.access_logs),
    )
    FindingNotices(
        stack,
        "Findings",
        topic=Notices(stack, "Notices", key=keys.messages).topic,
        rules=rules,
        standards=SecurityStandards(stack, "Hub", standards=["fsbp", "pci-dss"]),
        images=ImageScanning(stack, "Images"),
        threats=ThreatDetection(stack, "Threats"),
    )


def _without_hub(stack: cdk.Stack) -> None:
    FindingNotices(
        stack,
        "Findings",
        topic=Notices(stack, "Notices", key=Keys(stack, "Keys").messages).topic,
        rules=ConfigRules(stack, "Rules", tag_key="team", tag_value="parcels", trail=False),
        images=ImageScanning(stack, "Images"),
        threats=ThreatDetection(stack, "Threats"),
    )


def _works(stack: cdk.Stack) -> None:
    keys = Keys(stack, "Keys", own={"data": KEY, "logs": KEY, "messages": KEY})
    network = Network(stack, "Network", log_key=keys.logs, interface_endpoints=False)
    lake = DataLake(stack, "Lake", database_prefix="dev")
    subnets = network.vpc.isolated_subnets
    role = iam.Role(stack, "Scientist", assumed_by=iam.AccountRootPrincipal())
    tracking = TrackingServer(
        stack,
        "Tracking",
        name="dev-tracking",
        artifacts=lake.artifacts,
        vpc=network.vpc,
        subnets=subnets,
        clients=network.job_security_group,
    )
    StudioDomain(
        stack,
        "Studio",
        name="dev-studio",
        personas={"data_scientist": role},
        vpc=network.vpc,
        subnets=subnets,
        security_group=network.job_security_group,
        key=keys.data_key,
        home_files=False,
        tracking=tracking,
    )
    catalog = TrialCatalog(stack, "Catalog", name="trials", provider="us", tags={"team": "parcels"})
    trial = TrialEndpoint(
        stack,
        "Trial",
        name="dev-parcels",
        group_name="dev-parcels",
        parameters="/dev/parcels/trial",
        artifacts=lake.artifacts,
        models_prefix="parcels/training/",
        repository=ecr.Repository.from_repository_name(stack, "Images", "serving"),
        volume_key=keys.data_key,
        network=JobNetwork(subnets=tuple(subnets), security_groups=(network.job_security_group,)),
        instance_types=["ml.m5.large", "ml.c5.large"],
    )
    catalog.add_trial(stack, "Product", trial=trial)
    catalog.grant_launch(role, "Scientists")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def templates(folder: Path) -> dict[str, Template]:
    return synthesise_stacks(
        folder, {"LookedAfter": _looked_after, "WithoutHub": _without_hub, "Works": _works}
    )


# --- what looks at the account ---------------------------------------------------------------------------


def test_should_name_rules_that_aws_config_has() -> None:
    listed = config.ManagedRuleIdentifiers
    known = {getattr(listed, name) for name in dir(listed) if name.isupper()}
    assert {rule.identifier for rule in RULES.values()} <= known


def test_should_keep_every_rule_but_those_left_out(templates: dict[str, Template]) -> None:
    found = resources(templates["LookedAfter"], "AWS::Config::ConfigRule")
    kept = {r["Properties"]["Source"]["SourceIdentifier"]: r for r in found.values()}
    assert kept.keys() == {rule.identifier for name, rule in RULES.items() if name != "NetworksLogged"}
    scopes = {name: r["Properties"].get("Scope") for name, r in kept.items()}
    assert scopes["S3_DEFAULT_ENCRYPTION_KMS"] == {"TagKey": "team", "TagValue": "parcels"}
    assert scopes["IAM_POLICY_NO_STATEMENTS_WITH_ADMIN_ACCESS"] == {
        "ComplianceResourceTypes": ["AWS::IAM::Policy"]
    }
    assert scopes["CLOUD_TRAIL_ENABLED"] is None
    waits = kept["CLOUD_TRAIL_ENABLED"]["DependsOn"]
    assert {name for name in waits if "Recorder" in name or "Channel" in name} == set(waits)


def test_should_ask_nothing_of_a_trail_that_is_not_there(templates: dict[str, Template]) -> None:
    found = resources(templates["WithoutHub"], "AWS::Config::ConfigRule").values()
    assert not [r for r in found if "CLOUD_TRAIL" in r["Properties"]["Source"]["SourceIdentifier"]]


def test_should_record_what_the_rules_look_at_and_no_more(templates: dict[str, Template]) -> None:
    group = only(templates["LookedAfter"], "AWS::Config::ConfigurationRecorder")["RecordingGroup"]
    assert not group["AllSupported"]
    assert group["ResourceTypes"] == sorted({kind for rule in RULES.values() for kind in rule.looks_at})


def test_should_let_config_deliver_for_this_account_only(templates: dict[str, Template]) -> None:
    policies = resources(templates["LookedAfter"], "AWS::S3::BucketPolicy").values()
    delivering = [
        statement
        for policy in policies
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement.get("Sid", "").startswith("Config")
    ]
    assert {s["Sid"] for s in delivering} == {"ConfigAsks", "ConfigDelivers"}
    for statement in delivering:
        assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_should_look_at_images_objects_and_standards(templates: dict[str, Template]) -> None:
    template = templates["LookedAfter"]
    scanning = only(template, "AWS::ECR::RegistryScanningConfiguration")
    assert scanning["ScanType"] == "ENHANCED"
    features = {f["Name"]: f["Status"] for f in only(template, "AWS::GuardDuty::Detector")["Features"]}
    assert features == {"S3_DATA_EVENTS": "ENABLED", "LAMBDA_NETWORK_LOGS": "DISABLED"}
    standards = json.dumps([*resources(template, "AWS::SecurityHub::Standard").values()])
    assert "aws-foundational-security-best-practices/v/1.0.0" in standards
    assert "pci-dss/v/4.0.1" in standards
    assert not only(template, "AWS::SecurityHub::Hub")["EnableDefaultStandards"]


def _told(template: Template) -> set[str]:
    rules = resources(template, "AWS::Events::Rule").values()
    return {r["Properties"]["EventPattern"]["source"][0] for r in rules}


def test_should_tell_each_finding_once(templates: dict[str, Template]) -> None:
    assert _told(templates["LookedAfter"]) == {"aws.securityhub", "aws.config"}
    assert _told(templates["WithoutHub"]) == {"aws.guardduty", "aws.inspector2", "aws.config"}


def test_should_refuse_what_looks_at_nothing() -> None:
    stack = cdk.Stack(cdk.App(), "Wrong")
    with pytest.raises(ValueError, match=r"without must hold some of .*got Everything"):
        ConfigRules(stack, "A", tag_key="a", tag_value="b", trail=True, without=["Everything"])
    with pytest.raises(ValueError, match=r"standards must hold some of fsbp.*got iso"):
        SecurityStandards(stack, "B", standards=["iso"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="1 to 100 patterns, got 0"):
        ImageScanning(stack, "C", repositories=[])
    topic = Notices(stack, "Notices", key=Keys(stack, "Keys").messages).topic
    with pytest.raises(ValueError, match="one of standards, threats, images, rules"):
        FindingNotices(stack, "D", topic=topic)


# --- the shelf -------------------------------------------------------------------------------------------


def _product(folder: Path) -> Template:
    (file,) = folder.glob("*.product.template.json")
    found: Template = json.loads(file.read_text())
    return found


@pytest.mark.usefixtures("templates")
def test_should_launch_one_encrypted_instance_inside_the_vpc(folder: Path) -> None:
    template = _product(folder)
    (variant,) = only(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InitialInstanceCount"] == 1
    assert only(template, "AWS::SageMaker::EndpointConfig")["KmsKeyId"] == {"Ref": "Key"}
    assert only(template, "AWS::SageMaker::Model")["VpcConfig"]["Subnets"] == {"Ref": "Subnets"}
    assert only(template, "AWS::SageMaker::Endpoint")["EndpointName"] == "dev-parcels-trial"
    kinds = {name: p["Type"] for name, p in template["Parameters"].items() if "SSM" in p["Type"]}
    assert kinds.keys() == {"Role", "Key", "Subnets", "SecurityGroups"}


def test_should_bound_what_is_launched(templates: dict[str, Template]) -> None:
    rules = only(templates["Works"], "AWS::ServiceCatalog::LaunchTemplateConstraint")["Rules"]
    assert json.loads(rules)["InstanceTypes"]["Assertions"][0]["Assert"] == {
        "Fn::Contains": [["ml.m5.large", "ml.c5.large"], {"Ref": "InstanceType"}]
    }
    launch = statements(templates["Works"], "TrialLaunchRole")
    for statement in launch:
        named = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        whole = statement["Resource"] == "*"
        assert not whole or set(named) <= {
            "cloudformation:GetTemplateSummary",
            "cloudformation:ValidateTemplate",
        }
    (passing,) = [s for s in launch if s["Action"] == "iam:PassRole"]
    assert passing["Resource"] == {"Fn::GetAtt": [next(iter(_named(templates["Works"], "TrialRole"))), "Arn"]}


def _named(template: Template, beginning: str) -> list[str]:
    return [name for name in resources(template, "AWS::IAM::Role") if name.startswith(beginning)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "a" * 40}, "name must have at most 30 characters, got 40"),
        ({"instance_types": ["ml.m5.tiny"]}, "'ml.m5.tiny' is no instance type for endpoint"),
        ({"instance_types": ["ml.m5d.large"]}, "no disks of their own, got ml.m5d.large"),
        ({"instance_types": []}, "instance_types must hold at least one"),
    ],
)
def test_should_refuse_a_trial_that_cannot_be(given: dict[str, Any], message: str) -> None:
    stack = cdk.Stack(cdk.App(), "Wrong")
    wanted: dict[str, Any] = {
        "name": "dev-parcels",
        "group_name": "g",
        "parameters": "/p",
        "artifacts": None,
        "models_prefix": "m/",
        "repository": None,
        "volume_key": None,
        "network": None,
    }
    with pytest.raises(ValueError, match=message):
        TrialEndpoint(stack, "Trial", **{**wanted, **given})


# --- Studio ----------------------------------------------------------------------------------------------


def test_should_keep_studio_inside_and_stop_what_is_idle(templates: dict[str, Template]) -> None:
    domain = only(templates["Works"], "AWS::SageMaker::Domain")
    assert (domain["AppNetworkAccessType"], domain["AuthMode"]) == ("VpcOnly", "IAM")
    assert domain["KmsKeyId"] == KEY
    assert domain["HomeEfsFileSystemCreation"] == "Disabled"
    settings = domain["DefaultUserSettings"]
    for app in ("JupyterLabAppSettings", "CodeEditorAppSettings"):
        idle = settings[app]["AppLifecycleManagement"]["IdleSettings"]
        assert idle["LifecycleManagement"] == "ENABLED"
        assert (idle["IdleTimeoutInMinutes"], idle["MaxIdleTimeoutInMinutes"]) == (60, 480)
    assert "Canvas" in settings["StudioWebPortalSettings"]["HiddenAppTypes"]


def test_should_let_studio_work_as_the_persona_and_say_who(templates: dict[str, Template]) -> None:
    template = templates["Works"]
    profile = only(template, "AWS::SageMaker::UserProfile")
    assert profile["UserProfileName"] == "data-scientist"
    (scientist,) = _named(template, "Scientist")
    trust = template["Resources"][scientist]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    (studio,) = [s for s in trust if s.get("Sid") == "Studio"]
    assert studio["Action"] == ["sts:AssumeRole", "sts:SetSourceIdentity"]
    assert studio["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    policies = [
        p["Properties"]
        for p in resources(template, "AWS::IAM::ManagedPolicy").values()
        if "Studio" in p["Properties"]["Description"]
    ]
    (own,) = [s for p in policies for s in p["PolicyDocument"]["Statement"] if s["Sid"] == "OwnSpaces"]
    assert own["Condition"]["StringEquals"] == {"sagemaker:SpaceSharingType": "Private"}


def test_should_name_what_runs_at_the_start_by_its_content(templates: dict[str, Template]) -> None:
    start = only(templates["Works"], "AWS::SageMaker::StudioLifecycleConfig")
    assert start["StudioLifecycleConfigName"].startswith("dev-studio-start-")
    script = json.dumps(start["StudioLifecycleConfigContent"])
    assert "@TRACKING@" not in script
    assert "mlflow-tracking-server/dev-tracking" in script


def test_should_tell_kernels_and_shells_where_runs_are_tracked(tmp_path: Path) -> None:
    script = (Path(studio_domain.__file__).with_name("start.sh")).read_text().replace("@TRACKING@", "arn:t")
    # As Studio gets it.
    assert len(base64.b64encode(script.encode())) <= 16_384
    for _ in range(2):
        subprocess.run(
            ["bash", "-c", script], check=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
    said: dict[str, Any] = {}
    source = (tmp_path / ".ipython/profile_default/startup/00-lifecycle.py").read_text()
    exec(source.replace("os.environ", "found"), {"found": said})
    assert said["MLFLOW_TRACKING_URI"] == "arn:t"
    assert (tmp_path / ".bashrc").read_text().count("MLFLOW_TRACKING_URI") == 1


def test_should_refuse_a_domain_for_nobody() -> None:
    stack = cdk.Stack(cdk.App(), "Wrong")
    given: dict[str, Any] = {"vpc": None, "security_group": None, "key": None}
    with pytest.raises(
        ValueError, match=r"personas must hold.*subnets must hold.*between 60 and 525600, got 5"
    ):
        StudioDomain(stack, "S", name="s", personas={}, subnets=[], idle_minutes=5, **given)
