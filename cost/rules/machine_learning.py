"""SageMaker: endpoints, training pipelines, the Feature Store, tracking, clusters."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from cost.assembly import Resource
from cost.load import DAYS, HOURS
from cost.rules.base import Context, Usage, priced
from cost.rules.compute import instances

#: Seconds of compute of a serverless prediction.
SECONDS_PER_PREDICTION = 0.1


@priced("AWS::SageMaker::EndpointConfig")
def endpoint(resource: Resource, context: Context) -> Iterator[Usage]:
    """Instances that are always there, those that the load adds, or the milliseconds of a serverless one."""
    if context.stack.asks_for_challenger(resource.condition):
        return
    for variant in _variants(resource):
        serverless = variant.get("ServerlessConfig")
        if serverless is not None:
            gb = float(serverless["MemorySizeInMB"]) / 1024
            yield Usage(
                price="sagemaker.serverless",
                quantity=context.predictions * SECONDS_PER_PREDICTION * gb,
                why=f"{SECONDS_PER_PREDICTION:g} s each",
                state="load",
            )
            continue
        kind = variant.get("InstanceType")
        if not isinstance(kind, str):
            continue
        least = _least(variant, context)
        price = f"sagemaker.instance:{kind}"
        if least:
            yield Usage(
                price=price,
                quantity=HOURS * least,
                why=f"{least} instance(s) from the approval of a model on, whoever asks",
                state="serving",
            )
        more = _instances_at_load(context) - least
        if more > 0:
            yield Usage(
                price=price,
                quantity=HOURS * more,
                why=f"{more} more for the busiest minute of the load",
                state="load",
            )


def _variants(resource: Resource) -> list[dict[str, Any]]:
    """The variants, those inside a condition left out: a challenger is there for a while only."""
    found = resource.properties.get("ProductionVariants", ())
    return [v for v in found if isinstance(v, dict) and "Fn::If" not in v]


def _least(variant: dict[str, Any], context: Context) -> int:
    """Instances that stay when nobody asks."""
    minimum = [
        int(target.properties["MinCapacity"])
        for target in context.stack.of_type("AWS::ApplicationAutoScaling::ScalableTarget")
        if "DesiredInstanceCount" in (target.text("ScalableDimension") or "")
        and f"variant/{variant.get('VariantName')}" in (target.text("ResourceId") or "")
    ]
    return min(minimum) if minimum else int(variant.get("InitialInstanceCount", 1))


def _instances_at_load(context: Context) -> int:
    if context.workload is None or context.load is None:
        return 0
    scaling = context.workload.serving.scaling
    a_minute = context.load.predictions_per_day / 1440 * context.assumptions.peak
    needed = math.ceil(a_minute / scaling.target_invocations_per_instance)
    return min(max(needed, scaling.min_capacity), scaling.max_capacity)


@priced("AWS::SageMaker::Pipeline")
def pipeline(resource: Resource, context: Context) -> Iterator[Usage]:
    """Each job of the pipeline, as often as the workload's schedule starts it."""
    days = None if context.workload is None else context.workload.retraining.every_days
    if days is None:
        return
    runs = DAYS / days
    minutes = context.assumptions
    for step in _steps(resource):
        kind = str(step.get("Type"))
        each = minutes.training_minutes if kind in ("Training", "Tuning") else minutes.processing_minutes
        trials = int(
            step.get("Arguments", {})
            .get("HyperParameterTuningJobConfig", {})
            .get("ResourceLimits", {})
            .get("MaxNumberOfTrainingJobs", 1)
        )
        for name, count in instances(json.dumps(step)):
            yield Usage(
                price=f"sagemaker.instance:{name}",
                quantity=count * trials * runs * each / 60,
                why=f"{step.get('Name')}: {runs:.1f} runs of {each:g} minutes"
                + (f", {trials} trials" if trials > 1 else ""),
            )


