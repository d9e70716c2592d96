"""Chapter: the alarm retrains the model; the better one takes over under live traffic."""

from __future__ import annotations

import time
from typing import Any

from rehearsal.story.judging import CHALLENGER, LESS_IS_BETTER, judge, metric_of
from rehearsal.story.mailbox import MAILBOX, Mailbox, keep_mailbox
from rehearsal.story.serving import (
    approve,
    await_promotion,
    describe_endpoint,
    parameter_value,
    serving_stack,
)
from rehearsal.story.serving import await_service as await_service_of
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, require, wait_until
from rehearsal.story.traffic import Answer, Traffic, ask, questions
from rehearsal.story.training import (
    add_version,
    executions,
    finish,
    invoke_trigger,
    latest_package,
    set_status,
)

__all__ = ["STEPS", "TOLD", "rollout_capabilities", "scores_of"]

CHAPTER = "Retrain"
#: Traffic before and after a rollout, so that the plot shows both ends.
MARGIN_SECONDS = 3.0


def _retrain(tale: Tale, evidence: Evidence) -> None:
    sagemaker = tale.cloud.client("sagemaker")
    retraining = tale.workload.retraining
    keep_mailbox(tale)
    allowed = {"drift: ": retraining.on_drift, "new data: ": retraining.on_new_data}
    if not any(allowed.values()):
        evidence["why_started_by_hand"] = "the workload says neither retraining.on_drift nor on_new_data"
        evidence["answer"] = invoke_trigger(tale, {"reason": "drift, seen by a person"})
        allowed["on demand: "] = True

    def started() -> list[dict[str, Any]]:
        return executions(tale)[:-1]

    later = wait_until("the start of a second pipeline execution", started, seconds=120)
    arn = later[0]["PipelineExecutionArn"]
    parameters = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
    reason = next((p["Value"] for p in parameters["PipelineParameters"] if p["Name"] == "Reason"), "")
    evidence["reason"] = reason
    require(
        any(reason.startswith(kind) for kind, is_on in allowed.items() if is_on),
        f"the second training was started for another reason: {reason!r}",
    )
    finish(tale, arn, evidence)
    evidence["executions"] = len(executions(tale))
    # New data and the alarm may each be a reason of their own, a cooldown apart.
    most = 3 if retraining.on_drift and retraining.on_new_data else 2
    require(
        evidence["executions"] <= most,
        f"at most {most} trainings were called for, there are {evidence['executions']}",
    )
    package = latest_package(tale)
    require(
        package["ModelPackageArn"] != tale.known["package"]["ModelPackageArn"],
        "the retraining registered no version",
    )
    evaluation = add_version(tale, package, reason)
    evidence |= {
        "version": package["ModelPackageVersion"],
        "metrics": {name: metric["value"] for name, metric in evaluation["metrics"].items()},
    }
    tale.known["better package"] = package


def scores_of(answers: list[Answer]) -> list[float]:
    """The scores, all of them there."""
    return [a.score for a in answers if a.score is not None]


def _canary(tale: Tale, evidence: Evidence) -> None:
    package = tale.known["better package"]
    arn = package["ModelPackageArn"]
    bodies = questions(tale, tale.inputs.changed_live)
    old = scores_of(tale.known["changed answers"])
    before = describe_endpoint(tale)
    updated = serving_stack(tale).get("LastUpdatedTime")
    with Traffic(tale, bodies) as traffic:
        time.sleep(MARGIN_SECONDS)
        started = time.monotonic()
        approve(tale, arn)
        await_promotion(tale, arn)
        wait_until(
            "the start of the serving stack's update",
            lambda: serving_stack(tale).get("LastUpdatedTime") != updated,
            seconds=60,
        )
        endpoint = await_service_of(tale)
        evidence["in_service_after_seconds"] = round(time.monotonic() - started, 1)
        time.sleep(MARGIN_SECONDS)
    answers = traffic.answers
    after = ask(tale, bodies)
    new = scores_of(after)
    who = [answers.who(a, old, new) for a in answers.answers]
    evidence |= {
        **answers.summary(),
        "answered_by_the_old_model": who.count("old"),
        "answered_by_the_new_model": who.count("new"),
        "endpoint_config_before": before["EndpointConfigName"],
        "endpoint_config_after": endpoint["EndpointConfigName"],
        "rollout": tale.workload.serving.rollout.model_dump(),
        "version_status": set_status(tale, arn),
    }
    tale.report.traffic["canary"] = {**answers.summary(), "series": answers.series(old, new)}
    require(
        before["EndpointConfigName"] != endpoint["EndpointConfigName"],
        "the endpoint still has its old configuration",
    )
    require(
        not answers.failed,
        f"{len(answers.failed)} requests failed, the first: {[a.error for a in answers.failed[:1]]}",
    )
    require(who.count("new"), "no request was answered by the new model")
    tale.known |= {"serving": arn, "serving scores": new, "changed answers of the new model": after}
    tale.report.model |= {
        "version": package["ModelPackageVersion"],
        "approved": True,
        "metrics": tale.report.model["history"][-1]["metrics"],
    }


