"""What every cell stands on: the stacks up to the models, and versions that serve well, fail or are slow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehearsal.cdk import Cdk
from rehearsal.story.deployment import describe_all
from rehearsal.story.matrix.cells import Block, Cell
from rehearsal.story.matrix.packages import register_like, slowed
from rehearsal.story.matrix.variants import Variants
from rehearsal.story.rollback import poisoned
from rehearsal.story.serving import approve, await_first_service, parameter_value, serving_stack
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.training import finish

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = [
    "FIRST",
    "GROUND",
    "Ground",
    "deploy_first",
    "model_of",
    "prepare",
    "see_again",
    "settled",
    "versions",
]

GROUND = "matrix ground"
#: What is deployed first; the rollouts build on it.
INSTANCE = {"instance_type": "ml.c5.large"}
FIRST: Block = {
    **INSTANCE,
    "rollout": {
        "strategy": "all_at_once",
        "bake_minutes": 3,
        "max_error_percent": 5,
        "max_latency_ms": 2_000,
    },
}
SETTLED_SECONDS = 240
#: Minutes by the clock in which alarms calm down.
QUIET_MINUTES = 15


@dataclass(kw_only=True)
class Ground:
    """What is deployed now, and the versions there are."""

    variants: Variants
    #: The blocks to come, so that the next is synthesised while this one is played.
    plan: Sequence[Block]
    block: Block | None = None
    #: ARNs of the versions: two that serve well, one whose scores are no numbers, one that is slow.
    good: list[str] = field(default_factory=list)
    failing: str = ""
    slow: str = ""

    def other(self, serving: str) -> str:
        """A good version that does not serve now."""
        return next(arn for arn in self.good if arn != serving)

    def ahead(self) -> None:
        """Begin to synthesise the block after this one."""
        later = list(self.plan)
        if self.block in later:
            rest = later[len(later) - later[::-1].index(self.block) :]
            for block in rest[:1]:
                self.variants.begin(block)


def model_of(package_arn: str) -> str:
    """How an answer names a version: ``<package group>/<version>``."""
    return "/".join(package_arn.split("/")[-2:])


def ground(tale: Tale) -> Ground:
    """The ground of this run."""
    found: Ground = tale.known[GROUND]
    return found


def parts_of(tale: Tale) -> list[str]:
    """The stacks that a cell deploys: models for the promotion, serving for the rest."""
    return [f"{tale.stage}/{tale.workload.id}{part}" for part in ("Models", "Serving")]


def synthesize_first(tale: Tale, evidence: Evidence) -> None:
    """Synthesise the app with the first block; the later steps find it where a story has its assembly."""
    here = ground(tale)
    tale.at_end.callback(here.variants.close)
    made = here.variants.assembly(FIRST)
    tale.assembly.symlink_to(made)
    tale.report.stacks = [
        stack for stack in describe_all(tale.stage_stacks) if not stack["id"].endswith("Operations")
    ]
    evidence["stacks"] = [stack["id"] for stack in tale.report.stacks]


def deploy_first(tale: Tale, evidence: Evidence) -> None:
    """Deploy the serving stack and all that it stands on; nothing watches or retrains meanwhile."""
    here = ground(tale)
    tale.cdk.deploy([f"{tale.stage}/{tale.workload.id}Data", *parts_of(tale)])
    here.block = FIRST
    evidence["parameter"] = parameter_value(tale)
    require(evidence["parameter"] == "none", "a model is approved before there is one")


def train_two(tale: Tale, evidence: Evidence) -> None:
    """Two executions of the pipeline, side by side: two versions in the registry."""
    sagemaker = tale.cloud.client("sagemaker")
    name = tale.outputs("Models")["PipelineName"]
    started = [
        sagemaker.start_pipeline_execution(
            PipelineName=name, PipelineExecutionDisplayName=f"version-{number}"
        )["PipelineExecutionArn"]
        for number in (1, 2)
    ]
    for number, arn in enumerate(started, start=1):
        told: Evidence = {}
        finish(tale, arn, told)
        evidence[f"execution_{number}"] = told
    ground(tale).good = versions(tale)
    evidence["versions"] = ground(tale).good
    require(len(ground(tale).good) == 2, f"two executions registered {len(ground(tale).good)} versions")


def versions(tale: Tale) -> list[str]:
    """The versions in the workload's group, oldest first."""
    found = tale.cloud.client("sagemaker").list_model_packages(
        ModelPackageGroupName=tale.outputs("Models")["ModelPackageGroupName"],
        SortBy="CreationTime",
        SortOrder="Ascending",
    )["ModelPackageSummaryList"]
    return [package["ModelPackageArn"] for package in found]


