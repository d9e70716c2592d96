"""Each reach into ministack: what it leans on is there, and does what the bridge takes it to do.

What the deployed test app shows of the same reaches stands in ``test_deployment.py`` and ``test_iam.py``.
"""

from __future__ import annotations

import ast
import importlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rehearsal import ministack_bridge as bridge
from rehearsal.ministack_bridge import Check, server
from rehearsal.ministack_bridge._inside import CFN

ROOT = Path(__file__).resolve().parents[2]
ROOM = ROOT / "rehearsal" / "ministack_bridge"
ACCOUNT, REGION = "123456789012", "us-east-1"


@pytest.fixture(scope="module", autouse=True)
def _configured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """ministack reads its environment when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION", "TMPDIR"):
            patch.setenv(name, "")
        bridge.configure(port=1, account=ACCOUNT, region=REGION, state=str(tmp_path_factory.mktemp("tmp")))
        yield


def _reaches() -> list[tuple[str, str]]:
    """Return each (module, attribute) of ministack that the bridge's sources use."""
    trees = [ast.parse(path.read_text()) for path in sorted(ROOM.glob("*.py"))]
    constants = {"CFN": CFN}
    found: set[tuple[str, str]] = set()

    def module_of(node: ast.expr) -> str | None:
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module"):
            return None
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return name.value
        if isinstance(name, ast.Name):
            return constants.get(name.id)
        if isinstance(name, ast.JoinedStr) and all(
            isinstance(part, ast.Constant) or ast.unparse(part) == "{CFN}" for part in name.values
        ):
            parts = [part.value if isinstance(part, ast.Constant) else CFN for part in name.values]
            return "".join(map(str, parts))
        return None

    for function in [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        modules: dict[str, str] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                module = module_of(node.value)
                if module is not None:
                    modules[node.targets[0].id] = module
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                module = module_of(node.value)
                if module is None and isinstance(node.value, ast.Name):
                    module = modules.get(node.value.id)
                if module is not None and module.startswith("ministack."):
                    found.add((module, node.attr))
    return sorted(found)


def test_should_find_the_reaches() -> None:
    assert ("ministack.services.eventbridge", "_dispatch_event") in _reaches()
    assert len(_reaches()) > 40


@pytest.mark.parametrize(("module", "attribute"), _reaches())
def test_should_find_what_the_bridge_leans_on(module: str, attribute: str) -> None:
    assert hasattr(importlib.import_module(module), attribute)


def test_should_import_ministack_nowhere_else() -> None:
    importing = []
    for path in (ROOT / "rehearsal").rglob("*.py"):
        if path.is_relative_to(ROOM):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            importing += [path.name for name in names if name.split(".")[0] == "ministack"]
    assert importing == []


def test_should_say_which_version_it_is_pinned_to() -> None:
    assert f"pinned to {bridge.PINNED_VERSION}." in str(bridge.__doc__)
    assert f'"ministack=={bridge.PINNED_VERSION}"' in (ROOT / "pyproject.toml").read_text()


def test_should_refuse_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "version", lambda name: "9.9.9")
    with pytest.raises(
        RuntimeError, match=r"ministack 9\.9\.9 is installed, but the rehearsal reaches into 1\.5\.33"
    ):
        bridge.check_version()


def test_should_deliver_an_event_of_aws_by_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    seen: list[Any] = []
    monkeypatch.setattr(eventbridge, "_dispatch_event", lambda event, view: seen.append((event, view)))
    bridge.emit_event(
        source="aws.sagemaker",
        detail_type="Changed",
        detail={"at": datetime(2026, 1, 2, tzinfo=UTC)},
        resources=["arn"],
        account=ACCOUNT,
        region=REGION,
        time=datetime(2026, 1, 2, 3, tzinfo=UTC),
    )
    ((event, view),) = seen
    assert json.loads(event["Detail"]) == {"at": "2026-01-02T00:00:00+00:00"}
    assert event["Time"] == int(datetime(2026, 1, 2, 3, tzinfo=UTC).timestamp())
    assert eventbridge._matches_pattern_view(json.dumps({"source": ["aws.sagemaker"]}), view, "rule")
    assert not eventbridge._matches_pattern_view(json.dumps({"source": ["aws.glue"]}), view, "rule")


