"""What holds within the ``serving`` block: which style takes which block, scaling and rollout."""

from __future__ import annotations

import zoneinfo
from typing import TYPE_CHECKING, Final

from ml_contract.spec.serving import CAPTURING, STYLE_BLOCKS, Strategy, Style

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks

__all__ = ["SCALING", "STRATEGIES", "check_serving"]

_GUARDED: Final[tuple[Strategy, ...]] = ("all_at_once", "canary", "linear", "rolling")
#: Which style moves traffic how. SageMaker Developer Guide, "Deployment guardrails": real-time and
#: asynchronous endpoints only; "Exclusions": rolling takes neither serverless nor several variants. "Shadow
#: tests, Exclusions": no serverless, asynchronous or multi-model endpoint. Inference components are updated
#: in batches (UpdateInferenceComponent, DeploymentConfig: RollingUpdatePolicy only). Lambda moves an alias by
#: CodeDeploy, which knows no batches; ECS replaces tasks as new ones become healthy.
STRATEGIES: Final[dict[Style, tuple[Strategy, ...]]] = {
    "real_time": (*_GUARDED, "ab", "shadow"),
    "serverless": ("all_at_once",),
    "asynchronous": _GUARDED,
    "batch_transform": ("all_at_once",),
    "multi_model": _GUARDED,
    "inference_components": ("rolling",),
    "lambda": ("all_at_once", "canary", "linear"),
    "ecs": ("rolling",),
}
#: Styles whose fleet we scale. Serverless and Lambda scale by themselves, a job has the size it starts with.
SCALING: Final[tuple[Style, ...]] = (
    "real_time",
    "asynchronous",
    "multi_model",
    "inference_components",
    "ecs",
)
#: Styles that may have nobody there: SageMaker Developer Guide, "Autoscale an asynchronous endpoint" and
#: "Scale an endpoint to zero instances" (which needs inference components).
_TO_ZERO: Final[tuple[Style, ...]] = ("asynchronous", "inference_components")
#: Styles that run on instances of their own.
_ON_INSTANCES: Final[tuple[Style, ...]] = (
    "real_time",
    "asynchronous",
    "multi_model",
    "inference_components",
)
#: Which strategy reads an option of the rollout that not all of them read.
_READ_BY: Final[dict[str, tuple[Strategy, ...]]] = {
    "step_percent": ("canary", "linear", "rolling"),
    "bake_minutes": _GUARDED,
    "challenger_percent": ("ab", "shadow"),
    "test_minutes": ("ab", "shadow"),
}
#: A challenger that gets more than half is the champion.
_LARGEST_AB_PERCENT: Final = 50


def check_serving(checks: Checks) -> None:
    """Note what a style does not take."""
    _blocks(checks)
    _instances(checks)
    _scaling(checks)
    _rollout(checks)
    _drift(checks)
    task = checks.workload.label.task
    if "decision_threshold" in checks.workload.serving.model_fields_set and task != "binary":
        checks.wrong(("serving", "decision_threshold"), f"goes with a binary label, got {task}; remove it")


def _blocks(checks: Checks) -> None:
    serving = checks.workload.serving
    for block, style in STYLE_BLOCKS.items():
        if block in serving.model_fields_set and serving.style != style:
            checks.wrong(
                ("serving", block),
                f"goes with style: {style}, got style: {serving.style}; remove the block or set the style",
            )
    if serving.style == "ecs":
        _task_size(checks)


#: Memory (GB) that Fargate offers for a task's CPU units: from, to, in steps of (Amazon ECS Developer Guide,
#: "Task CPU and memory").
_FARGATE: Final[dict[int, tuple[int, int, int]]] = {
    512: (1, 4, 1),
    1024: (2, 8, 1),
    2048: (4, 16, 1),
    4096: (8, 30, 1),
    8192: (16, 60, 4),
    16384: (32, 120, 8),
}


def _task_size(checks: Checks) -> None:
    service = checks.workload.serving.service
    least, most, step = _FARGATE[service.cpu]
    allowed = [gb * 1_024 for gb in range(least, most + 1, step)]
    if service.memory_mb not in allowed:
        checks.wrong(
            ("serving", "service", "memory_mb"),
            f"got {service.memory_mb}; Fargate gives a task of {service.cpu} CPU units {allowed[0]} to "
            f"{allowed[-1]} in steps of {step * 1_024}",
        )


