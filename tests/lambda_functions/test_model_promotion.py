"""The promotion function: what comes into service, what is refused, what is undone; twice, late, at once."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.response import StreamingBody
from botocore.stub import Stubber
from model_promotion import handler as entry
from model_promotion.aws import AwsCloud
from model_promotion.errors import BadMessageError, MisconfiguredError, TransientError
from model_promotion.logic import Event, Package, ParameterVersion, Stack, handle
from model_promotion.settings import Acceptance, Settings

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GROUP = "dev-claims-fraud"
STACK = "Dev-ClaimsFraudServing"
STACK_ARN = f"arn:aws:cloudformation:us-east-1:111122223333:stack/{STACK}/0f1e"
PARAMETER = "/ml-lifecycle/dev/claims-fraud/approved-model-package"
SETTINGS = Settings(
    parameter_name=PARAMETER,
    stack_name=STACK,
    group_name=GROUP,
    acceptance=Acceptance(metric="auc", at_least=0.75),
)


def package_arn(version: int, group: str = GROUP) -> str:
    return f"arn:aws:sagemaker:us-east-1:111122223333:model-package/{group}/{version}"


ONE, TWO, THREE = package_arn(1), package_arn(2), package_arn(3)


@dataclass
class FakeCloud:
    """AWS as far as promotion sees it, with CloudFormation's rule of one update at a time."""

    packages: dict[str, Package] = field(default_factory=dict)
    evaluations: dict[str, object] = field(default_factory=dict)
    versions: list[ParameterVersion] = field(
        default_factory=lambda: [ParameterVersion(value="none", modified=T0)]
    )
    status: str = "CREATE_COMPLETE"
    reason: str = ""
    serves: str = "none"
    attempted: str = "none"
    updated: datetime | None = None
    clock: datetime = T0
    updates: int = 0
    rejections: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    crash_before: str | None = None
    failed: tuple[str, ...] = ("Endpoint: alarm Dev-ClaimsFraudServing-Errors is in ALARM",)

    def approve(self, arn: str, auc: object = 0.8) -> dict[str, Any]:
        """Approve a package and return the event that says so."""
        uri = f"s3://artifacts/{arn.rsplit('/', 1)[1]}/evaluation.json"
        event = approval(arn, self.tick())
        self.packages[arn] = Package(
            arn=arn, approval_status="Approved", evaluation_uri=uri, modified=self.clock
        )
        self.evaluations[uri] = {"metrics": {"auc": {"value": auc}}}
        return event

    def tick(self) -> datetime:
        with self.lock:
            self.clock += timedelta(minutes=1)
            return self.clock

    def finish(self, *, succeeded: bool) -> dict[str, Any]:
        """End the running update and return the event of a rollback."""
        assert self.status == "UPDATE_IN_PROGRESS"
        if succeeded:
            self.serves, self.status, self.reason = self.attempted, "UPDATE_COMPLETE", ""
        else:
            self.status = "UPDATE_ROLLBACK_COMPLETE"
            self.reason = "The following resource(s) failed to update: [Endpoint]"
        return rollback(self.tick())

    # --- the protocol ---

    def _maybe_crash(self, call: str) -> None:
        if self.crash_before == call:
            self.crash_before = None
            raise TransientError(f"no connection before {call}")

    def package(self, arn: str) -> Package | None:
        return self.packages.get(arn)

    def approved(self, group_name: str) -> Sequence[str]:
        assert group_name == GROUP
        return sorted((a for a, p in self.packages.items() if p.approval_status == "Approved"), reverse=True)

    def reject(self, arn: str, reason: str) -> None:
        self._maybe_crash("reject")
        with self.lock:
            self.packages[arn] = replace(self.packages[arn], approval_status="Rejected")
            self.rejections[arn] = reason

    def evaluation(self, uri: str) -> object | None:
        return self.evaluations.get(uri)

    def history(self, parameter_name: str) -> Sequence[ParameterVersion]:
        assert parameter_name == PARAMETER
        with self.lock:
            return list(self.versions)

    def put(self, parameter_name: str, value: str, description: str) -> None:
        assert parameter_name == PARAMETER
        self._maybe_crash("put")
        with self.lock:
            self.versions.append(ParameterVersion(value=value, modified=self.tick(), description=description))

    def stack(self, name: str, parameter_name: str, challenger_name: str | None = None) -> Stack:
        assert (name, parameter_name, challenger_name) == (STACK, PARAMETER, None)
        with self.lock:
            return Stack(
                status=self.status,
                status_reason=self.reason,
                updated=self.updated,
                parameters=("ApprovedModel", "Other"),
                serves=self.attempted if self.status == "UPDATE_IN_PROGRESS" else self.serves,
            )

    def failures(self, stack_name: str, since: datetime | None) -> Sequence[str]:
        assert (stack_name, since) == (STACK, self.updated)
        return self.failed

    def now(self) -> datetime:
        raise AssertionError("nothing is tried here")

    def schedule(self, name: str, when: datetime, body: Mapping[str, object]) -> None:
        raise AssertionError("nothing is tried here")

    def alarms(self) -> Mapping[str, bool]:
        raise AssertionError("nothing is tried here")

    def requests(self, since: datetime, until: datetime) -> int:
        raise AssertionError("nothing is tried here")

    def update(self, stack_name: str, parameters: Sequence[str]) -> bool:
        assert (stack_name, tuple(parameters)) == (STACK, ("ApprovedModel", "Other"))
        self._maybe_crash("update")
        with self.lock:
            if self.status.endswith("IN_PROGRESS"):
                raise TransientError("stack is in UPDATE_IN_PROGRESS state and can not be updated")
            value = self.versions[-1].value
            if value == self.serves:
                return False
            self.attempted, self.status, self.updated = value, "UPDATE_IN_PROGRESS", self.tick()
            self.updates += 1
            return True

    @property
    def parameter(self) -> str:
        return self.versions[-1].value


