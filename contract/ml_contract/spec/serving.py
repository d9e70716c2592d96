"""The ``serving`` block: how the approved model answers, and how traffic moves to it.

One switch, ``style``, says how; a style's own block goes with that style only. What holds between style,
scaling and rollout stands in ``checks.serving``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Percent, Strict
from ml_contract.spec.scaling import ServingScaling

__all__ = [
    "CAPTURING",
    "DEFAULT_STRATEGY",
    "STYLE_BLOCKS",
    "Asynchronous",
    "BatchTransform",
    "Components",
    "EcsService",
    "Edge",
    "LambdaFunction",
    "MultiModel",
    "Recommend",
    "Rollout",
    "Serverless",
    "Serving",
    "Strategy",
    "Style",
]

Style = Literal[
    "real_time",
    "serverless",
    "asynchronous",
    "batch_transform",
    "multi_model",
    "inference_components",
    "lambda",
    "ecs",
]
Strategy = Literal["all_at_once", "canary", "linear", "rolling", "ab", "shadow"]

#: The block that belongs to a style, where it has one. ``batch`` goes beside every style.
STYLE_BLOCKS: Final[dict[str, Style]] = {
    "serverless": "serverless",
    "asynchronous": "asynchronous",
    "multi_model": "multi_model",
    "components": "inference_components",
    "function": "lambda",
    "service": "ecs",
}
#: How traffic moves when the workload does not say.
DEFAULT_STRATEGY: Final[dict[str, Strategy]] = {
    "real_time": "canary",
    "serverless": "all_at_once",
    "asynchronous": "canary",
    "batch_transform": "all_at_once",
    "multi_model": "canary",
    "inference_components": "rolling",
    "lambda": "all_at_once",
    "ecs": "rolling",
}
#: Styles whose requests SageMaker captures (Developer Guide, "Deploy models with SageMaker Serverless
#: Inference": no data capture; Lambda and ECS are not SageMaker; a transform job captures in another form).
CAPTURING: Final[tuple[Style, ...]] = ("real_time", "asynchronous", "multi_model", "inference_components")


class Serverless(Strict):
    """Style ``serverless``: what one container is given and how many there may be.

    Bounds: CreateEndpointConfig, ProductionVariantServerlessConfig.
    """

    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    max_concurrency: int = Field(default=5, ge=1, le=200, description="Requests at once; more are throttled.")
    provisioned_concurrency: int | None = Field(
        default=None, ge=1, le=200, description="Containers kept warm; null for none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        warm = self.provisioned_concurrency
        if warm is not None and warm > self.max_concurrency:
            raise ValueError(
                f"provisioned_concurrency {warm} is above max_concurrency {self.max_concurrency}; lower it"
            )
        return self


class Asynchronous(Strict):
    """Style ``asynchronous``: requests are objects in S3 and wait in a queue.

    ``max_concurrent_per_instance``: CreateEndpointConfig, AsyncInferenceClientConfig.
    """

    max_concurrent_per_instance: int = Field(default=4, ge=1, le=1_000)
    backlog_per_instance: int = Field(
        default=5, ge=1, description="Waiting requests an instance; the fleet grows and shrinks towards it."
    )


class BatchTransform(Strict):
    """Batch transform jobs: style ``batch_transform``, or beside any other style.

    Bounds: CreateTransformJob, MaxPayloadInMB and TransformResources.
    """

    every_hours: int | None = Field(
        default=24, ge=1, le=168, description="How often what lies in the input folder is scored; null: not."
    )
    on_new_data: bool = Field(default=False, description="Also when an object lands in the input folder.")
    instance_type: str = "ml.m5.large"
    instance_count: int = Field(default=1, ge=1, le=100)
    join: Literal["input", "none"] = Field(
        default="none", description="input: each answer stands beside the record that it belongs to."
    )
    content_type: Literal["application/jsonlines", "text/csv"] = Field(
        default="application/jsonlines", description="Format of the input: a record a line."
    )
    max_payload_mb: int = Field(default=6, ge=1, le=100, description="Largest request to the container.")
    strategy: Literal["MULTI_RECORD", "SINGLE_RECORD"] = Field(
        default="MULTI_RECORD", description="As many records a request as fit, or one."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.every_hours is None and not self.on_new_data:
            raise ValueError("every_hours is null and on_new_data is false, so no job ever starts; set one")
        if self.every_hours is not None and self.on_new_data:
            raise ValueError(
                "every_hours and on_new_data are both set, and each object would be scored twice; keep one"
            )
        return self


class MultiModel(Strict):
    """Style ``multi_model``: the approved versions side by side, each by its own name."""

    keep_versions: int = Field(
        default=5, ge=1, le=1_000, description="Latest approved versions that stay callable."
    )
    cache: bool = Field(default=True, description="Whether a model stays in memory after a request.")


class Components(Strict):
    """Style ``inference_components``: what one copy of the model needs of the fleet."""

    copies: int = Field(default=1, ge=1, le=100, description="Copies at the start; scaling changes them.")
    cpus: float = Field(default=1, ge=0.25, description="Processor cores of a copy.")
    memory_mb: int = Field(default=1_024, ge=128, description="Memory of a copy.")
    accelerators: int = Field(default=0, ge=0, le=16, description="GPUs or Neuron devices of a copy.")
    max_instances: int = Field(
        default=4, ge=1, le=100, description="Largest fleet; SageMaker adds instances as copies need them."
    )


class LambdaFunction(Strict):
    """Style ``lambda``: the serving image as a function. Bounds: Lambda quotas."""

    memory_mb: int = Field(default=2_048, ge=512, le=10_240)
    timeout_seconds: int = Field(default=60, ge=1, le=900)
    reserved_concurrency: int | None = Field(
        default=None, ge=1, le=10_000, description="Largest number of requests at once; null: the account's."
    )


class EcsService(Strict):
    """Style ``ecs``: the serving image on Fargate. Bounds: Fargate's task sizes."""

    cpu: Literal[512, 1024, 2048, 4096, 8192, 16384] = Field(
        default=1024, description="Units; 1024 is one processor."
    )
    memory_mb: int = Field(default=2_048, ge=1_024, le=122_880)