def _role(name: str, statements: list[dict[str, Any]], trust: dict[str, Any] | None = None) -> str:
    iam = importlib.import_module("ministack.services.iam")
    arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    with bridge.account_scope(ACCOUNT, REGION):
        iam._roles[name] = {
            "Arn": arn,
            "RoleName": name,
            "InlinePolicies": {"p": json.dumps({"Version": "2012-10-17", "Statement": statements})},
            "AttachedPolicies": [],
            "AssumeRolePolicyDocument": json.dumps(
                {"Version": "2012-10-17", "Statement": [trust] if trust else []}
            ),
        }
    return arn


def _decide(role: str, check: Check, service: str = "s3") -> bridge.Decision:
    known = bridge.role_policies(role)
    assert known is not None
    return bridge.decide(
        check,
        service=service,
        principal=f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.rsplit('/', 1)[-1]}/s",
        account=ACCOUNT,
        region=REGION,
        policies=known[0],
        boundary=known[1],
    )


def test_should_decide_by_the_roles_policies_and_name_the_grant() -> None:
    role = _role(
        "decided",
        [
            {"Effect": "Allow", "Action": "s3:List*", "Resource": "*"},
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/in/*"},
            {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/in/secret"},
        ],
    )
    allowed = _decide(role, Check(action="s3:GetObject", resource="arn:aws:s3:::b/in/x"))
    assert (allowed.allowed, allowed.grants) == (True, (("p", 1),))
    implicit = _decide(role, Check(action="s3:GetObject", resource="arn:aws:s3:::b/out/x"))
    assert (implicit.allowed, implicit.explicit_deny) == (False, False)
    denied = _decide(role, Check(action="s3:GetObject", resource="arn:aws:s3:::b/in/secret"))
    assert (denied.allowed, denied.explicit_deny) == (False, True)


def test_should_tell_conditions_the_tags_of_the_role() -> None:
    condition = {"StringEquals": {"aws:PrincipalTag/workload": ["parcels"]}}
    role = _role("tagged", [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}])
    iam = importlib.import_module("ministack.services.iam")
    known = bridge.role_policies(role)
    assert known is not None

    def decided() -> bool:
        return bridge.decide(
            Check(action="s3:GetObject", resource="arn:aws:s3:::b/x"),
            service="s3",
            principal=f"arn:aws:sts::{ACCOUNT}:assumed-role/tagged/s",
            account=ACCOUNT,
            region=REGION,
            policies=known[0],
            boundary=known[1],
            principal_tags=bridge.role_tags(role),
        ).allowed

    assert bridge.role_tags(role) == {}
    assert not decided()
    with bridge.account_scope(ACCOUNT, REGION):
        iam._roles["tagged"]["Tags"] = [{"Key": "workload", "Value": "parcels"}]
    assert decided()
    assert bridge.role_tags(f"arn:aws:iam::{ACCOUNT}:role/nobody") == {}


def test_should_keep_the_boundary_that_a_template_gives_a_role(monkeypatch: pytest.MonkeyPatch) -> None:
    provisioners = importlib.import_module("ministack.services.cloudformation.provisioners")
    iam = importlib.import_module("ministack.services.iam")
    monkeypatch.setattr(provisioners, "_RESOURCE_HANDLERS", dict(provisioners._RESOURCE_HANDLERS))
    bridge.keep_boundaries()
    handlers = provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"]
    arn = f"arn:aws:iam::{ACCOUNT}:policy/Bound"
    trust = {"Version": "2012-10-17", "Statement": []}
    plain = {"RoleName": "bounded", "AssumeRolePolicyDocument": trust}
    with bridge.account_scope(ACCOUNT, REGION):
        with pytest.raises(ValueError, match="policy/Bound does not exist or is not attachable"):
            handlers["create"]("R", {**plain, "PermissionsBoundary": arn}, "S")
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*"}]}
        iam._policies[arn] = {"Arn": arn, "Versions": {"v1": {"Document": json.dumps(document)}}}
        name, _ = handlers["create"]("R", {**plain, "PermissionsBoundary": arn}, "S")
        known = bridge.role_policies(f"arn:aws:iam::{ACCOUNT}:role/{name}")
        assert known is not None
        assert len(known[1]) == 1
        handlers["update"](name, {**plain, "PermissionsBoundary": arn}, plain, "S", "R")
    known = bridge.role_policies(f"arn:aws:iam::{ACCOUNT}:role/{name}")
    assert known is not None
    assert known[1] == []


def test_should_know_no_policies_of_a_role_that_is_not_there() -> None:
    assert bridge.role_policies(f"arn:aws:iam::{ACCOUNT}:role/nobody") is None


def test_should_know_whom_a_role_trusts() -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = _role("trusting", [], trust)
    assert bridge.trusts(role, "glue.amazonaws.com")
    assert not bridge.trusts(role, "lambda.amazonaws.com")
    assert bridge.trusts(role, "glue.amazonaws.com", tells_source=False)
    condition = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    careful = _role("careful", [], {**trust, "Condition": condition})
    assert bridge.trusts(careful, "glue.amazonaws.com")
    assert not bridge.trusts(careful, "glue.amazonaws.com", tells_source=False)


@pytest.mark.parametrize(
    ("method", "path", "headers", "query", "body", "expected"),
    [
        ("PUT", "/b/k", {}, {}, b"", ("s3:PutObject", "arn:aws:s3:::b/k")),
        ("GET", "/b", {}, {"list-type": ["2"], "prefix": ["p"]}, b"", ("s3:ListBucket", "arn:aws:s3:::b")),
        (
            "POST",
            "/",
            {"x-amz-target": "AmazonSSM.GetParameter"},
            {},
            b'{"Name": "/a/b"}',
            ("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/a/b"),
        ),
        (
            "POST",
            "/",
            {"x-amz-target": "Kinesis_20131202.PutRecords"},
            {},
            b'{"StreamName": "s", "Records": []}',
            ("kinesis:PutRecords", f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/s"),
        ),
        (
            "POST",
            "/schedules/s",
            {"x-amz-target": "scheduler"},
            {},
            b'{"GroupName": "g"}',
            ("scheduler:CreateSchedule", f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/g/s"),
        ),
        (
            "DELETE",
            "/schedules/s",
            {"x-amz-target": "scheduler"},
            {"groupName": ["g"]},
            b"",
            ("scheduler:DeleteSchedule", f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/g/s"),
        ),
    ],
)
def test_should_know_the_permission_that_a_request_needs(
    method: str,
    path: str,
    headers: dict[str, str],
    query: dict[str, list[str]],
    body: bytes,
    expected: tuple[str, str],
) -> None:
    scope = headers.get("x-amz-target", "AmazonS3").split(".")[0].removeprefix("Amazon").split("_")[0].lower()
    credential = (
        f"AWS4-HMAC-SHA256 Credential=AKIA/20260101/{REGION}/{scope}/aws4_request, SignedHeaders=host"
    )
    _, checks = bridge.checks_of(
        method,
        path,
        {"authorization": credential, "host": "127.0.0.1", **headers},
        query,
        body,
        account=ACCOUNT,
        region=REGION,
    )
    assert (checks[0].action, checks[0].resource) == expected


def test_should_carry_the_listed_prefix_into_the_conditions() -> None:
    credential = f"AWS4-HMAC-SHA256 Credential=AKIA/20260101/{REGION}/s3/aws4_request, SignedHeaders=host"
    _, (check,) = bridge.checks_of(
        "GET",
        "/b",
        {"authorization": credential, "host": "127.0.0.1"},
        {"list-type": ["2"], "prefix": ["in/"]},
        b"",
        account=ACCOUNT,
        region=REGION,
    )
    condition = {"StringLike": {"s3:prefix": "in/*"}}
    statement = {
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": "arn:aws:s3:::b",
        "Condition": condition,
    }
    assert _decide(_role("lister", [statement]), check).allowed
    statement["Condition"] = {"StringLike": {"s3:prefix": "out/*"}}
    assert not _decide(_role("lister", [statement]), check).allowed


def test_should_refuse_in_the_words_of_the_service() -> None:
    check = Check(action="s3:GetObject", resource="arn:aws:s3:::b/k")
    decision = bridge.Decision(allowed=False, explicit_deny=False, resource_policy_arn="", grants=())
    principal = f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s"
    status, _, body = bridge.access_denied(
        check, decision, service="s3", principal=principal, headers={}, request_id="id"
    )
    assert status == 403
    assert (
        f"User: {principal} is not authorized to perform: s3:GetObject on resource: "
        '"arn:aws:s3:::b/k" because no identity-based policy allows the s3:GetObject action'
    ) in body.decode()


def test_should_evaluate_conditions_with_every_function() -> None:
    bridge.correct_conditions()
    engine = importlib.import_module("ministack.services.cloudformation.engine")
    template = {
        "Mappings": {"M": {"a": {"b": "yes"}}},
        "Conditions": {
            "Empty": {"Fn::Equals": ["", {"Fn::Join": ["", {"Ref": "List"}]}]},
            "Mapped": {"Fn::Equals": ["yes", {"Fn::FindInMap": ["M", "a", "b"]}]},
            "Both": {"Fn::And": [{"Condition": "Empty"}, {"Fn::Not": [{"Condition": "Mapped"}]}]},
        },
    }
    params = {"List": {"Value": "", "Type": "CommaDelimitedList", "NoEcho": False}}
    with bridge.account_scope(ACCOUNT, REGION):
        assert engine._evaluate_conditions(template, params) == {"Empty": True, "Mapped": True, "Both": False}


def test_should_give_functions_the_credentials_of_their_role() -> None:
    runtime = importlib.import_module("ministack.core.lambda_runtime")
    functions = importlib.import_module("ministack.services.lambda_svc")
    before = runtime.execution_credentials
    try:
        bridge.use_lambda_credentials(lambda role, name: {"AWS_ACCESS_KEY_ID": f"{role}/{name}"})
        for module in (runtime, functions):
            given = module.execution_credentials({"Role": "r", "FunctionName": "f"})
            assert given == {"AWS_ACCESS_KEY_ID": "r/f"}
    finally:
        runtime.execution_credentials = functions.execution_credentials = before


def test_should_run_an_image_function_as_its_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = importlib.import_module("ministack.services.lambda_svc")
    monkeypatch.setattr(functions, "_execute_function_docker", functions._execute_function_docker)
    seen: list[Any] = []
    monkeypatch.setattr(
        functions, "_execute_function_warm", lambda func, event, request: seen.append(func) or "ok"
    )
    bridge.use_image_functions(
        lambda config: bridge.FunctionCode(zip=b"zip", handler="a.b", environment={"FROM": "image"})
    )
    config = {
        "FunctionArn": "arn",
        "FunctionName": "f",
        "PackageType": "Image",
        "ImageUri": "i",
        "Environment": {"Variables": {"OWN": "1"}},
    }
    assert functions._execute_function_docker({"config": config}, {}, "id") == "ok"
    assert seen[0]["code_zip"] == b"zip"
    assert seen[0]["config"]["Handler"] == "a.b"
    assert seen[0]["config"]["Environment"]["Variables"] == {"FROM": "image", "OWN": "1"}


def test_should_fail_an_image_function_that_cannot_be_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = importlib.import_module("ministack.services.lambda_svc")
    monkeypatch.setattr(functions, "_execute_function_docker", functions._execute_function_docker)

    def fail(config: Any) -> bridge.FunctionCode:
        raise ValueError("no handler")

    bridge.use_image_functions(fail)
    config = {"FunctionArn": "arn2", "FunctionName": "f", "PackageType": "Image", "ImageUri": "i"}
    result = functions._execute_function_docker({"config": config}, {}, "id")
    assert result["error"] is True
    assert result["body"]["errorMessage"] == "no handler"


def test_should_let_only_what_was_given_back_be_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sqs = importlib.import_module("ministack.services.sqs")
    now = time.time()

    def message(receive_count: int, visible_at: float) -> dict[str, Any]:
        return {"receive_count": receive_count, "visible_at": visible_at}

    given_back = message(1, now + 350)  # received ten seconds ago
    in_hand = message(1, now + 359.5)
    delayed = message(0, now + 60)
    queue = {"attributes": {"VisibilityTimeout": "360"}, "messages": [given_back, in_hand, delayed]}
    monkeypatch.setattr(sqs._queues, "_data", {"q": queue})

    assert bridge.see_again(received_before=now - 3) == 1
    assert given_back["visible_at"] <= now
    assert (in_hand["visible_at"], delayed["visible_at"]) == (now + 359.5, now + 60)