def _instances(checks: Checks) -> None:
    serving = checks.workload.serving
    instead = {
        "serverless": "serverless.memory_mb",
        "batch_transform": "batch.instance_type and batch.instance_count",
        "lambda": "function.memory_mb",
        "ecs": "service.cpu, service.memory_mb and scaling.min_capacity",
    }
    for option in ("instance_type", "initial_instance_count"):
        if option in serving.model_fields_set and serving.style not in _ON_INSTANCES:
            checks.wrong(
                ("serving", option),
                f"goes with styles on instances, got style: {serving.style}; "
                f"use {instead[serving.style]} instead",
            )
    if "capture_percent" in serving.model_fields_set and serving.style not in CAPTURING:
        checks.wrong(
            ("serving", "capture_percent"),
            f"style {serving.style} has no data capture to sample; it goes with {', '.join(CAPTURING)}",
        )


def _scaling(checks: Checks) -> None:
    serving = checks.workload.serving
    scaling, style = serving.scaling, serving.style
    if style not in SCALING:
        if "scaling" in serving.model_fields_set:
            checks.wrong(
                ("serving", "scaling"),
                f"goes with {', '.join(SCALING)}, got style: {style}, which has no fleet to scale; remove it",
            )
        return
    if style == "asynchronous":
        unread = ["kind"] if scaling.kind == "step" else []
        unread += sorted({"target_invocations_per_instance"} & scaling.model_fields_set)
        for option in unread:
            checks.wrong(
                ("serving", "scaling", option),
                "style asynchronous follows its queue; set asynchronous.backlog_per_instance instead",
            )
    if scaling.min_capacity == 0 and style not in _TO_ZERO:
        checks.wrong(
            ("serving", "scaling", "min_capacity"),
            f"got 0, which goes with {' and '.join(_TO_ZERO)}; style {style} needs at least 1",
        )
    for name, schedule in scaling.schedules.items():
        here = ("serving", "scaling", "schedules", name)
        if schedule.min_capacity == 0 and style not in _TO_ZERO:
            checks.wrong(
                (*here, "min_capacity"),
                f"got 0, which goes with {' and '.join(_TO_ZERO)}; style {style} needs at least 1",
            )
        if schedule.timezone not in zoneinfo.available_timezones():
            checks.wrong(
                (*here, "timezone"), f"got {schedule.timezone!r}; an IANA name is needed, e.g. Europe/Vienna"
            )


def _rollout(checks: Checks) -> None:
    serving = checks.workload.serving
    rollout, style = serving.rollout, serving.style
    here = ("serving", "rollout")
    if rollout.strategy not in STRATEGIES[style]:
        takers = [name for name, allowed in STRATEGIES.items() if rollout.strategy in allowed]
        checks.wrong(
            (*here, "strategy"),
            f"got {rollout.strategy}; style {style} takes {', '.join(STRATEGIES[style])} "
            f"({rollout.strategy} goes with {', '.join(takers)})",
        )
        return
    for option, readers in _READ_BY.items():
        if option in rollout.model_fields_set and rollout.strategy not in readers:
            checks.wrong(
                (*here, option),
                f"goes with strategy {', '.join(readers)}, got {rollout.strategy}; remove it",
            )
    if style == "ecs":
        for option in ("step_percent", "bake_minutes"):
            if option in rollout.model_fields_set:
                checks.wrong(
                    (*here, option), "style ecs replaces a task as soon as a new one is healthy; remove it"
                )
    waits = rollout.strategy != "all_at_once" or style not in ("serverless", "batch_transform", "lambda")
    if "bake_minutes" in rollout.model_fields_set and not waits:
        checks.wrong((*here, "bake_minutes"), f"style {style} moves all at once and does not wait; remove it")
    if rollout.strategy == "ab" and rollout.challenger_percent > _LARGEST_AB_PERCENT:
        checks.wrong(
            (*here, "challenger_percent"),
            f"got {rollout.challenger_percent}; with strategy ab at most {_LARGEST_AB_PERCENT}, or the "
            "challenger is the champion",
        )
    if style == "batch_transform":
        for option in ("max_error_percent", "max_latency_ms"):
            if option in rollout.model_fields_set:
                checks.wrong((*here, option), "a batch transform job answers nobody; remove it")


def _drift(checks: Checks) -> None:
    workload = checks.workload
    if workload.serving.captures:
        return
    if workload.retraining.on_drift and "on_drift" in workload.retraining.model_fields_set:
        checks.wrong(
            ("retraining", "on_drift"),
            f"style {workload.serving.style} captures no requests, so no drift is seen; set it to false",
        )
