"""What personas may do beside reading tables, the boundary they cannot leave, and the calls that show it."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any

import aws_cdk as cdk
import botocore.session
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import ROOT, Assembly, Template, resources, synthesise_stacks
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.governance.personas import PERSONAS
from ml_lifecycle.security import PersonaWork, rights, show_role
from ml_lifecycle.security.job_roles import KINDS
from ml_lifecycle.security.rights import BOUNDARY_ACTIONS, FORBIDDEN, FORBIDDEN_ACTIONS, Call

OWN = "arn:aws:iam::111122223333:policy/Everyone"


def _work(stack: cdk.Stack, **options: Any) -> None:
    lake = DataLake(stack, "Lake", database_prefix="t")
    roles = {
        persona: iam.Role(stack, persona.title().replace("_", ""), assumed_by=iam.AccountRootPrincipal())
        for persona in PERSONAS
    }
    PersonaWork(
        stack,
        "Work",
        roles=roles,
        environment_name="t",
        stack_prefix="T",
        artifacts=lake.artifacts,
        **options,
    )
    show_role(roles["auditor"], "training")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("work"),
        {
            "Own": _work,
            "Theirs": lambda stack: _work(stack, boundary_arn=OWN),
            "InStudio": lambda stack: _work(stack, studio=True),
        },
    )


def _actions(statement: Template) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else list(found)


def _granted(template: Template, persona: str) -> set[str]:
    name = persona.title().replace("_", "")
    (policy,) = [
        policy["Properties"]
        for key, policy in resources(template, "AWS::IAM::ManagedPolicy").items()
        if key.startswith(f"Work{name}")
    ]
    return {action for s in policy["PolicyDocument"]["Statement"] for action in _actions(s)}


def test_should_keep_every_persona_within_the_boundary(templates: dict[str, Template]) -> None:
    template = templates["Own"]
    boundaries = {
        role["Properties"]["PermissionsBoundary"]["Ref"]
        for key, role in resources(template, "AWS::IAM::Role").items()
        if not key.startswith("Lake")
    }
    (boundary,) = boundaries
    allow, deny = template["Resources"][boundary]["Properties"]["PolicyDocument"]["Statement"]
    assert (allow["Effect"], deny["Effect"]) == ("Allow", "Deny")
    assert not [a for a in _actions(allow) if a in ("*", "iam:*", "kms:*", "s3:*", "cloudtrail:*", "sts:*")]
    never = ("iam:CreateUser", "iam:PassRole", "kms:ScheduleKeyDeletion", "cloudtrail:StopLogging")
    for action in (*never, "s3:DeleteObjectVersion", "sts:AssumeRole", "lakeformation:PutDataLakeSettings"):
        assert any(fnmatchcase(action, pattern) for pattern in _actions(deny)), action


def test_should_let_services_keep_grants_in_studio_and_nobody_else(templates: dict[str, Template]) -> None:
    (boundary,) = [
        policy["Properties"]["PolicyDocument"]["Statement"]
        for key, policy in resources(templates["InStudio"], "AWS::IAM::ManagedPolicy").items()
        if key.startswith("WorkBoundary")
    ]
    allow, never, grants = boundary
    assert {"kms:CreateGrant", "sagemaker-mlflow:*"} <= set(_actions(allow))
    assert set(_actions(never)) == set(FORBIDDEN_ACTIONS) - {"kms:CreateGrant"}
    assert (grants["Effect"], grants["Action"]) == ("Deny", "kms:CreateGrant")
    assert grants["Condition"] == {"BoolIfExists": {"kms:GrantIsForAWSResource": "false"}}


def test_should_let_nobody_train_register_and_approve_alike(templates: dict[str, Template]) -> None:
    granted = {persona: _granted(templates["Own"], persona) for persona in PERSONAS}
    who = {
        action: {persona for persona in PERSONAS if action in granted[persona]}
        for action in (
            "sagemaker:StartPipelineExecution",
            "sagemaker:CreateModelPackage",
            "sagemaker:UpdateModelPackage",
            "sagemaker:InvokeEndpoint",
            "iam:ListRoles",
        )
    }
    assert who == {
        "sagemaker:StartPipelineExecution": {"data_scientist", "mlops_engineer"},
        "sagemaker:CreateModelPackage": {"data_scientist"},
        "sagemaker:UpdateModelPackage": {"mlops_engineer"},
        "sagemaker:InvokeEndpoint": {"mlops_engineer"},
        "iam:ListRoles": {"auditor"},
    }
    reads = re.compile(r"\w+:(Get|List|Describe|Search|Lookup|Filter)")
    assert [a for a in sorted(granted["auditor"]) if not reads.match(a)] == []


def test_should_register_only_what_waits_for_approval(templates: dict[str, Template]) -> None:
    found = [
        statement["Condition"]
        for policy in resources(templates["Own"], "AWS::IAM::ManagedPolicy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "sagemaker:CreateModelPackage" in _actions(statement)
    ]
    assert found == [{"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}}]


def test_should_take_an_organisations_boundary_and_deny_the_rest_itself(
    templates: dict[str, Template],
) -> None:
    template = templates["Theirs"]
    roles = [r for key, r in resources(template, "AWS::IAM::Role").items() if not key.startswith("Lake")]
    assert {role["Properties"]["PermissionsBoundary"] for role in roles} == {OWN}
    (denied,) = [
        policy["Properties"]
        for policy in resources(template, "AWS::IAM::ManagedPolicy").values()
        if policy["Properties"]["PolicyDocument"]["Statement"][0]["Effect"] == "Deny"
    ]
    assert len(denied["Roles"]) == len(PERSONAS)
    assert sorted(_actions(denied["PolicyDocument"]["Statement"][0])) == sorted(FORBIDDEN_ACTIONS)


def test_should_grant_nothing_beyond_the_boundary() -> None:
    beyond = [
        action
        for right in rights("t", "T")
        for action in right.actions
        if not any(fnmatchcase(action, pattern) for pattern in BOUNDARY_ACTIONS)
        or any(fnmatchcase(action, pattern) for pattern in FORBIDDEN_ACTIONS)
    ]
    assert beyond == []


def _calls() -> list[tuple[str, Call]]:
    return [
        *((right.id, right.call) for right in rights("t", "T")),
        *FORBIDDEN.items(),
        *((f"{kind} {name}", call) for kind, one in KINDS.items() for name, call in one.let.items()),
        *((f"{kind} not {name}", call) for kind, one in KINDS.items() for name, call in one.refused.items()),
    ]


@pytest.mark.parametrize(("name", "call"), _calls(), ids=[name for name, _ in _calls()])
def test_should_show_rights_by_calls_that_aws_knows(name: str, call: Call) -> None:
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model(call.service)
    operation = model.operation_model(call.operation)
    if operation.input_shape is not None:
        # What an SDK draws itself.
        filled = json.loads(re.sub(r"\$\{\w+\}", "0" * 20, json.dumps(dict(call.parameters))))
        tokens = dict.fromkeys(operation.idempotent_members, "0" * 32)
        report = ParamValidator().validate({**tokens, **filled}, operation.input_shape)
        assert not report.has_errors(), report.generate_report()


def test_should_carry_the_calls_in_the_template(templates: dict[str, Template]) -> None:
    carried = templates["Own"]["Metadata"]["MLLifecycle::Rights"]
    assert [call["id"] for call in carried["forbidden"]] == list(FORBIDDEN)
    assert {call["id"]: call["personas"] for call in carried["allowed"]} == {
        right.id: list(right.personas) for right in rights("t", "T")
    }
    (shown,) = [
        role["Metadata"]["MLLifecycle::JobRole"]
        for role in resources(templates["Own"], "AWS::IAM::Role").values()
        if "MLLifecycle::JobRole" in role.get("Metadata", {})
    ]
    assert shown["kind"] == "training"
    assert set(shown["let"]) == set(KINDS["training"].let)


def test_should_refuse_an_unknown_kind_of_role() -> None:
    stack = cdk.Stack(cdk.App(), "Kinds")
    role = iam.Role(stack, "Role", assumed_by=iam.AccountRootPrincipal())
    with pytest.raises(ValueError, match=r"kind must be one of pipeline, processing.*got 'cook'"):
        show_role(role, "cook")  # type: ignore[arg-type]


def test_should_say_in_the_docs_who_may_do_what() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    rows = {
        cells[0]: cells[1:]
        for line in text.splitlines()
        if line.startswith("| ") and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 5
    }
    for right in rights("t", "T"):
        expected = ["yes" if persona in right.personas else "" for persona in PERSONAS]
        assert rows.get(right.title) == expected, right.title


def test_should_fit_iams_quota_in_every_environment(assembly: Assembly) -> None:
    """6,144 characters a managed policy without white space, 10 managed policies a role (IAM quotas)."""
    sizes = {}
    for stack, template in assembly.templates().items():
        attached: dict[str, int] = {}
        for name, policy in resources(template, "AWS::IAM::ManagedPolicy").items():
            sizes[f"{stack} {name}"] = _size(policy["Properties"]["PolicyDocument"])
            for role in policy["Properties"].get("Roles", []):
                attached[json.dumps(role)] = attached.get(json.dumps(role), 0) + 1
        assert all(count <= 10 for count in attached.values())
    assert any("Work" in name for name in sizes)
    assert {name: size for name, size in sizes.items() if size > 6_144} == {}


def _size(document: Any) -> int:
    def text(node: Any) -> Any:
        if isinstance(node, dict) and set(node) == {"Fn::Join"}:
            return "".join(str(text(part)) for part in node["Fn::Join"][1])
        if isinstance(node, dict) and set(node) == {"Ref"}:
            return {"AWS::Partition": "aws-us-gov", "AWS::Region": "ap-southeast-1"}.get(
                node["Ref"], "1" * 12
            )
        if isinstance(node, dict):
            return {key: text(value) for key, value in node.items()}
        return [text(part) for part in node] if isinstance(node, list) else node

    return len(json.dumps(text(document), separators=(",", ":")))


def test_should_keep_personas_of_the_app_within_their_boundary(assembly: Assembly) -> None:
    template = assembly.template("Dev/Governance")
    personas = {
        key
        for key, role in resources(template, "AWS::IAM::Role").items()
        if "PermissionsBoundary" in role["Properties"]
    }
    assert len(personas) == len(PERSONAS)
    beyond = {
        action
        for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
        for policy in resources(template, kind).values()
        if {role.get("Ref") for role in policy["Properties"].get("Roles", [])} & personas
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
        for action in _actions(statement)
        if not any(fnmatchcase(action, pattern) for pattern in BOUNDARY_ACTIONS)
    }
    assert beyond == set(), "granted, but beyond the boundary"
