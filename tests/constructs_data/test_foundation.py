"""Foundation: keys, network, notices, budget, log groups."""

from __future__ import annotations

import json

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from cdk_support import Template, actions, only, resources, statements, synthesise_stacks
from ml_lifecycle.foundation import (
    INTERFACE_ENDPOINTS,
    LOG_RETENTION_DAYS,
    Keys,
    MonthlyBudget,
    Network,
    Notices,
    grant_encrypt_decrypt,
    log_group,
)


def _network(stack: cdk.Stack, **options: object) -> None:
    Network(stack, "Network", log_key=kms.Key(stack, "Key"), **options)  # type: ignore[arg-type]


def _grant(stack: cdk.Stack) -> None:
    role = iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))
    grant_encrypt_decrypt(kms.Key(stack, "Key"), role)


def _budget(stack: cdk.Stack) -> None:
    topic = sns.Topic(stack, "Topic")
    MonthlyBudget(stack, "Budget", limit_usd=500, tag_key="team:env", tag_value="dev", topic=topic)


def _notices(stack: cdk.Stack) -> None:
    Notices(stack, "Notices", key=kms.Key(stack, "Key"), email="team@example.com")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("foundation"),
        {
            "Keys": lambda stack: Keys(stack, "Keys"),
            "Network": _network,
            "Small": lambda stack: _network(stack, max_azs=1, interface_endpoints=False, cidr="10.7.0.0/22"),
            "Grant": _grant,
            "Budget": _budget,
            "Notices": _notices,
        },
    )


def test_should_rotate_and_retain_every_key(templates: dict[str, Template]) -> None:
    keys = resources(templates["Keys"], "AWS::KMS::Key")
    assert len(keys) == 3
    for name, key in keys.items():
        assert key["Properties"]["EnableKeyRotation"] is True, name
        assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("Retain", "Retain"), name


def test_should_let_services_use_a_key_for_this_account_only(templates: dict[str, Template]) -> None:
    of_services = [
        statement
        for key in resources(templates["Keys"], "AWS::KMS::Key").values()
        for statement in key["Properties"]["KeyPolicy"]["Statement"]
        if "Service" in statement["Principal"]
    ]
    conditions = {statement["Sid"]: json.dumps(statement["Condition"]) for statement in of_services}
    assert set(conditions) == {"CloudWatchLogsOfThisAccount", "EventsAndAlarmsOfThisAccount"}
    for condition in conditions.values():
        assert '{"Ref": "AWS::AccountId"}' in condition


def test_should_build_a_network_without_a_way_out(templates: dict[str, Template]) -> None:
    template = templates["Network"]
    kinds = {r["Type"] for r in template["Resources"].values()}
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::EIP"}
    assert not [kind for kind in kinds if kind.startswith("Custom::")]
    assert len(resources(template, "AWS::EC2::Subnet")) == 2
    assert not list(resources(template, "AWS::EC2::Route").values())


def test_should_ask_nobody_for_the_zones(templates: dict[str, Template]) -> None:
    zones = [
        s["Properties"]["AvailabilityZone"]
        for s in resources(templates["Network"], "AWS::EC2::Subnet").values()
    ]
    assert zones == [{"Fn::Select": [i, {"Fn::GetAZs": ""}]} for i in range(2)]


def test_should_bring_the_apis_that_jobs_call_into_the_network(templates: dict[str, Template]) -> None:
    endpoints = [e["Properties"] for e in resources(templates["Network"], "AWS::EC2::VPCEndpoint").values()]
    interface = [e for e in endpoints if e["VpcEndpointType"] == "Interface"]
    assert len(interface) == len(INTERFACE_ENDPOINTS)
    services = json.dumps([e["ServiceName"] for e in interface])
    for service in INTERFACE_ENDPOINTS.values():
        assert f".{service}" in services
    assert all(e["PrivateDnsEnabled"] for e in interface)
    assert len(endpoints) - len(interface) == 2


def test_should_leave_out_interface_endpoints_and_take_small_networks(templates: dict[str, Template]) -> None:
    template = templates["Small"]
    endpoints = resources(template, "AWS::EC2::VPCEndpoint").values()
    assert {e["Properties"]["VpcEndpointType"] for e in endpoints} == {"Gateway"}
    (subnet,) = resources(template, "AWS::EC2::Subnet").values()
    assert subnet["Properties"]["CidrBlock"] == "10.7.0.0/22"


