"""The ``serving`` block: one style, and what goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.checks.serving import STRATEGIES
from ml_contract.load import ContractError, load_workload
from ml_contract.spec.serving import DEFAULT_STRATEGY, STYLE_BLOCKS, Serving

BINARY = """\
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number}
    late: {type: boolean}
label: {task: binary, field: late, values: [false, true]}
acceptance: {metric: f1, at_least: 0.1}
"""


def serving(tmp_path: Path, block: str, more: str = "") -> Serving:
    folder = tmp_path / "parcel_delay"
    folder.mkdir(exist_ok=True)
    (folder / "workload.yaml").write_text(f"{BINARY}serving: {block}\n{more}")
    return load_workload(folder).workload.serving


def refusals(tmp_path: Path, block: str, more: str = "") -> list[str]:
    with pytest.raises(ContractError) as caught:
        serving(tmp_path, block, more)
    return [f"{p.line} {p.path}: {p.message}" for p in caught.value.problems]


def test_should_serve_in_real_time_by_canary_unless_told_otherwise(tmp_path: Path) -> None:
    block = serving(tmp_path, "{}")
    assert (block.style, block.rollout.strategy, block.batch) == ("real_time", "canary", None)
    assert (block.scaling.kind, block.scaling.schedules) == ("target", {})


@pytest.mark.parametrize("style", list(STRATEGIES))
def test_should_know_a_style_and_how_it_rolls_out_by_default(tmp_path: Path, style: str) -> None:
    block = serving(tmp_path, f"{{style: {style}}}")
    assert block.rollout.strategy == DEFAULT_STRATEGY[style]
    assert (block.batch is not None) == (style == "batch_transform")


@pytest.mark.parametrize("style", list(STRATEGIES))
def test_should_take_the_strategies_of_a_style_and_no_others(tmp_path: Path, style: str) -> None:
    every = ("all_at_once", "canary", "linear", "rolling", "ab", "shadow")
    for strategy in every:
        text = f"{{style: {style}, rollout: {{strategy: {strategy}}}}}"
        if strategy in STRATEGIES[style]:  # type: ignore[index]
            assert serving(tmp_path, text).rollout.strategy == strategy
        else:
            [line] = refusals(tmp_path, text)
            assert line.startswith(f"15 serving.rollout.strategy: got {strategy}; style {style} takes ")


@pytest.mark.parametrize("block", list(STYLE_BLOCKS))
def test_should_refuse_the_block_of_another_style(tmp_path: Path, block: str) -> None:
    assert refusals(tmp_path, f"{{{block}: {{}}}}") == [
        f"15 serving.{block}: goes with style: {STYLE_BLOCKS[block]}, got style: real_time; remove the block "
        "or set the style"
    ]
    assert serving(tmp_path, f"{{style: {STYLE_BLOCKS[block]}, {block}: {{}}}}")


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        ("{style: serverless, instance_type: ml.c5.large}", "use serverless.memory_mb instead"),
        ("{style: lambda, initial_instance_count: 2}", "use function.memory_mb instead"),
        ("{style: serverless, capture_percent: 50}", "has no data capture"),
        ("{style: lambda, scaling: {max_capacity: 3}}", "which has no fleet to scale; remove it"),
        ("{style: asynchronous, scaling: {target_invocations_per_instance: 3}}", "backlog_per_instance"),
        ("{scaling: {min_capacity: 0}}", "got 0, which goes with asynchronous and inference_components"),
        (
            "{scaling: {schedules: {night: {cron: 0 20 * * ? *, min_capacity: 0, max_capacity: 1}}}}",
            "night.min_capacity: got 0",
        ),
        (
            "{scaling: {schedules: {night: {cron: 0 20 * * ? *, timezone: Vienna, min_capacity: 1, "
            "max_capacity: 1}}}}",
            "'Vienna'; an IANA name is needed",
        ),
        ("{rollout: {strategy: ab, challenger_percent: 60}}", "with strategy ab at most 50"),
        ("{rollout: {strategy: ab, step_percent: 20}}", "goes with strategy canary, linear, rolling, got ab"),
        ("{rollout: {test_minutes: 20}}", "goes with strategy ab, shadow, got canary"),
        ("{style: serverless, rollout: {bake_minutes: 3}}", "moves all at once and does not wait"),
        ("{style: batch_transform, rollout: {max_latency_ms: 3}}", "answers nobody"),
        ("{style: ecs, service: {cpu: 512, memory_mb: 8192}}", "1024 to 4096 in steps of 1024"),
        ("{scaling: {steps: [{above: 3, add: 1}]}}", "steps go with kind: step"),
        ("{scaling: {kind: step, steps: [{above: 3, add: 1}]}}", "one with below"),
        (
            "{scaling: {kind: step, steps: [{above: 3, add: 1}, {below: 3, add: -1}]}}",
            "the fleet never rests",
        ),
        ("{scaling: {kind: step, steps: [{above: 3, add: -1}, {below: 1, add: -1}]}}", "adds at least 1"),
        ("{style: batch_transform, batch: {every_hours: null}}", "no job ever starts"),
        ("{batch: {on_new_data: true}}", "scored twice"),
        (
            "{style: serverless, serverless: {max_concurrency: 2, provisioned_concurrency: 3}}",
            "provisioned_concurrency 3 is above max_concurrency 2",
        ),
    ],
)
def test_should_refuse_what_a_style_would_ignore(tmp_path: Path, block: str, wanted: str) -> None:
    found = refusals(tmp_path, block)
    assert any(wanted in line and line.startswith("15 serving") for line in found), found


def test_should_refuse_drift_where_nothing_is_captured(tmp_path: Path) -> None:
    [line] = refusals(tmp_path, "{style: lambda}", "retraining: {on_drift: true}\n")
    assert line.startswith("16 retraining.on_drift: style lambda captures no requests")
    assert serving(tmp_path, "{style: lambda}", "retraining: {on_drift: false}\n")


def test_should_scale_to_zero_where_sagemaker_does(tmp_path: Path) -> None:
    for style in ("asynchronous", "inference_components"):
        block = serving(tmp_path, f"{{style: {style}, scaling: {{min_capacity: 0}}}}")
        assert block.scaling.min_capacity == 0