def _steps(resource: Resource) -> list[dict[str, Any]]:
    """The steps of a pipeline that run something, those inside conditions too."""
    body = resource.properties["PipelineDefinition"]["PipelineDefinitionBody"]
    # Its placeholders stand inside texts: it is JSON as it is.
    template = body["Fn::Sub"] if isinstance(body, dict) else body
    document = json.loads(template if isinstance(template, str) else template[0])
    found: list[dict[str, Any]] = []
    waiting: list[Any] = list(document.get("Steps", ()))
    while waiting:
        step = waiting.pop(0)
        if step.get("Type") == "Condition":
            waiting += [*step["Arguments"].get("IfSteps", ()), *step["Arguments"].get("ElseSteps", ())]
        else:
            found.append(step)
    return found


@priced("AWS::SageMaker::FeatureGroup")
def features(resource: Resource, context: Context) -> Iterator[Usage]:
    """Writes of the online store (1 KB each), reads of predictions (4 KB each); nothing at rest."""
    if resource.text("OnlineStoreConfig") is None:
        return
    columns = len(resource.properties.get("FeatureDefinitions", ()))
    size = columns * context.assumptions.bytes_per_field
    yield Usage(
        price="featurestore.write",
        quantity=context.records * math.ceil(size / 1024) / 1e6,
        why="a write for each record",
        state="load",
    )
    yield Usage(
        price="featurestore.kept",
        quantity=context.records * size * context.assumptions.months_kept / 1024**3,
        why="records that are kept online",
        state="load",
    )


@priced("AWS::SageMaker::MlflowTrackingServer")
def tracking(resource: Resource, context: Context) -> Iterator[Usage]:
    """Hours of the server."""
    size = resource.text("TrackingServerSize") or "Small"
    yield Usage(price=f"mlflow.{size}", quantity=HOURS, why="the tracking server, whoever trains")


@priced("AWS::SageMaker::Cluster")
def cluster(resource: Resource, context: Context) -> Iterator[Usage]:
    """Instances of each group, all the time."""
    for group in resource.properties.get("InstanceGroups", ()):
        yield Usage(
            price=f"sagemaker.instance:{group['InstanceType']}",
            quantity=HOURS * float(group["InstanceCount"]),
            why=f"group {group.get('InstanceGroupName')}",
        )


@priced(
    "AWS::SageMaker::DataQualityJobDefinition",
    "AWS::SageMaker::ModelQualityJobDefinition",
    "AWS::SageMaker::ModelBiasJobDefinition",
    "AWS::SageMaker::ModelExplainabilityJobDefinition",
)
def monitor(resource: Resource, context: Context) -> Iterator[Usage]:
    """A processing job for each run of its schedule; there is none before a model is approved."""
    kind = resource.text("JobResources", "ClusterConfig", "InstanceType")
    every = _every_hours(resource.type, context)
    minutes = context.assumptions.processing_minutes
    yield Usage(
        price=f"sagemaker.instance:{kind}",
        quantity=HOURS / every * minutes / 60,
        why=f"a job every {every} hour(s) of {minutes:g} minutes",
        state="serving",
    )


def _every_hours(kind: str, context: Context) -> int:
    """How often a monitor of a kind runs, as the workload says."""
    if context.workload is None:
        return 1
    monitoring = context.workload.monitoring
    blocks = {
        "AWS::SageMaker::ModelQualityJobDefinition": monitoring.quality,
        "AWS::SageMaker::ModelBiasJobDefinition": monitoring.bias,
        "AWS::SageMaker::ModelExplainabilityJobDefinition": monitoring.attribution,
    }
    block = blocks.get(kind)
    return monitoring.every_hours if block is None else block.every_hours


@priced("AWS::SageMaker::Domain")
def studio(resource: Resource, context: Context) -> Iterator[Usage]:
    """Instances of people who work in it: nobody at rest."""
    yield Usage(price="sagemaker.studio", quantity=1, why="instances of who works in it", state="load")
