"""Cells of killed functions: retraining, promotion and what people are told of them.

Each function is first left alone and its calls are noted; then it dies after the first call of each action.
Lambda tries an event three times, so an event meets two deaths at most; a message of the promotion queue as
many as there are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story.chaos.killing import (
    calls_of,
    function_of,
    hand_over,
    handled,
    lives_through,
    rounds,
    see_again,
)
from rehearsal.story.chaos.loop import WORKLOAD, plan_events, promotion_queue, unharmed
from rehearsal.story.mailbox import Mailbox, mailbox
from rehearsal.story.matrix.ground import see_again as see_waiting_again
from rehearsal.story.matrix.packages import register_like
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.trainings import (
    alarm_event,
    now_of,
    reason_of,
    rested,
    started,
    stop,
    with_variables,
)
from rehearsal.story.serving import approve, await_service, parameter_value, serving_stack
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.training import executions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD"]

CHAPTER = "Functions killed after each call"
#: So long (real seconds) a notice may take.
TOLD_SECONDS = 20
PUBLISH = "sns:Publish"
#: What CloudFormation's events of a stack's end are called.
ROLLED_BACK = "CloudFormation Stack Status Change"
#: What the promotion function calls to bring a version into service, and to set right what was rolled back.
PROMOTING = (
    "sagemaker:DescribeModelPackage",
    "ssm:GetParameterHistory",
    "cloudformation:DescribeStacks",
    "s3:GetObject",
    "ssm:PutParameter",
    "cloudformation:UpdateStack",
    PUBLISH,
)
RESTORING = (
    "cloudformation:DescribeStacks",
    "ssm:GetParameterHistory",
    "cloudformation:DescribeStackEvents",
    "sagemaker:DescribeModelPackage",
    "sagemaker:UpdateModelPackage",
    "ssm:PutParameter",
    "s3:GetObject",
    PUBLISH,
)


def _retrain(tale: Tale, evidence: Evidence) -> None:
    """An alarm's event, and the function that it wakes dies on the way to the training."""
    function = tale.outputs("Operations")["RetrainFunctionName"]
    alarm = tale.outputs("Operations")["DriftAlarmName"]

    def event() -> dict[str, Any]:
        return alarm_event(alarm, now_of(tale))

    rested(tale)
    before = len(executions(tale))
    calls = calls_of(tale, function, lambda: handled(tale, function, event()))
    untouched = started(tale, before)["PipelineExecutionArn"]
    reason = reason_of(tale, untouched)
    stop(tale, untouched)
    dealt = list(rounds(calls))
    evidence |= {"calls": dict(Counter(calls)), "died_after": dealt, "reason": reason}
    with unharmed(tale, evidence, starts=len(dealt)):
        for actions in dealt:
            rested(tale)
            before = len(executions(tale))
            lives_through(tale, function, actions, partial(hand_over, tale, function, event()))
            execution = started(tale, before)["PipelineExecutionArn"]
            found = reason_of(tale, execution)
            require(found == reason, f"it was started for {found!r}")
            stop(tale, execution)


def _refusal(tale: Tale, evidence: Evidence) -> None:
    """The budget is used up, and the function dies on the way to telling people."""
    function = tale.outputs("Operations")["RetrainFunctionName"]
    config = tale.cloud.client("lambda").get_function_configuration(FunctionName=function)
    told = config["Environment"]["Variables"]["TOLD_PARAMETER"]

    def event() -> dict[str, Any]:
        return {"reason": "although the budget is used up", "time": now_of(tale)}

    def untold() -> None:
        tale.cloud.client("ssm").put_parameter(Name=told, Value="nothing", Type="String", Overwrite=True)

    rested(tale)
    back = with_variables(tale, {"BUDGET_USD": "0.000001"})
    try:
        with mailbox(tale) as box:
            untold()
            calls = calls_of(tale, function, lambda: handled(tale, function, event()))
            box.told("retraining.refused")
            # What comes before is the way to a training, too.
            actions = [a for a in dict.fromkeys(calls) if a == PUBLISH or a.startswith("ssm:")]
            evidence |= {"calls": dict(Counter(calls)), "notices": {}}
            with unharmed(tale, evidence):
                for action in actions:
                    untold()
                    act = partial(hand_over, tale, function, event())
                    dies = partial(lives_through, tale, function, [action], act)
                    times = _told_after(box, "retraining.refused", action, dies)
                    evidence["notices"][action] = times
                    handled(tale, function, event())
                    again = len(_of(box, "retraining.refused"))
                    handled(tale, function, event())
                    require(len(_of(box, "retraining.refused")) == again, "people are told every time")
    finally:
        back()
        untold()


def _of(box: Mailbox, kind: str) -> list[dict[str, Any]]:
    return [notice for notice in box.notices() if notice["notice"] == kind]