def register_bad(tale: Tale, evidence: Evidence) -> None:
    """Two versions that pass for good ones and are not: the model file itself is spoiled."""
    here = ground(tale)
    here.failing = register_like(tale, here.good[0], "failing", poisoned, "its trees answer with no number")
    here.slow = register_like(
        tale, here.good[0], "slow", slowed, "it multiplies large matrices before it answers"
    )
    evidence |= {"failing": here.failing, "slow": here.slow}


def first_service(tale: Tale, evidence: Evidence) -> None:
    """The first version comes into service."""
    arn = ground(tale).good[0]
    started = time.monotonic()
    approve(tale, arn)
    endpoint = await_first_service(tale)
    evidence |= {
        "in_service_after_seconds": round(time.monotonic() - started, 1),
        "endpoint": endpoint["EndpointName"],
        "parameter": parameter_value(tale),
    }
    require(evidence["parameter"] == arn, "the parameter is not what was approved")
    ground(tale).ahead()


# ---------------------------------------------------------------------- between the cells


def prepare(tale: Tale, cell: Cell) -> None:
    """Bring the serving stack to a cell's block, with a good version in service, whatever came before."""
    here = ground(tale)
    if _exists(tale):
        settled(tale)
        # A deploy is a rollout too; an alarm that still rings from the cell before would end it.
        _quiet_alarms(tale)
    if here.block != cell.block:
        _deploy(tale, here, cell.block)
    here.ahead()
    if parameter_value(tale) not in here.good:
        approve(tale, here.good[0])
        wait_until(
            "a good version in service again",
            lambda: see_again(tale) and parameter_value(tale) in here.good,
            seconds=120,
        )
        settled(tale)
    _quiet_alarms(tale)


def _quiet_alarms(tale: Tale) -> None:
    """Let minutes pass until no alarm of the stack rings: a rollout with one that does is over at once."""
    alarms = tale.cloud.client("cloudwatch")
    prefix = f"{serving_stack(tale)['StackName']}-"
    for _ in range(QUIET_MINUTES):
        found = alarms.describe_alarms(AlarmNamePrefix=prefix, StateValue="ALARM")["MetricAlarms"]
        # One that makes a fleet smaller rings as long as nobody asks; it ends no rollout.
        ringing = [
            alarm["AlarmName"]
            for alarm in found
            if not any(":scalingPolicy:" in action for action in alarm.get("AlarmActions", ()))
        ]
        if not ringing:
            return
        tale.cloud.advance(minutes=1)
    require(
        not ringing, f"still in ALARM after {QUIET_MINUTES} minutes without requests: {', '.join(ringing)}"
    )


def _deploy(tale: Tale, here: Ground, block: Block) -> None:
    assembly = here.variants.assembly(block)
    serving = parts_of(tale)[1]
    if _exists(tale) and (here.block is None or _style(here.block) != _style(block)):
        # What serves in another way is another thing, and nobody knows what a deploy that failed has left:
        # the old one goes first, as a person would have it.
        tale.cdk.destroy([serving], exclusively=True)
    here.block = None
    cdk = Cdk.of(tale.app, assembly, tale.cloud.server, progress=tale.note)
    cdk.deploy(parts_of(tale), exclusively=True, concurrency=1)
    tale.forget_outputs()
    here.block = block


def _exists(tale: Tale) -> bool:
    client = tale.cloud.client("cloudformation")
    name = tale.cdk.stack_name(parts_of(tale)[1])
    try:
        client.describe_stacks(StackName=name)
    except client.exceptions.ClientError:
        return False
    return True


def _style(block: Block) -> str:
    return str(block.get("style", "real_time"))


def settled(tale: Tale) -> Mapping[str, Any]:
    """Wait until nothing changes the serving stack any more; return it."""

    def found() -> Mapping[str, Any] | None:
        stack = serving_stack(tale)
        return None if stack["StackStatus"].endswith("_IN_PROGRESS") else stack

    stack: Mapping[str, Any] = wait_until("a serving stack at rest", found, seconds=SETTLED_SECONDS)
    return stack


def see_again(tale: Tale) -> bool:
    """Let what waits in the queues be seen again now; the queue itself would wait minutes. Always true."""
    tale.cloud.server.control("POST", "/queues/see-again", {})
    return True
