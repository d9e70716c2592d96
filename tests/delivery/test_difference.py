"""The semantic difference: known-bad changes, each named for what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from delivery.assemblies import AssemblyError, Stack, deployed, read_assembly, write_assembly
from delivery.difference import KINDS, Finding, as_html, as_json, as_text, compare

Resources = Mapping[str, Mapping[str, Any]]

BUCKET = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "claims"}}
KEPT = {**BUCKET, "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}


def stack(resources: Resources, **more: Any) -> Stack:
    return Stack(id="Dev/Things", name="Dev-Things", template={"Resources": dict(resources)}, **more)


def found(before: Resources, after: Resources) -> list[Finding]:
    return list(compare([stack(before)], [stack(after)]).findings)


def only(before: Resources, after: Resources) -> Finding:
    [finding] = found(before, after)
    return finding


def role_policy(*statements: Mapping[str, Any], role: str = "Role") -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return {
        "Type": "AWS::IAM::Policy",
        "Properties": {"PolicyName": "p", "Roles": [{"Ref": role}], "PolicyDocument": document},
    }


def allow(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


# -- replaced, and what of it holds data ---------------------------------------------------------------------


def test_should_name_the_create_only_property_that_replaces_a_bucket() -> None:
    renamed = {**KEPT, "Properties": {"BucketName": "claims-2"}}
    finding = only({"Data": KEPT}, {"Data": renamed})
    assert finding.kind == "data-left"
    assert "create-only: BucketName goes from 'claims' to 'claims-2'" in finding.why
    assert "UpdateReplacePolicy is Retain" in finding.why


def test_should_say_that_data_is_lost_when_nothing_keeps_it() -> None:
    finding = only({"Data": BUCKET}, {"Data": {**BUCKET, "Properties": {"BucketName": "other"}}})
    assert (finding.kind, finding.resource) == ("data-lost", "Data")


def test_should_see_a_bucket_that_got_another_logical_id() -> None:
    finding = only(
        {"Data": BUCKET}, {"Moved": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "claims"}}}
    )
    assert finding.kind == "data-lost"
    assert "Moved is the same under another logical id" in finding.why


def test_should_say_what_a_removal_leaves_behind_and_what_it_deletes() -> None:
    assert only({"Data": KEPT}, {}).kind == "data-left"
    assert only({"Data": BUCKET}, {}).kind == "data-lost"
    topic = {"Type": "AWS::SNS::Topic", "Properties": {}}
    assert only({"Told": topic}, {}).kind == "destroyed"


def test_should_follow_a_replacement_to_what_names_it_by_a_create_only_property() -> None:
    def group(name: str) -> dict[str, Any]:
        return {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": name}}

    stream = {"Type": "AWS::Logs::LogStream", "Properties": {"LogGroupName": {"Ref": "Group"}}}
    kinds = {
        f.resource: f for f in found({"Group": group("a"), "S": stream}, {"Group": group("b"), "S": stream})
    }
    assert kinds["S"].kind == "replaced"
    assert "LogGroupName refers to Group, which is replaced" in kinds["S"].why


def test_should_say_that_a_replacement_under_a_fixed_name_is_refused() -> None:
    def table(key: str) -> dict[str, Any]:
        return {
            "Type": "AWS::SageMaker::FeatureGroup",
            "Properties": {"FeatureGroupName": "claims", "RecordIdentifierFeatureName": key},
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
        }

    kinds = [f.kind for f in found({"G": table("a")}, {"G": table("b")})]
    assert kinds == ["data-left", "refused"]


def test_should_find_no_replacement_in_what_may_change_in_place() -> None:
    def queue(seconds: Any) -> dict[str, Any]:
        return {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": seconds}}

    assert found({"Q": queue(30)}, {"Q": queue(60)}) == []
    # A number and its text are one value to CloudFormation.
    assert compare([stack({"Q": queue(30)})], [stack({"Q": queue("30")})]).stacks[0].state == "same"


def test_should_tell_of_a_deletion_that_will_take_more_than_before() -> None:
    finding = only({"Data": KEPT}, {"Data": {**KEPT, "DeletionPolicy": "Delete"}})
    assert (finding.kind, finding.why) == ("protection", "DeletionPolicy goes from Retain to Delete")
    [ended] = compare([stack({}, protected=True)], [stack({})]).findings
    assert ended.why == "its termination protection goes"


# -- access --------------------------------------------------------------------------------------------------


def test_should_name_the_action_that_a_widened_policy_adds() -> None:
    before = {"P": role_policy(allow("s3:GetObject", "arn:aws:s3:::lake/*"))}
    after = {"P": role_policy(allow(["s3:GetObject", "s3:DeleteObject"], "arn:aws:s3:::lake/*"))}
    finding = only(before, after)
    assert (finding.kind, finding.resource) == ("access", "Role")
    assert finding.why == "may now: s3:DeleteObject on arn:aws:s3:::lake/*"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (allow("s3:*", "arn:aws:s3:::lake/*"), "(every action)"),
        (allow("s3:GetObject", "*"), "(every resource)"),
        (allow("s3:GetObject", "arn:aws:s3:::*"), "s3:GetObject on arn:aws:s3:::*"),
    ],
)
def test_should_see_a_wildcard_as_wider(statement: dict[str, Any], words: str) -> None:
    narrow = allow("s3:GetObject", "arn:aws:s3:::lake/*")
    assert words in only({"P": role_policy(narrow)}, {"P": role_policy(narrow, statement)}).why
    assert found({"P": role_policy(narrow, statement)}, {"P": role_policy(narrow)}) == []


def test_should_see_that_a_condition_is_gone() -> None:
    narrow = allow("s3:GetObject", "*", Condition={"StringEquals": {"aws:PrincipalTag/team": "risk"}})
    finding = only({"P": role_policy(narrow)}, {"P": role_policy(allow("s3:GetObject", "*"))})
    assert "s3:GetObject on *" in finding.why
    assert "if" not in finding.why


def test_should_not_take_a_statement_that_moves_for_a_wider_one() -> None:
    one, other = allow("s3:GetObject", "arn:a"), allow("kms:Decrypt", "arn:k")
    before = {"P": role_policy(one, other)}
    after = {"P": role_policy(one), "Q": role_policy(other)}
    assert found(before, after) == []


def test_should_not_take_changed_code_for_a_wider_permission() -> None:
    def reading(digest: str) -> dict[str, Any]:
        bucket = "arn:aws:s3:::cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"
        return role_policy(allow("s3:GetObject", {"Fn::Sub": f"{bucket}/{digest * 64}.py"}))

    assert found({"P": reading("a")}, {"P": reading("b")}) == []


def test_should_see_who_may_take_a_role_on() -> None:
    def role(*principals: str) -> dict[str, Any]:
        statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": list(principals)}}
        return {
            "Type": "AWS::IAM::Role",
            "Properties": {"AssumeRolePolicyDocument": {"Statement": [statement]}},
        }

    finding = only({"R": role("arn:a")}, {"R": role("arn:a", "arn:aws:iam::999999999999:root")})
    assert finding.resource == "R (its trust)"
    assert "AWS:arn:aws:iam::999999999999:root" in finding.why


def test_should_see_a_boundary_or_a_denial_that_is_gone_and_a_managed_policy_that_came() -> None:
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
    before = {
        "P": role_policy(allow("s3:GetObject", "arn:a"), deny),
        "R": {"Type": "AWS::IAM::Role", "Properties": {"PermissionsBoundary": "arn:boundary"}},
    }
    after = {
        "P": role_policy(allow("s3:GetObject", "arn:a")),
        "R": {
            "Type": "AWS::IAM::Role",
            "Properties": {"ManagedPolicyArns": ["arn:aws:iam::aws:policy/Admin"]},
        },
    }
    words = " | ".join(f.why for f in found(before, after))
    assert "is no longer denied: s3:* on *" in words
    assert "arn:aws:iam::aws:policy/Admin" in words


def test_should_see_a_bucket_that_is_opened_to_everybody() -> None:
    def policy(principal: Any) -> dict[str, Any]:
        statement = {**allow("s3:GetObject", "arn:aws:s3:::lake/*"), "Principal": principal}
        properties = {"Bucket": {"Ref": "Data"}, "PolicyDocument": {"Statement": [statement]}}
        return {"Type": "AWS::S3::BucketPolicy", "Properties": properties}

    finding = only({"P": policy({"AWS": "arn:a"})}, {"P": policy("*")})
    assert finding.resource == "Data"
    assert "(everybody)" in finding.why


def test_should_see_a_function_that_others_may_call() -> None:
    permission = {
        "Type": "AWS::Lambda::Permission",
        "Properties": {"FunctionName": {"Ref": "F"}, "Action": "lambda:InvokeFunction", "Principal": "*"},
    }
    service = {**permission["Properties"], "Principal": "s3.amazonaws.com"}
    [finding] = [
        f
        for f in found({"P": {**permission, "Properties": service}}, {"P": permission})
        if f.kind == "access"
    ]
    assert "(everybody)" in finding.why


# -- network -------------------------------------------------------------------------------------------------


def group(*rules: Mapping[str, Any]) -> dict[str, Any]:
    return {"Type": "AWS::EC2::SecurityGroup", "Properties": {"SecurityGroupIngress": list(rules)}}


def test_should_see_a_rule_that_lets_the_internet_in() -> None:
    inside = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": "10.0.0.0/16"}
    finding = only({"G": group(inside)}, {"G": group(inside, {**inside, "CidrIp": "0.0.0.0/0"})})
    assert finding.kind == "network"
    assert finding.why == "G lets in 0.0.0.0/0 (the whole internet) at tcp 443"


def test_should_not_take_a_rule_that_moves_for_a_new_one() -> None:
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": "10.0.0.0/16"}
    alone = {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": {"GroupId": {"Ref": "G"}, **rule}}
    assert found({"G": group(rule)}, {"G": group(), "R": alone}) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            {
                "Type": "AWS::S3::Bucket",
                "Properties": {"PublicAccessBlockConfiguration": {"BlockPublicAcls": True}},
            },
            {
                "Type": "AWS::S3::Bucket",
                "Properties": {"PublicAccessBlockConfiguration": {"BlockPublicAcls": False}},
            },
            "PublicAccessBlockConfiguration.BlockPublicAcls was true and is false",
        ),
        (
            {"Type": "AWS::EC2::Subnet", "Properties": {}},
            {"Type": "AWS::EC2::Subnet", "Properties": {"MapPublicIpOnLaunch": True}},
            "instances in it get public addresses",
        ),
        (
            {"Type": "AWS::Lambda::Function", "Properties": {"VpcConfig": {"SubnetIds": ["a"]}}},
            {"Type": "AWS::Lambda::Function", "Properties": {}},
            "and is gone",
        ),
    ],
)
def test_should_see_a_door_that_opens(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    [finding] = [f for f in found({"X": before}, {"X": after}) if f.kind == "network"]
    assert words in finding.why


def test_should_see_a_way_to_the_internet() -> None:
    gateway = {"Type": "AWS::EC2::InternetGateway", "Properties": {}}
    assert only({}, {"I": gateway}).why == "a way to and from the internet"


# -- the whole -----------------------------------------------------------------------------------------------


def test_should_find_nothing_in_an_app_that_did_not_change() -> None:
    resources = {"Data": KEPT, "P": role_policy(allow("s3:GetObject", "*")), "G": group()}
    whole = compare([stack(resources)], [stack(resources)])
    assert whole.findings == ()
    assert "nothing is replaced, deleted, opened" in as_text(whole)


def test_should_sum_a_new_stack_up_and_say_which_ones_stay_behind() -> None:
    new = stack({"P": role_policy(allow(["s3:GetObject", "kms:Decrypt"], "arn:a"), allow("s3:*", "*"))})
    gone = Stack(id="Dev/Old", name="Dev-Old", template={"Resources": {"Data": KEPT}})
    whole = compare([gone], [new])
    words = [f.why for f in whole.findings]
    assert words == [
        "is new and may 3 things of kms, s3",
        "may now: s3:* on * (every action, every resource)",
    ]
    assert "Dev/Old: not in the app any more" in as_text(whole)


def test_should_say_the_same_as_text_json_and_page() -> None:
    before = {"Data": BUCKET, "P": role_policy(allow("s3:GetObject", "arn:a"))}
    after = {"P": role_policy(allow("s3:*", "arn:<a>"))}
    whole = compare([stack(before)], [stack(after)])
    document = json.loads(as_json(whole))
    assert document["counts"] == {"data-lost": 1, "access": 1}
    assert [f["kind"] for f in document["findings"]] == ["data-lost", "access"]
    page = as_html(whole, title="What this does")
    assert "arn:&lt;a&gt;" in page
    assert all(f.why.split(":")[0] in page for f in whole.findings)
    text = as_text(whole)
    assert text.index("DATA-LOST (1)") < text.index("ACCESS (1)")
    assert set(document["counts"]) <= set(KINDS)


def test_should_read_what_it_wrote(tmp_path: Path) -> None:
    stacks = (stack({"Data": KEPT}, account="1" * 12, region="eu-central-1", protected=True),)
    write_assembly(stacks, tmp_path)
    assert read_assembly(tmp_path) == stacks
    with pytest.raises(AssemblyError, match="is no cloud assembly"):
        read_assembly(tmp_path / "elsewhere")


class CloudFormation:
    """Answers as CloudFormation does for stacks that are there, are not, and may not be read."""

    def __init__(self, template: Any, refusal: str | None = None) -> None:
        self.template, self.refusal = template, refusal

    def describe_stacks(self, **asked: str) -> Any:
        from botocore.exceptions import ClientError

        if self.refusal is not None:
            raise ClientError({"Error": {"Code": "X", "Message": self.refusal}}, "DescribeStacks")
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "EnableTerminationProtection": True}]}

    def get_template(self, **asked: str) -> Any:
        assert asked == {"StackName": "Dev-Things", "TemplateStage": "Original"}
        return {"TemplateBody": self.template}


def test_should_compare_with_what_is_deployed() -> None:
    wanted = [stack({"Data": BUCKET})]
    [there] = deployed(wanted, lambda _: CloudFormation({"Resources": {"Data": KEPT}}))
    assert there.protected
    assert [f.kind for f in compare([there], wanted).findings] == ["protection", "protection", "protection"]
    assert deployed(wanted, lambda _: CloudFormation({}, "Stack with id Dev-Things does not exist")) == ()


def test_should_not_take_what_it_may_not_read_for_what_is_not_there() -> None:
    with pytest.raises(AssemblyError, match=r"Dev/Things: .*not authorized"):
        deployed([stack({})], lambda _: CloudFormation({}, "not authorized"))