def _told_after(box: Mailbox, kind: str, action: str, dies: Callable[[], None]) -> int:
    """How often people are told by a function that dies after an action: once, or twice after telling."""
    before = len(_of(box, kind))
    dies()
    times: int = wait_until(
        f"a notice {kind} of a function that died after {action}",
        lambda: len(_of(box, kind)) - before,
        seconds=TOLD_SECONDS,
    )
    most = 2 if action == PUBLISH else 1
    require(times <= most, f"people were told {times} times by a function that died after {action}")
    return times


def _twin(tale: Tale, name: str, spoil: Callable[[bytes], bytes]) -> str:
    return register_like(tale, tale.known["serving"], name, spoil, f"for {name}")


@contextmanager
def _without_trainings(tale: Tale) -> Iterator[None]:
    """Let no training start, whatever comes due while a rollout takes its time."""
    back = with_variables(tale, {"COOLDOWN_HOURS": str(24 * 366)})
    try:
        yield
    finally:
        back()


def _promotion(tale: Tale, evidence: Evidence) -> None:
    """A version is approved; the function that brings it into service dies after each of its calls."""
    function = function_of(tale, "Models", "RegistryPromotion")
    arn = _twin(tale, "kills", lambda archive: archive)
    with mailbox(tale) as box, _without_trainings(tale), unharmed(tale, evidence, promotions=1):

        def dies() -> None:
            act = partial(approve, tale, arn)
            again, waiting = partial(see_again, tale), partial(see_waiting_again, tale)
            lives_through(tale, function, PROMOTING, act, after_death=again, meanwhile=waiting)
            _follows(tale, arn)

        evidence["calls"] = _only(PROMOTING, calls_of(tale, function, dies))
        evidence["notices"] = _told_of(box, "model.promoted", arn)
    tale.known["serving"] = arn


def _only(actions: Sequence[str], calls: Sequence[str]) -> dict[str, int]:
    """What a function has called: nothing but actions after which it died."""
    more = sorted(set(calls) - set(actions))
    require(not more, f"it also calls {', '.join(more)}, after which it has not died")
    return dict(Counter(calls))


def _told_of(box: Mailbox, kind: str, arn: str) -> int:
    """How often people were told of a version: once, or twice when the function died after telling them."""
    notice = box.told(kind, arn)
    require(notice["why"], f"the notice {kind} gives no reason")
    told = [n for n in _of(box, kind) if arn in n["correlation_id"]]
    require(len(told) <= 2, f"people were told {len(told)} times")
    return len(told)


def _follows(tale: Tale, arn: str) -> None:
    """Wait until the serving stack runs a version, and the message of its approval was handled."""

    def runs() -> bool:
        stack = serving_stack(tale)
        values = [p.get("ResolvedValue") for p in stack["Parameters"]]
        return arn in values and stack["StackStatus"] == "UPDATE_COMPLETE"

    wait_until(f"a stack that runs {arn}", runs, seconds=120)
    await_service(tale)


def _rollback(tale: Tale, evidence: Evidence) -> None:
    """A version that cannot be loaded is approved; who sets that right dies after each of its calls."""
    function = function_of(tale, "Models", "RegistryPromotion")
    serving = tale.known["serving"]
    arn = _twin(tale, "kills-broken", lambda _: b"no archive")
    updated = serving_stack(tale).get("LastUpdatedTime")

    def restored() -> bool:
        return parameter_value(tale) == serving and _status(tale, arn) == "Rejected"

    with mailbox(tale) as box, _without_trainings(tale), unharmed(tale, evidence, promotions=2):
        # Whoever promoted it is through before the deaths are planned: they are for who takes it back.
        plan_events(tale, ROLLED_BACK, promotion_queue(tale), "hold")
        approve(tale, arn)
        wait_until("the promotion", lambda: parameter_value(tale) == arn, seconds=60)
        wait_until("the rollback", lambda: _stack_went_back(tale, updated), seconds=120)
        tale.cloud.idle()
        let_go = partial(plan_events, tale, ROLLED_BACK, promotion_queue(tale))

        def dies() -> None:
            again, waiting = partial(see_again, tale), partial(see_waiting_again, tale)
            lives_through(tale, function, RESTORING, let_go, after_death=again, meanwhile=waiting)
            wait_until("the restored parameter", restored, seconds=60)

        evidence["calls"] = _only((*PROMOTING, *RESTORING), calls_of(tale, function, dies))
        evidence["notices"] = _told_of(box, "model.rolled_back", arn)


def _stack_went_back(tale: Tale, updated: object) -> bool:
    stack = serving_stack(tale)
    return stack.get("LastUpdatedTime") != updated and stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


def _status(tale: Tale, arn: str) -> str:
    found: str = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=arn)[
        "ModelApprovalStatus"
    ]
    return found