def approval(arn: str, time: datetime, status: str = "Approved", group: str = GROUP) -> dict[str, Any]:
    return {
        "id": f"event-{time:%H%M}",
        "detail-type": "SageMaker Model Package State Change",
        "source": "aws.sagemaker",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "detail": {"ModelPackageGroupName": group, "ModelPackageArn": arn, "ModelApprovalStatus": status},
    }


def rollback(
    time: datetime, status: str = "UPDATE_ROLLBACK_COMPLETE", stack: str = STACK_ARN
) -> dict[str, Any]:
    return {
        "id": f"event-{time:%H%M}",
        "detail-type": "CloudFormation Stack Status Change",
        "source": "aws.cloudformation",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "detail": {"stack-id": stack, "status-details": {"status": status, "status-reason": ""}},
    }


def act(cloud: FakeCloud, event: dict[str, Any]) -> str:
    return handle(Event.parse(event), cloud, SETTINGS).action


@pytest.fixture
def cloud() -> FakeCloud:
    """Package 1 is in service."""
    cloud = FakeCloud()
    assert act(cloud, cloud.approve(ONE)) == "promoted"
    cloud.finish(succeeded=True)
    assert cloud.serves == ONE
    return cloud


# --- approvals ---


def test_should_write_the_parameter_and_update_the_stack_for_an_approved_package(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    cloud.packages[TWO] = replace(
        cloud.packages[TWO], approved_by="arn:aws:iam::1:role/Ann", reason="better\nauc"
    )
    outcome = handle(Event.parse(event), cloud, SETTINGS)

    assert (outcome.action, outcome.package, outcome.fields) == ("promoted", TWO, {"replaces": ONE})
    assert cloud.parameter == TWO
    described = cloud.versions[-1].description
    assert described.startswith("approved_at=2026-11-21T12:0")
    assert " by arn:aws:iam::1:role/Ann: better auc (event " in described
    assert (cloud.status, cloud.attempted) == ("UPDATE_IN_PROGRESS", TWO)


def test_should_promote_once_when_the_same_approval_comes_twice(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    act(cloud, event)
    cloud.finish(succeeded=True)
    before = (cloud.updates, len(cloud.versions))

    assert act(cloud, event) == "ignored"
    assert (cloud.updates, len(cloud.versions)) == before


def test_should_wait_while_the_stack_is_busy_and_write_nothing(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    event = cloud.approve(THREE)

    with pytest.raises(TransientError, match=f"stack {STACK} is UPDATE_IN_PROGRESS"):
        act(cloud, event)
    assert cloud.parameter == TWO

    cloud.finish(succeeded=True)
    assert act(cloud, event) == "promoted"
    assert cloud.parameter == THREE


def test_should_end_with_the_latest_approval_when_two_arrive_in_the_wrong_order(cloud: FakeCloud) -> None:
    earlier, later = cloud.approve(TWO), cloud.approve(THREE)

    assert act(cloud, later) == "promoted"
    cloud.finish(succeeded=True)

    assert act(cloud, earlier) == "ignored"
    assert cloud.parameter == THREE


@pytest.mark.parametrize("call", ["evaluation", "put", "update"])
def test_should_end_with_the_latest_approval_when_both_are_handled_at_once(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    earlier, later = cloud.approve(TWO), cloud.approve(THREE)
    carry_out, overtaken = getattr(cloud, call), []

    def overtaking(*given: Any) -> Any:
        """The later approval is handled from its beginning to its end right before this call."""
        if not overtaken:
            overtaken.append(THREE)
            try:
                act(cloud, later)
            except TransientError:
                overtaken.append("seen again")
        return carry_out(*given)

    monkeypatch.setattr(cloud, call, overtaking)
    waiting = []
    try:
        act(cloud, earlier)
    except TransientError:
        waiting.append(earlier)
    if "seen again" in overtaken:
        waiting.append(later)
    cloud.finish(succeeded=True)
    for event in waiting:
        act(cloud, event)
    if cloud.status == "UPDATE_IN_PROGRESS":
        cloud.finish(succeeded=True)

    assert cloud.parameter == THREE
    assert cloud.serves == THREE


def test_should_go_back_to_an_older_package_that_is_approved_again(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    cloud.finish(succeeded=True)

    assert act(cloud, cloud.approve(ONE)) == "promoted"
    assert cloud.parameter == ONE


def test_should_update_the_stack_after_a_crash_between_parameter_and_update(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    cloud.crash_before = "update"
    with pytest.raises(TransientError):
        act(cloud, event)
    assert cloud.parameter == TWO
    written = len(cloud.versions)

    assert act(cloud, event) == "promoted"
    assert len(cloud.versions) == written
    assert cloud.attempted == TWO


def test_should_update_after_such_a_crash_even_when_an_earlier_update_had_been_rolled_back(
    cloud: FakeCloud,
) -> None:
    act(cloud, cloud.approve(TWO))
    act(cloud, cloud.finish(succeeded=False))
    event = cloud.approve(THREE)
    cloud.crash_before = "update"
    with pytest.raises(TransientError):
        act(cloud, event)

    assert act(cloud, event) == "promoted"
    assert cloud.packages[THREE].approval_status == "Approved"


def test_should_ignore_a_package_of_another_group(cloud: FakeCloud) -> None:
    other = package_arn(1, "dev-something-else")
    cloud.packages[other] = Package(arn=other, approval_status="Approved", evaluation_uri=None)

    assert act(cloud, approval(other, cloud.tick(), group="dev-something-else")) == "ignored"
    assert cloud.parameter == ONE
    assert cloud.rejections == {}


@pytest.mark.parametrize("status", ["Rejected", "PendingManualApproval"])
def test_should_ignore_an_event_that_is_no_approval(cloud: FakeCloud, status: str) -> None:
    cloud.approve(TWO)

    assert act(cloud, approval(TWO, cloud.tick(), status=status)) == "ignored"
    assert cloud.parameter == ONE


def test_should_ignore_a_package_whose_approval_was_taken_back_meanwhile(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    cloud.packages[TWO] = replace(cloud.packages[TWO], approval_status="Rejected")

    assert act(cloud, event) == "ignored"
    assert cloud.parameter == ONE


def test_should_ignore_a_package_that_was_deleted_meanwhile(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    del cloud.packages[TWO]

    assert act(cloud, event) == "ignored"


@pytest.mark.parametrize(
    ("evaluation", "why"),
    [
        ({"metrics": {"auc": {"value": 0.7499}}}, "auc 0.7499 is below 0.75"),
        ({"metrics": {"auc": {"value": float("nan")}}}, "auc is nan"),
        ({"metrics": {"auc": {"value": "0.9"}}}, "has no number at metrics.auc.value"),
        ({"metrics": {"auc": {"value": True}}}, "has no number at metrics.auc.value"),
        ({"metrics": {"f1": {"value": 0.9}}}, "has no number at metrics.auc.value"),
        ([], "has no number at metrics.auc.value"),
        (None, "there is no evaluation at s3://artifacts/2/evaluation.json"),
    ],
)
def test_should_refuse_a_package_whose_evaluation_does_not_carry_it_and_say_why_in_the_registry(
    cloud: FakeCloud, evaluation: object, why: str
) -> None:
    event = cloud.approve(TWO)
    cloud.evaluations["s3://artifacts/2/evaluation.json"] = evaluation

    assert act(cloud, event) == "refused"
    assert cloud.packages[TWO].approval_status == "Rejected"
    assert cloud.rejections[TWO].startswith("Not promoted: ")
    assert why in cloud.rejections[TWO]
    assert (cloud.parameter, cloud.serves) == (ONE, ONE)


def test_should_refuse_a_package_without_model_quality_statistics(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    cloud.packages[TWO] = replace(cloud.packages[TWO], evaluation_uri=None)

    assert act(cloud, event) == "refused"
    assert "ModelMetrics.ModelQuality.Statistics" in cloud.rejections[TWO]


@pytest.mark.parametrize(
    ("acceptance", "refused"),
    [
        ({"verdict": "accepted"}, None),
        ({"verdict": "rejected", "why": "DPPL of insured_sex 0.31 is above 0.2"}, "DPPL of insured_sex"),
        ({"verdict": "rejected"}, "its evaluation says rejected: no reason given"),
    ],
)
def test_should_refuse_what_the_evaluation_refused_for_another_reason_than_its_metric(
    cloud: FakeCloud, acceptance: dict[str, str], refused: str | None
) -> None:
    event = cloud.approve(TWO)
    report = {"metrics": {"auc": {"value": 0.9}}, "acceptance": acceptance}
    cloud.evaluations["s3://artifacts/2/evaluation.json"] = report

    assert act(cloud, event) == ("promoted" if refused is None else "refused")
    assert refused is None or refused in cloud.rejections[TWO]


@pytest.mark.parametrize("reason", ["", "  "])
def test_should_refuse_an_approval_without_a_reason_where_one_is_asked_for(
    cloud: FakeCloud, reason: str
) -> None:
    event = cloud.approve(TWO)
    cloud.packages[TWO] = replace(cloud.packages[TWO], reason=reason)
    strict = replace(SETTINGS, require_reason=True)

    assert handle(Event.parse(event), cloud, strict).action == "refused"
    assert "ApprovalDescription" in cloud.rejections[TWO]


def test_should_judge_a_metric_where_less_is_better_from_above() -> None:
    acceptance = Acceptance(metric="rmse", at_most=2.0)

    assert acceptance.objection(2.0) is None
    assert acceptance.objection(2.5) == "rmse 2.5 is above 2"


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"])
def test_should_raise_when_no_retry_can_update_the_stack(cloud: FakeCloud, status: str) -> None:
    event = cloud.approve(TWO)
    cloud.status = status

    with pytest.raises(MisconfiguredError, match=f"is {status} and cannot be updated"):
        act(cloud, event)
    assert cloud.parameter == ONE


def test_should_bring_one_of_many_concurrent_approvals_into_service_and_keep_the_rest_waiting(
    cloud: FakeCloud,
) -> None:
    event = cloud.approve(TWO)
    barrier = threading.Barrier(6)

    def one(_: int) -> str:
        barrier.wait(timeout=10)
        try:
            return act(cloud, event)
        except TransientError:
            return "waits"

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(one, range(6)))

    assert outcomes.count("promoted") == 1
    assert outcomes.count("waits") == 5
    assert (cloud.updates, cloud.attempted) == (2, TWO)


# --- rollbacks ---


def test_should_restore_the_parameter_from_its_history_and_reject_the_model_that_was_rolled_back(
    cloud: FakeCloud,
) -> None:
    act(cloud, cloud.approve(TWO))
    outcome = handle(Event.parse(cloud.finish(succeeded=False)), cloud, SETTINGS)

    assert (outcome.action, outcome.package) == ("restored", TWO)
    assert outcome.fields == {"serves": ONE, "version": 2}
    assert cloud.parameter == ONE
    assert cloud.packages[TWO].approval_status == "Rejected"
    assert cloud.rejections[TWO] == f"Rolled back by CloudFormation: {cloud.failed[0]}"
    assert cloud.packages[ONE].approval_status == "Approved"


def test_should_say_what_the_stack_says_when_no_resource_gave_a_reason(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    cloud.failed = ()

    act(cloud, cloud.finish(succeeded=False))
    assert cloud.rejections[TWO].endswith("The following resource(s) failed to update: [Endpoint]")


def test_should_restore_none_when_the_first_model_fails() -> None:
    cloud = FakeCloud()
    act(cloud, cloud.approve(ONE))

    assert act(cloud, cloud.finish(succeeded=False)) == "restored"
    assert cloud.parameter == "none"


def test_should_restore_once_when_the_rollback_comes_twice(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    event = cloud.finish(succeeded=False)
    act(cloud, event)
    written = len(cloud.versions)

    assert act(cloud, event) == "ignored"
    assert len(cloud.versions) == written


@pytest.mark.parametrize("call", ["reject", "put"])
def test_should_finish_a_restore_that_was_cut_short(cloud: FakeCloud, call: str) -> None:
    act(cloud, cloud.approve(TWO))
    event = cloud.finish(succeeded=False)
    cloud.crash_before = call
    with pytest.raises(TransientError):
        act(cloud, event)

    assert act(cloud, event) == "restored"
    assert cloud.parameter == ONE
    assert cloud.packages[TWO].approval_status == "Rejected"


def test_should_not_deploy_a_rolled_back_model_again_when_its_approval_comes_late(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    act(cloud, event)
    cloud.finish(succeeded=False)

    assert act(cloud, event) == "restored"
    assert (cloud.parameter, cloud.updates) == (ONE, 2)
    assert cloud.packages[TWO].approval_status == "Rejected"


def test_should_restore_first_when_the_next_approval_overtakes_the_rollback(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    late = cloud.finish(succeeded=False)

    assert act(cloud, cloud.approve(THREE)) == "promoted"
    assert cloud.packages[TWO].approval_status == "Rejected"
    assert (cloud.parameter, cloud.attempted) == (THREE, THREE)
    assert act(cloud, late) == "ignored"
    assert cloud.parameter == THREE


def test_should_promote_an_approval_that_waited_while_another_model_was_rolled_back(cloud: FakeCloud) -> None:
    first, waiting = cloud.approve(TWO), cloud.approve(THREE)
    act(cloud, first)
    with pytest.raises(TransientError):
        act(cloud, waiting)
    act(cloud, cloud.finish(succeeded=False))

    assert act(cloud, waiting) == "promoted"
    assert cloud.parameter == THREE


def test_should_leave_the_model_alone_when_another_change_of_the_stack_was_rolled_back(
    cloud: FakeCloud,
) -> None:
    cloud.status, cloud.updated = "UPDATE_ROLLBACK_COMPLETE", cloud.tick()

    assert act(cloud, rollback(cloud.tick())) == "ignored"
    assert cloud.parameter == ONE
    assert cloud.rejections == {}


@pytest.mark.parametrize(
    "event",
    [
        rollback(T0, status="UPDATE_COMPLETE"),
        rollback(T0, status="UPDATE_ROLLBACK_IN_PROGRESS"),
        rollback(T0, stack=STACK_ARN.replace("Serving", "Data")),
    ],
)
def test_should_ignore_other_events_of_stacks(cloud: FakeCloud, event: dict[str, Any]) -> None:
    act(cloud, cloud.approve(TWO))
    cloud.finish(succeeded=False)

    assert act(cloud, event) == "ignored"
    assert cloud.parameter == TWO


def test_should_not_guess_when_the_stack_runs_what_the_parameter_never_was(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    event = cloud.finish(succeeded=False)
    cloud.serves = "arn:of:somebody:else"

    with pytest.raises(MisconfiguredError, match="never was"):
        act(cloud, event)
    assert cloud.parameter == TWO


# --- messages ---


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "must be a JSON object, got list"),
        ({}, "has no detail-type, detail or time"),
        ({"detail-type": "x", "detail": {}, "time": "soon"}, "ISO 8601, got 'soon'"),
    ],
)
def test_should_refuse_a_message_that_is_no_event(body: object, message: str) -> None:
    with pytest.raises(BadMessageError, match=message):
        Event.parse(body)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Something Else", "cannot read detail-type 'Something Else'"),
        ("SageMaker Model Package State Change", "no detail.ModelPackageGroupName"),
        ("CloudFormation Stack Status Change", "no detail.stack-id"),
    ],
)
def test_should_refuse_an_event_it_cannot_read(cloud: FakeCloud, kind: str, message: str) -> None:
    with pytest.raises(BadMessageError, match=message):
        act(cloud, {"detail-type": kind, "detail": {}, "time": "2026-11-21T12:00:00Z"})


def batch(*bodies: object) -> dict[str, Any]:
    records = [
        {"messageId": f"m{i}", "body": b if isinstance(b, str) else json.dumps(b)}
        for i, b in enumerate(bodies)
    ]
    return {"Records": records}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, cloud: FakeCloud) -> None:
    for name, value in (
        ("PARAMETER_NAME", PARAMETER),
        ("SERVING_STACK_NAME", STACK),
        ("MODEL_PACKAGE_GROUP_NAME", GROUP),
        ("ACCEPT_METRIC", "auc"),
        ("ACCEPT_AT_LEAST", "0.75"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ACCEPT_AT_MOST", raising=False)
    monkeypatch.setattr(entry, "_cloud", lambda _: cloud)


@pytest.mark.usefixtures("environment")
def test_should_report_only_the_messages_to_be_seen_again(
    cloud: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = cloud.approve(TWO), cloud.approve(THREE)

    answer = entry.handler(batch("no json", second, first), None)

    # The earlier approval (m2) is handled first and makes the stack busy for the later one (m1).
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m0"}]}
    assert cloud.attempted == TWO
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("INFO", "promoted"),
        ("WARNING", "not handled"),
        ("ERROR", "not handled"),
    ]
    assert [line.get("error") for line in lines] == [None, "TransientError", "BadMessageError"]


@pytest.mark.usefixtures("environment")
def test_should_report_no_failure_for_a_batch_it_handled(cloud: FakeCloud) -> None:
    assert entry.handler(batch(cloud.approve(TWO)), None) == {"batchItemFailures": []}


def test_should_report_every_problem_of_its_environment_at_once() -> None:
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment({"PARAMETER_NAME": "p", "ACCEPT_AT_LEAST": "high", "ACCEPT_AT_MOST": "1"})

    text = str(caught.value)
    for problem in (
        "SERVING_STACK_NAME is not set",
        "MODEL_PACKAGE_GROUP_NAME is not set",
        "ACCEPT_METRIC is not set",
        "ACCEPT_AT_LEAST must be a number, got 'high'",
        "one of ACCEPT_AT_LEAST and ACCEPT_AT_MOST must be set",
    ):
        assert problem in text


# --- AWS, by its own service models ---


@dataclass
class Stubbed:
    cloud: AwsCloud
    sagemaker: Stubber
    ssm: Stubber
    s3: Stubber
    cloudformation: Stubber


@pytest.fixture
def aws() -> Stubbed:
    clients = {
        name: boto3.client(
            name,  # type: ignore[call-overload]
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(retries={"total_max_attempts": 1}),
        )
        for name in ("sagemaker", "ssm", "s3", "cloudformation")
    }
    stubs = {name: Stubber(client) for name, client in clients.items()}
    for stub in stubs.values():
        stub.activate()
    return Stubbed(cloud=AwsCloud(**clients), **stubs)


def described(**more: object) -> dict[str, object]:
    return {
        "ModelPackageName": "p",
        "ModelPackageArn": ONE,
        "CreationTime": T0,
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": []},
        **more,
    }


def test_should_read_a_package_with_its_evaluation(aws: Stubbed) -> None:
    quality = {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://b/evaluation.json"}}
    aws.sagemaker.add_response(
        "describe_model_package",
        described(
            ModelApprovalStatus="Approved",
            ModelMetrics={"ModelQuality": quality},
            ApprovalDescription="better",
            LastModifiedTime=T0 + timedelta(hours=1),
            LastModifiedBy={"IamIdentity": {"Arn": "arn:aws:iam::1:role/Ann"}, "UserProfileName": "ann"},
        ),
        {"ModelPackageName": ONE},
    )

    assert aws.cloud.package(ONE) == Package(
        arn=ONE,
        approval_status="Approved",
        evaluation_uri="s3://b/evaluation.json",
        approved_by="arn:aws:iam::1:role/Ann",
        reason="better",
        modified=T0 + timedelta(hours=1),
    )


def test_should_list_the_newest_approved_versions_of_the_group(aws: Stubbed) -> None:
    summary = {
        "ModelPackageArn": TWO,
        "CreationTime": T0,
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": "Approved",
    }
    aws.sagemaker.add_response(
        "list_model_packages",
        {"ModelPackageSummaryList": [summary, {**summary, "ModelPackageArn": ONE}]},
        {
            "ModelPackageGroupName": GROUP,
            "ModelApprovalStatus": "Approved",
            "SortBy": "CreationTime",
            "SortOrder": "Descending",
            "MaxResults": 20,
        },
    )

    assert aws.cloud.approved(GROUP) == [TWO, ONE]


def test_should_read_a_package_without_metrics_as_one_without_evaluation(aws: Stubbed) -> None:
    aws.sagemaker.add_response("describe_model_package", described())

    found = aws.cloud.package(ONE)

    assert found is not None
    assert (found.evaluation_uri, found.approval_status) == (None, "PendingManualApproval")


def test_should_know_a_missing_package_and_the_parameters_first_value(aws: Stubbed) -> None:
    aws.sagemaker.add_client_error(
        "describe_model_package", "ValidationException", f"ModelPackage {ONE} does not exist.", 400
    )

    assert aws.cloud.package(ONE) is None
    assert aws.cloud.package("none") is None


def test_should_write_the_reason_of_a_rejection_as_one_line_that_sagemaker_takes(aws: Stubbed) -> None:
    aws.sagemaker.add_response(
        "update_model_package",
        {"ModelPackageArn": ONE},
        {
            "ModelPackageArn": ONE,
            "ModelApprovalStatus": "Rejected",
            "ApprovalDescription": ("two lines " + "x" * 2000)[:1024],
        },
    )

    aws.cloud.reject(ONE, "two\nlines " + "x" * 2000)
    aws.sagemaker.assert_no_pending_responses()


@pytest.mark.parametrize(("body", "expected"), [(b'{"a": 1}', {"a": 1}), (b"no json", None), (b"\xff", None)])
def test_should_read_the_evaluation_from_its_uri(aws: Stubbed, body: bytes, expected: object) -> None:
    stream = StreamingBody(io.BytesIO(body), len(body))
    aws.s3.add_response("get_object", {"Body": stream}, {"Bucket": "b", "Key": "x/evaluation.json"})

    assert aws.cloud.evaluation("s3://b/x/evaluation.json") == expected


def test_should_tell_a_missing_evaluation_from_one_it_may_not_read(aws: Stubbed) -> None:
    aws.s3.add_client_error("get_object", "NoSuchKey", "no such key", 404)
    for listed in ("evaluation.json.old", "evaluation.json"):
        aws.s3.add_client_error("get_object", "AccessDenied", "denied", 403)
        aws.s3.add_response(
            "list_objects_v2",
            {"Contents": [{"Key": listed}]},
            {"Bucket": "b", "Prefix": "evaluation.json"},
        )

    assert aws.cloud.evaluation("s3://b/evaluation.json") is None
    assert aws.cloud.evaluation("s3://b/evaluation.json") is None
    with pytest.raises(MisconfiguredError, match="AccessDenied"):
        aws.cloud.evaluation("s3://b/evaluation.json")


def test_should_read_the_whole_history_in_order_of_version(aws: Stubbed) -> None:
    def item(version: int, value: str) -> dict[str, object]:
        return {
            "Name": PARAMETER,
            "Value": value,
            "Version": version,
            "LastModifiedDate": T0,
            "Description": f"approved_at=2026-11-21T12:0{version}:00+00:00 by event e",
        }

    aws.ssm.add_response("get_parameter_history", {"Parameters": [item(1, "none")], "NextToken": "t"})
    aws.ssm.add_response("get_parameter_history", {"Parameters": [item(3, TWO), item(2, ONE)]})

    history = aws.cloud.history(PARAMETER)

    assert [v.value for v in history] == ["none", ONE, TWO]
    assert history[-1].approved_at == T0 + timedelta(minutes=3)


def test_should_read_what_the_stack_serves_from_the_resolved_value(aws: Stubbed) -> None:
    stack = {
        "StackName": STACK,
        "CreationTime": T0,
        "LastUpdatedTime": T0,
        "StackStatus": "UPDATE_COMPLETE",
        "Parameters": [
            {"ParameterKey": "Approved", "ParameterValue": PARAMETER, "ResolvedValue": ONE},
            {"ParameterKey": "Other", "ParameterValue": "x"},
        ],
    }
    aws.cloudformation.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": STACK})

    assert aws.cloud.stack(STACK, PARAMETER) == Stack(
        status="UPDATE_COMPLETE",
        status_reason="",
        updated=T0,
        parameters=("Approved", "Other"),
        serves=ONE,
    )


def test_should_read_only_the_failures_of_the_last_update_and_not_what_was_merely_cancelled(
    aws: Stubbed,
) -> None:
    def event(minute: int, name: str, status: str, reason: str = "") -> dict[str, object]:
        return {
            "StackId": STACK_ARN,
            "EventId": f"{minute}",
            "StackName": STACK,
            "LogicalResourceId": name,
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
            "Timestamp": T0 + timedelta(minutes=minute),
        }

    aws.cloudformation.add_response(
        "describe_stack_events",
        {
            "StackEvents": [
                event(9, "Other", "UPDATE_FAILED", "Resource update cancelled"),
                event(8, "Endpoint", "UPDATE_FAILED", "alarm Errors is in ALARM"),
                event(7, "Config", "CREATE_COMPLETE"),
                event(6, "Model", "CREATE_FAILED", "no such object"),
                event(1, "Endpoint", "UPDATE_FAILED", "an earlier one"),
            ]
        },
        {"StackName": STACK},
    )

    assert aws.cloud.failures(STACK, T0 + timedelta(minutes=5)) == [
        "Model: no such object",
        "Endpoint: alarm Errors is in ALARM",
    ]


def test_should_say_so_when_the_stack_does_not_read_the_parameter(aws: Stubbed) -> None:
    stack = {"StackName": STACK, "CreationTime": T0, "StackStatus": "CREATE_COMPLETE", "Parameters": []}
    aws.cloudformation.add_response("describe_stacks", {"Stacks": [stack]})

    with pytest.raises(MisconfiguredError, match=f"no parameter that is read from {PARAMETER}"):
        aws.cloud.stack(STACK, PARAMETER)


def test_should_update_with_the_previous_template_and_every_previous_value(aws: Stubbed) -> None:
    aws.cloudformation.add_response(
        "update_stack",
        {"StackId": STACK_ARN},
        {
            "StackName": STACK,
            "UsePreviousTemplate": True,
            "Parameters": [
                {"ParameterKey": "Approved", "UsePreviousValue": True},
                {"ParameterKey": "Other", "UsePreviousValue": True},
            ],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        },
    )

    assert aws.cloud.update(STACK, ["Approved", "Other"]) is True
    aws.cloudformation.assert_no_pending_responses()


def test_should_take_no_updates_as_done_and_a_busy_stack_as_transient(aws: Stubbed) -> None:
    for message in (
        "No updates are to be performed.",
        f"Stack:{STACK_ARN} is in UPDATE_IN_PROGRESS state and can not be updated.",
        "Template format error",
    ):
        aws.cloudformation.add_client_error("update_stack", "ValidationError", message, 400)

    assert aws.cloud.update(STACK, []) is False
    with pytest.raises(TransientError):
        aws.cloud.update(STACK, [])
    with pytest.raises(MisconfiguredError):
        aws.cloud.update(STACK, [])


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ThrottlingException", 400, TransientError),
        ("ExpiredTokenException", 403, TransientError),
        ("InternalServerError", 500, TransientError),
        ("AccessDeniedException", 400, MisconfiguredError),
    ],
)
def test_should_tell_passing_errors_from_lasting_ones(
    aws: Stubbed, code: str, status: int, expected: type[Exception]
) -> None:
    aws.ssm.add_client_error("put_parameter", code, "no", status)

    with pytest.raises(expected):
        aws.cloud.put(PARAMETER, ONE, "d")