def test_should_log_every_flow_encrypted_for_ninety_days(templates: dict[str, Template]) -> None:
    template = templates["Network"]
    flow_log = only(template, "AWS::EC2::FlowLog")
    assert (flow_log["TrafficType"], flow_log["ResourceType"]) == ("ALL", "VPC")
    group = only(template, "AWS::Logs::LogGroup")
    assert group["RetentionInDays"] == 90
    assert "KmsKeyId" in group
    assert actions(statements(template, "NetworkFlowLogRole")) == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "logs:DescribeLogStreams",
    }


def test_should_open_job_security_group_to_itself_and_https_only(templates: dict[str, Template]) -> None:
    groups = resources(templates["Network"], "AWS::EC2::SecurityGroup")
    (name,) = [n for n in groups if "Job" in n]
    assert [
        (r["CidrIp"], r["FromPort"], r["ToPort"]) for r in groups[name]["Properties"]["SecurityGroupEgress"]
    ] == [("0.0.0.0/0", 443, 443)]
    assert "SecurityGroupIngress" not in groups[name]["Properties"]
    inward = [
        r["Properties"] for r in resources(templates["Network"], "AWS::EC2::SecurityGroupIngress").values()
    ]
    sources = {rule["SourceSecurityGroupId"]["Fn::GetAtt"][0] for rule in inward}
    assert sources == {name}


def test_should_grant_a_key_for_data_and_no_more(templates: dict[str, Template]) -> None:
    assert actions(statements(templates["Grant"], "Role")) == {"kms:Decrypt", "kms:GenerateDataKey"}


def test_should_tell_at_eighty_percent_and_when_the_forecast_exceeds(templates: dict[str, Template]) -> None:
    budget = only(templates["Budget"], "AWS::Budgets::Budget")
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 500, "Unit": "USD"}
    assert budget["Budget"]["CostFilters"] == {"TagKeyValue": ["user:team:env$dev"]}
    told = {
        (n["Notification"]["NotificationType"], n["Notification"]["Threshold"])
        for n in budget["NotificationsWithSubscribers"]
    }
    assert told == {("ACTUAL", 80), ("FORECASTED", 100)}
    with pytest.raises(ValueError, match="limit_usd must be at least 1, got 0"):
        MonthlyBudget(
            cdk.Stack(), "B", limit_usd=0, tag_key="k", tag_value="v", topic=sns.Topic(cdk.Stack(), "T")
        )


def test_should_let_alarms_and_events_of_this_account_publish_over_tls(
    templates: dict[str, Template],
) -> None:
    template = templates["Notices"]
    assert "KmsMasterKeyId" in only(template, "AWS::SNS::Topic")
    found = only(template, "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    (allowed,) = [s for s in found if s["Effect"] == "Allow"]
    assert sorted(allowed["Principal"]["Service"]) == [
        "budgets.amazonaws.com",
        "cloudwatch.amazonaws.com",
        "events.amazonaws.com",
    ]
    assert allowed["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    (denied,) = [s for s in found if s["Effect"] == "Deny"]
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    subscription = only(template, "AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "team@example.com")


def test_should_refuse_a_retention_that_cloudwatch_logs_does_not_know() -> None:
    stack = cdk.Stack()
    with pytest.raises(ValueError, match=r"retention_days must be one of 1, 3, 5, .*, 3653, got 8"):
        log_group(stack, "Logs", key=kms.Key(stack, "Key"), retention_days=8)


def test_should_refuse_more_zones_than_any_region_surely_has() -> None:
    stack = cdk.Stack()
    with pytest.raises(ValueError, match="max_azs must be between 1 and 3, got 4"):
        Network(stack, "Network", log_key=kms.Key(stack, "Key"), max_azs=4)


def test_should_know_the_retentions_of_the_cloudwatch_logs_api() -> None:
    from aws_cdk import aws_logs as logs

    assert len(LOG_RETENTION_DAYS) == len(logs.RetentionDays) - 1, "every value but INFINITE"
    assert list(LOG_RETENTION_DAYS) == sorted(LOG_RETENTION_DAYS)