class Edge(Strict):
    """The approved model as a component of AWS IoT Greengrass, beside any style."""

    architecture: Literal["amd64", "aarch64"] = Field(
        default="aarch64", description="Processor of the devices: what ONNX Runtime has wheels for."
    )
    port: int = Field(default=8080, ge=1_024, le=65_535, description="Where it listens, on 127.0.0.1 only.")


class Recommend(Strict):
    """SageMaker Inference Recommender: which instance the approved model should run on."""

    instance_types: tuple[str, ...] = Field(
        default=(), max_length=10, description="Types to be measured; none: SageMaker picks them."
    )


class Rollout(Strict):
    """How traffic moves to a new model, and what moves it back."""

    strategy: Strategy = Field(
        default="canary",
        description="Left out: canary; all_at_once for serverless, lambda and batch_transform; rolling for "
        "inference_components and ecs. ab and shadow try the approved model beside the old one first.",
    )
    step_percent: int = Field(
        default=10,
        ge=5,
        le=50,
        description="Share of the first step (canary), of each step (linear), of a batch (rolling).",
    )
    bake_minutes: int = Field(
        default=10, ge=1, le=60, description="Wait after each step; alarms roll back meanwhile."
    )
    max_error_percent: float = Field(default=1.0, gt=0, le=100)
    max_latency_ms: int = Field(default=500, ge=1, le=60_000, description="p99 of ModelLatency.")
    challenger_percent: Percent = Field(
        default=10,
        description="ab: share of live traffic that the challenger answers; shadow: share that it gets a copy"
        " of.",
    )
    test_minutes: int = Field(
        default=60,
        ge=1,
        le=10_080,
        description="ab and shadow: how long the challenger is tried; then it is promoted or rejected.",
    )


class Serving(Strict):
    """How the approved model answers."""

    style: Style = "real_time"
    instance_type: str = "ml.m5.large"
    initial_instance_count: int = Field(default=1, ge=1, le=100)
    serverless: Serverless = Serverless()
    asynchronous: Asynchronous = Asynchronous()
    batch: BatchTransform | None = Field(
        default=None, description="Batch transform jobs, beside any style; null for none."
    )
    recommend: Recommend | None = Field(
        default=None,
        description="A state machine that asks Inference Recommender, started by hand; null for none.",
    )
    edge: Edge | None = Field(default=None, description="On devices too; null for not.")
    multi_model: MultiModel = MultiModel()
    components: Components = Components()
    function: LambdaFunction = LambdaFunction()
    service: EcsService = EcsService()
    scaling: ServingScaling = ServingScaling()
    rollout: Rollout = Rollout()
    capture_percent: Percent = 100
    decision_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="Binary only: positive from this score on."
    )

    @property
    def captures(self) -> bool:
        """Whether SageMaker captures requests of this style for a monitor to judge."""
        return self.style in CAPTURING

    @model_validator(mode="after")
    def _by_style(self) -> Self:
        """Fill in what hangs on the style: the strategy, and the batch jobs of ``batch_transform``."""
        strategy = DEFAULT_STRATEGY[self.style]
        if "strategy" not in self.rollout.model_fields_set and self.rollout.strategy != strategy:
            # The model is frozen for its readers; this is still its making.
            object.__setattr__(self, "rollout", self.rollout.model_copy(update={"strategy": strategy}))
        if self.style == "batch_transform" and self.batch is None:
            object.__setattr__(self, "batch", BatchTransform())
        return self