def _notices(tale: Tale, evidence: Evidence) -> None:
    """People are told of an alarm, a training that failed and a version that waits, by one who dies."""
    function = function_of(tale, "Operations", "NoticesFunction")
    alarm = alarm_event(tale.outputs("Operations")["DriftAlarmName"], now_of(tale))
    failed = executions(tale)[0]["PipelineExecutionArn"]
    package = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=tale.known["serving"])
    events = {
        "drift.found": alarm,
        "retraining.failed": {
            "detail-type": "SageMaker Model Building Pipeline Execution Status Change",
            "time": now_of(tale),
            "detail": {"pipelineExecutionArn": failed, "currentPipelineExecutionStatus": "Failed"},
        },
        "model.waits": {
            "detail-type": "SageMaker Model Package State Change",
            "time": now_of(tale),
            "detail": {
                "ModelPackageArn": package["ModelPackageArn"],
                "ModelPackageVersion": package["ModelPackageVersion"],
                "ModelPackageStatus": "Completed",
                "ModelApprovalStatus": "PendingManualApproval",
                "ModelMetrics": package["ModelMetrics"],
            },
        },
    }
    evidence |= {"calls": {}, "notices": {}}
    with mailbox(tale) as box:
        for kind, event in events.items():
            evidence["calls"][kind] = calls_of(tale, function, partial(handled, tale, function, event))
        with unharmed(tale, evidence):
            for kind, event in events.items():
                for action in dict.fromkeys(evidence["calls"][kind]):
                    act = partial(hand_over, tale, function, event)
                    dies = partial(lives_through, tale, function, [action], act)
                    evidence["notices"][f"{kind} after {action}"] = _told_after(box, kind, action, dies)


def _resource(tale: Tale, evidence: Evidence) -> None:
    """A stack is made whose custom resource's function dies: CloudFormation hears of its next attempt."""
    function = function_of(tale, "Models", "RegistryApprovalFunction")
    cloudformation, ssm = tale.cloud.client("cloudformation"), tale.cloud.client("ssm")
    parameter = tale.outputs("Models")["ApprovedModelParameter"]
    arn = tale.cloud.client("lambda").get_function_configuration(FunctionName=function)["FunctionArn"]
    template = {
        "Resources": {
            "Parameter": {
                "Type": "Custom::ApprovalParameter",
                "Properties": {
                    "ServiceToken": arn,
                    "ServiceTimeout": 30,
                    "Name": parameter,
                    "InitialValue": "none",
                    "OnDelete": "keep",
                },
            }
        }
    }

    def deployed(name: str) -> Callable[[], None]:
        def act() -> None:
            cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))

        return act

    def status(name: str) -> str:
        found: str = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        return found

    def complete(name: str) -> None:
        wait_until(f"the end of {name}", lambda: not status(name).endswith("_IN_PROGRESS"), seconds=60)
        require(status(name) == "CREATE_COMPLETE", f"stack {name} is {status(name)}")

    def untouched() -> None:
        deployed("chaos-resource")()
        complete("chaos-resource")

    before = ssm.get_parameter(Name=parameter)["Parameter"]
    try:
        calls = calls_of(tale, function, untouched)
        evidence["calls"] = dict(Counter(calls))
        with unharmed(tale, evidence):
            lives_through(tale, function, list(dict.fromkeys(calls)), deployed("chaos-resource-killed"))
            complete("chaos-resource-killed")
            after = ssm.get_parameter(Name=parameter)["Parameter"]
            require(after["Version"] == before["Version"], "the approval parameter was written anew")
    finally:
        for name in ("chaos-resource", "chaos-resource-killed"):
            cloudformation.delete_stack(StackName=name)


CELLS = (
    Cell(
        id="kill.retrain",
        title="The retraining function dies after each of its calls: every alarm starts one training",
        chapter=CHAPTER,
        run=_retrain,
        capabilities=("retrain.guard",),
    ),
    Cell(
        id="kill.refusal",
        title="It dies on the way to saying that the budget is used up: people are told",
        chapter=CHAPTER,
        run=_refusal,
        capabilities=("retrain.guard", "observe.notify"),
    ),
    Cell(
        id="kill.promotion",
        title="The promotion function dies after each of its calls: the approved version serves, once",
        chapter=CHAPTER,
        run=_promotion,
        capabilities=("observe.notify",),
    ),
    Cell(
        id="kill.rollback",
        title="It dies on the way back from a version that does not load: the old model serves",
        chapter=CHAPTER,
        run=_rollback,
        capabilities=("roll.rollback", "observe.notify"),
    ),
    Cell(
        id="kill.notices",
        title="The function that tells people dies after each of its calls: every notice comes",
        chapter=CHAPTER,
        run=_notices,
        capabilities=("observe.notify",),
    ),
    Cell(
        id="kill.resource",
        title="A deployment's own function dies: the stack is made all the same, and nothing is written over",
        chapter=CHAPTER,
        run=_resource,
        capabilities=(),
    ),
)
