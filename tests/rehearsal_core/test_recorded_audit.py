"""What looks at an account, a shelf and Studio: deployed, checked, taken away; refused without its parts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

Resources = dict[str, Any]
STANDARD = "arn:aws:securityhub:us-east-1::standards/nist-800-53/v/5.0.0"


def resource(kind: str, *, after: str | None = None, **properties: Any) -> dict[str, Any]:
    found = {"Type": kind, "Properties": properties}
    return found if after is None else {**found, "DependsOn": after}


def role(service: str) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return resource(
        "AWS::IAM::Role", AssumeRolePolicyDocument={"Version": "2012-10-17", "Statement": [trust]}
    )


def looked_after() -> Resources:
    return {
        "Bucket": resource("AWS::S3::Bucket"),
        "Recorder": resource(
            "AWS::Config::ConfigurationRecorder",
            RoleARN="arn:aws:iam::123456789012:role/any",
            RecordingGroup={"AllSupported": False, "ResourceTypes": ["AWS::S3::Bucket"]},
        ),
        "Channel": resource(
            "AWS::Config::DeliveryChannel",
            S3BucketName={"Ref": "Bucket"},
            ConfigSnapshotDeliveryProperties={"DeliveryFrequency": "TwentyFour_Hours"},
        ),
        "Rule": resource(
            "AWS::Config::ConfigRule",
            after="Recorder",
            Source={"Owner": "AWS", "SourceIdentifier": "S3_BUCKET_VERSIONING_ENABLED"},
            Scope={"TagKey": "team", "TagValue": "parcels"},
        ),
        "Hub": resource("AWS::SecurityHub::Hub", EnableDefaultStandards=False),
        "Standard": resource("AWS::SecurityHub::Standard", after="Hub", StandardsArn=STANDARD),
        "Images": resource(
            "AWS::ECR::RegistryScanningConfiguration",
            ScanType="ENHANCED",
            Rules=[
                {
                    "ScanFrequency": "CONTINUOUS_SCAN",
                    "RepositoryFilters": [{"Filter": "cdk-*", "FilterType": "WILDCARD"}],
                }
            ],
        ),
        "Detector": resource(
            "AWS::GuardDuty::Detector",
            Enable=True,
            Features=[{"Name": "S3_DATA_EVENTS", "Status": "ENABLED"}],
        ),
    }


def shelf(*, launched_by: str = "servicecatalog.amazonaws.com", parameter: str = "Size") -> Resources:
    pair = {"PortfolioId": {"Ref": "Portfolio"}, "ProductId": {"Ref": "Product"}}
    rule = {"Assertions": [{"Assert": {"Fn::Contains": [["small"], {"Ref": parameter}]}}]}
    return {
        "Portfolio": resource("AWS::ServiceCatalog::Portfolio", DisplayName="trials", ProviderName="us"),
        "Product": resource(
            "AWS::ServiceCatalog::CloudFormationProduct",
            Name="queue",
            Owner="us",
            ProvisioningArtifactParameters=[
                {"Info": {"LoadTemplateFromURL": "https://shelf.s3.us-east-1.amazonaws.com/queue.json"}}
            ],
        ),
        "Inside": resource("AWS::ServiceCatalog::PortfolioProductAssociation", **pair),
        "Launcher": role(launched_by),
        "Launch": resource(
            "AWS::ServiceCatalog::LaunchRoleConstraint",
            after="Inside",
            RoleArn={"Fn::GetAtt": ["Launcher", "Arn"]},
            **pair,
        ),
        "Sizes": resource(
            "AWS::ServiceCatalog::LaunchTemplateConstraint",
            after="Inside",
            Rules=json.dumps({"Sizes": rule}),
            **pair,
        ),
        "Scientist": role("ec2.amazonaws.com"),
        "People": resource(
            "AWS::ServiceCatalog::PortfolioPrincipalAssociation",
            PortfolioId={"Ref": "Portfolio"},
            PrincipalARN={"Fn::GetAtt": ["Scientist", "Arn"]},
            PrincipalType="IAM",
        ),
        "Tag": resource("AWS::ServiceCatalog::TagOption", Key="team", Value="parcels"),
        "Tagged": resource(
            "AWS::ServiceCatalog::TagOptionAssociation",
            TagOptionId={"Ref": "Tag"},
            ResourceId={"Ref": "Portfolio"},
        ),
    }


def studio(*, works_as: str = "sagemaker.amazonaws.com") -> Resources:
    execution = {"ExecutionRole": {"Fn::GetAtt": ["Role", "Arn"]}}
    start = {"BuiltInLifecycleConfigArn": {"Fn::GetAtt": ["Start", "StudioLifecycleConfigArn"]}}
    return {
        "Role": role(works_as),
        "Start": resource(
            "AWS::SageMaker::StudioLifecycleConfig",
            StudioLifecycleConfigName="start-1",
            StudioLifecycleConfigAppType="JupyterLab",
            StudioLifecycleConfigContent="IyEvYmluL2Jhc2gK",
        ),
        "Domain": resource(
            "AWS::SageMaker::Domain",
            DomainName="depot",
            AuthMode="IAM",
            AppNetworkAccessType="VpcOnly",
            VpcId="vpc-1a2b3c4d",
            SubnetIds=["subnet-1a2b3c4d"],
            DefaultUserSettings={**execution, "JupyterLabAppSettings": start},
        ),
        "Profile": resource(
            "AWS::SageMaker::UserProfile",
            DomainId={"Fn::GetAtt": ["Domain", "DomainId"]},
            UserProfileName="ana",
            UserSettings=execution,
        ),
    }


def deploy(client: Callable[[str], Any], name: str, resources: Resources) -> tuple[str, list[str]]:
    """Return the status of the stack and why what failed did."""
    cloudformation = client("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps({"Resources": resources}),
        Capabilities=["CAPABILITY_IAM"],
    )
    status = settled(client, name)
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    return status, [e["ResourceStatusReason"] for e in events if "FAILED" in e["ResourceStatus"]]


def settled(client: Callable[[str], Any], name: str) -> str:
    for _ in range(200):
        found = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        if not found["StackStatus"].endswith("IN_PROGRESS"):
            return str(found["StackStatus"])
        time.sleep(0.1)
    raise AssertionError("the stack does not settle")


def gone(looked: Callable[[], bool]) -> bool:
    for _ in range(100):
        if looked():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def product(client: Callable[[str], Any]) -> None:
    """The template of a product."""
    client("s3").create_bucket(Bucket="shelf")
    template = {
        "Parameters": {"Size": {"Type": "String"}},
        "Resources": {"Queue": resource("AWS::SQS::Queue")},
    }
    client("s3").put_object(Bucket="shelf", Key="queue.json", Body=json.dumps(template))


def test_should_look_at_the_account_once_and_no_longer(client: Callable[[str], Any]) -> None:
    assert deploy(client, "looked-after", looked_after()) == ("CREATE_COMPLETE", [])
    (status,) = client("config").describe_configuration_recorder_status()["ConfigurationRecordersStatus"]
    assert status["recording"]
    (rule,) = client("config").describe_config_rules()["ConfigRules"]
    assert rule["Source"]["SourceIdentifier"] == "S3_BUCKET_VERSIONING_ENABLED"
    (channel,) = client("config").describe_delivery_channels()["DeliveryChannels"]
    assert channel["configSnapshotDeliveryProperties"] == {"deliveryFrequency": "TwentyFour_Hours"}
    hub = client("securityhub")
    assert [s["StandardsArn"] for s in hub.get_enabled_standards()["StandardsSubscriptions"]] == [STANDARD]
    (detector,) = client("guardduty").list_detectors()["DetectorIds"]
    assert client("guardduty").get_detector(DetectorId=detector)["Status"] == "ENABLED"
    scanning = client("ecr").get_registry_scanning_configuration()["scanningConfiguration"]
    assert scanning["scanType"] == "ENHANCED"

    again = {name: looked_after()[name] for name in ("Detector",)}
    status, reasons = deploy(client, "again", again)
    assert status.startswith("ROLLBACK")
    assert any("a detector already exists" in reason for reason in reasons)

    client("cloudformation").delete_stack(StackName="looked-after")
    assert gone(lambda: not client("config").describe_configuration_recorders()["ConfigurationRecorders"])
    assert gone(lambda: not client("guardduty").list_detectors()["DetectorIds"])


def test_should_refuse_a_rule_without_a_recorder(client: Callable[[str], Any]) -> None:
    config = client("config")
    rule = {"ConfigRuleName": "alone", "Source": {"Owner": "AWS", "SourceIdentifier": "CLOUD_TRAIL_ENABLED"}}
    with pytest.raises(config.exceptions.NoAvailableConfigurationRecorderException):
        config.put_config_rule(ConfigRule=rule)


@pytest.mark.usefixtures("product")
def test_should_put_a_product_on_a_shelf_and_take_it_off(client: Callable[[str], Any]) -> None:
    assert deploy(client, "shelf", shelf()) == ("CREATE_COMPLETE", [])
    catalog = client("servicecatalog")
    stacked = client("cloudformation").list_stack_resources(StackName="shelf")["StackResourceSummaries"]
    (portfolio,) = [r["PhysicalResourceId"] for r in stacked if r["LogicalResourceId"] == "Portfolio"]
    found = catalog.list_constraints_for_portfolio(PortfolioId=portfolio)["ConstraintDetails"]
    assert {one["Type"] for one in found} == {"LAUNCH", "TEMPLATE"}
    client("cloudformation").delete_stack(StackName="shelf")

    def empty() -> bool:
        try:
            catalog.describe_portfolio(Id=portfolio)
        except catalog.exceptions.ResourceNotFoundException:
            return True
        return False

    assert gone(empty)


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"launched_by": "lambda.amazonaws.com"}, "cannot be assumed by servicecatalog"),
        ({"parameter": "Colour"}, "parameters that are not there: Colour"),
    ],
)
def test_should_refuse_bounds_that_bind_nothing(
    client: Callable[[str], Any], given: dict[str, str], reason: str
) -> None:
    status, reasons = deploy(client, f"unbound-{next(iter(given)).replace('_', '-')}", shelf(**given))
    assert status.startswith("ROLLBACK")
    assert any(reason in one for one in reasons), reasons


def test_should_refuse_a_product_whose_template_no_stack_takes(client: Callable[[str], Any]) -> None:
    catalog = client("servicecatalog")
    client("s3").create_bucket(Bucket="broken")
    broken = {"Resources": {"Queue": resource("AWS::SQS::Queue", Colour="red")}}
    client("s3").put_object(Bucket="broken", Key="queue.json", Body=json.dumps(broken))
    asked = {"Name": "queue", "Owner": "us", "ProductType": "CLOUD_FORMATION_TEMPLATE"}
    for key in ("queue", "nothing"):
        url = f"https://broken.s3.us-east-1.amazonaws.com/{key}.json"
        version = {"Info": {"LoadTemplateFromURL": url}, "Type": "CLOUD_FORMATION_TEMPLATE"}
        with pytest.raises(catalog.exceptions.InvalidParametersException):
            catalog.create_product(**asked, ProvisioningArtifactParameters=version, IdempotencyToken=key)


def test_should_keep_a_domain_and_its_profiles(client: Callable[[str], Any]) -> None:
    assert deploy(client, "studio", studio()) == ("CREATE_COMPLETE", [])
    sagemaker = client("sagemaker")
    (domain,) = sagemaker.list_domains()["Domains"]
    found = sagemaker.describe_domain(DomainId=domain["DomainId"])
    assert found["HomeEfsFileSystemId"].startswith("fs-")
    with pytest.raises(sagemaker.exceptions.ResourceInUse):
        sagemaker.delete_domain(DomainId=domain["DomainId"])
    client("cloudformation").delete_stack(StackName="studio")
    assert gone(lambda: not sagemaker.list_domains()["Domains"])


def test_should_refuse_a_domain_whose_role_studio_cannot_assume(client: Callable[[str], Any]) -> None:
    status, reasons = deploy(client, "stranger", studio(works_as="glue.amazonaws.com"))
    assert status.startswith("ROLLBACK")
    assert any("cannot be assumed by sagemaker.amazonaws.com" in reason for reason in reasons), reasons