def _better(tale: Tale, evidence: Evidence) -> None:
    metric = metric_of(tale.contract)
    before = tale.report.drift["before"]
    after = judge(tale.inputs.changed_live, tale.known["changed answers of the new model"], tale.contract)
    tale.report.drift["after"] = after
    usual = judge(tale.inputs.live, ask(tale, questions(tale, tale.inputs.live)), tale.contract)
    evidence |= {
        "metric": metric,
        "first_model_on_changed_records": before,
        "retrained_model_on_changed_records": after,
        "retrained_model_on_usual_records": usual,
        "records": len(tale.inputs.changed_live),
    }
    improved = after[metric] < before[metric] if metric in LESS_IS_BETTER else after[metric] > before[metric]
    require(
        improved,
        f"the retrained model's {metric} on changed records is {after[metric]:.4f}, "
        f"the first one's {before[metric]:.4f}",
    )
    require(
        parameter_value(tale) == tale.known["serving"], "the approval parameter is not the serving version"
    )


def rollout_capabilities(strategy: str) -> tuple[str, ...]:
    """The row of the way that traffic moves."""
    return ({"canary": "roll.canary", "linear": "roll.linear", "all_at_once": "roll.allatonce"}[strategy],)


def _told(tale: Tale, evidence: Evidence) -> None:
    box: Mailbox = tale.known[MAILBOX]
    wanted = [
        *(("drift.found",) if tale.workload.retraining.on_drift else ()),
        *("model.waits", "model.promoted", "model.rolled_back"),
    ]
    found = {kind: box.told(kind, seconds=10) for kind in wanted}
    box.close()
    evidence["notices"] = [
        {key: notice[key] for key in ("notice", "title", "why", "numbers")} for notice in found.values()
    ]
    metric = tale.workload.acceptance.metric
    silent = [
        kind
        for kind, notice in found.items()
        if not notice["numbers"].get("violations" if kind == "drift.found" else metric)
    ]
    require(not silent, f"notices without violations or the version's {metric}: {', '.join(silent)}")


#: After the rollback: what people were told since the alarm.
TOLD = (
    Step(
        id="told",
        title="People were told of the drift, the version that waited, its promotion, the rollback",
        chapter="Tell people",
        run=_told,
        capabilities=lambda _: ("observe.notify",),
        applies=lambda w: w.retraining.notify,
        when=lambda tale: MAILBOX in tale.known,
    ),
)

STEPS = (
    Step(
        id="retrain",
        title="What calls for it starts the retraining function, it the pipeline: a second version, once",
        chapter=CHAPTER,
        run=_retrain,
        capabilities=lambda w: (
            *(("retrain.drift",) if w.retraining.on_drift else ()),
            *(("retrain.newdata",) if w.retraining.on_new_data else ()),
            "retrain.guard",
            "pipeline.sagemaker",
        ),
    ),
    CHALLENGER,
    Step(
        id="rollout",
        title="Approved: traffic moves to the new model, no request fails",
        chapter=CHAPTER,
        run=_canary,
        capabilities=lambda w: rollout_capabilities(w.serving.rollout.strategy),
    ),
    Step(
        id="better",
        title="The new model is better on changed records",
        chapter=CHAPTER,
        run=_better,
        capabilities=lambda _: ("judge.metrics",),
    ),
)
