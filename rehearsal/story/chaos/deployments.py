"""Cells of deployments that go wrong or get in each other's way, through the CDK CLI and CloudFormation."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.cdk import Cdk, CdkError
from rehearsal.story.chaos.loop import HEAL_SECONDS, accounted, sent, unharmed
from rehearsal.story.matrix.packages import register_like
from rehearsal.story.operations.cells import Cell
from rehearsal.story.serving import approve, await_service, describe_endpoint, parameter_value, serving_stack
from rehearsal.story.telling import Evidence, StoryError, require, wait_until
from rehearsal.story.traffic import Answers, Traffic, questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD", "changed_assembly"]

CHAPTER = "Deployments"
#: After the others: versions are approved here, and stacks changed.
ORDER = 70
#: Rollouts that bake as long as it takes to get in their way, and mind no busy machine.
WORKLOAD: Mapping[str, Any] = {
    "serving": {"rollout": {"bake_minutes": 3, "max_error_percent": 5, "max_latency_ms": 5_000}}
}
#: Requests before something is done and after it, in real seconds.
MARGIN_SECONDS = 1.0

Template = dict[str, Any]


# --- another template ---


def changed_assembly(tale: Tale, part: str, name: str, change: Callable[[Template], None]) -> Path:
    """The story's assembly with one stack's template changed, as a later commit would have it."""
    stack = f"{tale.stage}/{tale.workload.id}{part}"
    artifact = next(s for s in tale.cdk.stacks() if s.id.partition(" (")[0] == stack)
    source = tale.assembly.resolve()
    target = tale.out / "chaos" / name
    shutil.rmtree(target, ignore_errors=True)
    inside = artifact.template.resolve().parent.relative_to(source)
    # Links but for the folder of the stage, of which some files are written anew.
    for folder in (source, *(source / parent for parent in reversed((inside / "x").parents[:-1]))):
        own = target / folder.relative_to(source)
        own.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            if source / inside != entry:
                (own / entry.name).symlink_to(entry)
    template = json.loads(artifact.template.read_text(encoding="utf-8"))
    change(template)
    text = json.dumps(template, indent=1)
    file = artifact.template.name
    _rewrite(target / inside / file, text)
    # The CLI uploads a template under the hash of its content, and finds it by that.
    before, after = _hash_of(artifact.template), sha256(text.encode()).hexdigest()
    for found in (f"{file.removesuffix('.template.json')}.assets.json", "manifest.json"):
        path = target / inside / found
        _rewrite(path, path.read_text(encoding="utf-8").replace(before, after))
    return target


def _hash_of(template: Path) -> str:
    """Under what the template is uploaded."""
    assets = json.loads(
        template.with_name(template.name.replace(".template.json", ".assets.json")).read_text("utf-8")
    )
    files: Mapping[str, Any] = assets["files"]
    return next(key for key, file in files.items() if file["source"]["path"] == template.name)


def _rewrite(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text, encoding="utf-8")


def _deploy(tale: Tale, assembly: Path, part: str) -> None:
    """Deploy one stack by the CDK CLI."""
    cdk = Cdk.of(tale.app, assembly, tale.cloud.server, progress=tale.note)
    cdk.deploy([f"{tale.stage}/{tale.workload.id}{part}"], exclusively=True, concurrency=1)


def _resource(template: Template, resource_type: str, within: str = "") -> tuple[str, dict[str, Any]]:
    """A resource of a template by its type and a part of its logical id."""
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] == resource_type and within in logical_id:
            return logical_id, resource["Properties"]
    raise StoryError(f"the template has no {resource_type} {within}")


def _fail(tale: Tale, part: str, resource: str) -> None:
    """Plan that the next change of a resource fails (``rehearsal.cloudformation.faults``)."""
    stack = tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}{part}")
    tale.cloud.server.control("POST", "/faults/stacks", {"stack": stack, "resource": resource})


def _status(tale: Tale, part: str) -> str:
    name = tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}{part}")
    found: str = tale.cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0][
        "StackStatus"
    ]
    return found


# --- half-way ---


def _another_container(template: Template) -> None:
    """A new model, so that the endpoint is given a new configuration; then its scaling."""
    _, model = _resource(template, "AWS::SageMaker::Model")
    container = model.get("PrimaryContainer") or model["Containers"][0]
    container.setdefault("Environment", {})["CHANGED_BY"] = "a later commit"
    _, target = _resource(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    target["MaxCapacity"] = int(target["MaxCapacity"]) + 1


def _serving_fails(tale: Tale, evidence: Evidence) -> None:
    """The endpoint serves the new container already when its scaling fails: all of it is taken back."""
    before = describe_endpoint(tale)["EndpointConfigName"]
    bodies = questions(tale, tale.inputs.live[:40])
    assembly = changed_assembly(tale, "Serving", "serving", _another_container)
    with unharmed(tale, evidence):
        _fail(tale, "Serving", "ScalingTarget")
        with Traffic(tale, bodies) as traffic:
            evidence["cli"] = _refused(tale, assembly, "Serving")
            time.sleep(MARGIN_SECONDS)
        evidence |= {
            **traffic.answers.summary(),
            "stack": _status(tale, "Serving"),
            "rollouts": _rollouts(tale),
            "endpoint_config_is_the_one_before": describe_endpoint(tale)["EndpointConfigName"] == before,
        }
        _all_answered(traffic.answers)
        require(
            evidence["stack"] == "UPDATE_ROLLBACK_COMPLETE",
            f"an update that failed half-way left the stack {evidence['stack']}",
        )
        require(evidence["endpoint_config_is_the_one_before"], "the endpoint is on another configuration")
    _deploy(tale, changed_assembly(tale, "Serving", "serving-again", _less_patience), "Serving")
    evidence["the_next_deploy"] = _status(tale, "Serving")
    require(evidence["the_next_deploy"] == "UPDATE_COMPLETE", f"the next is {evidence['the_next_deploy']}")


def _less_patience(template: Template) -> None:
    """Another threshold of an alarm: a small change."""
    _, alarm = _resource(template, "AWS::CloudWatch::Alarm", "Silent")
    alarm["AlarmDescription"] = "changed by a later commit"


def _rollouts(tale: Tale) -> int:
    name = describe_endpoint(tale)["EndpointName"]
    return sum(e["kind"] == "deployment" and e["name"] == name for e in tale.cloud.ledger())


def _refused(tale: Tale, assembly: Path, part: str) -> str:
    """Deploy what is to fail; what the CLI says."""
    try:
        _deploy(tale, assembly, part)
    except CdkError as error:
        return str(error)[-300:]
    raise StoryError("the deploy was to fail and did not")


def _all_answered(answers: Answers) -> None:
    require(
        not answers.failed,
        f"{len(answers.failed)} of {len(answers.answers)} requests failed: "
        f"{answers.failed[0].error if answers.failed else ''}",
    )


def _another_ingestion(template: Template) -> None:
    """More memory for the transform, and later another patience of the stream's consumer."""
    _, function = _resource(template, "AWS::Lambda::Function", "IngestionTransform")
    function["MemorySize"] = int(function.get("MemorySize", 128)) + 64
    _, mapping = _resource(template, "AWS::Lambda::EventSourceMapping", "Consumer")
    mapping["MaximumBatchingWindowInSeconds"] = 2


def _data_fails(tale: Tale, evidence: Evidence) -> None:
    """The function that checks records is changed already when its neighbour fails; records arrive."""
    assembly = changed_assembly(tale, "Data", "data", _another_ingestion)
    with unharmed(tale, evidence):
        _fail(tale, "Data", "ConsumerMapping")
        memory = _transform(tale)["MemorySize"]
        with ThreadPoolExecutor(1) as pool:
            deploy = pool.submit(_refused, tale, assembly, "Data")
            wait_until(
                "the beginning of the deploy",
                lambda: _status(tale, "Data") == "UPDATE_IN_PROGRESS" or deploy.done(),
                seconds=60,
                every=0.05,
            )
            during = sent(tale)
            evidence["cli"] = deploy.result()
        account = accounted(tale, during)
        evidence |= {
            "stack": _status(tale, "Data"),
            "records_sent_during_it": account.sent,
            "of_them_delivered": account.delivered,
            "memory_is_the_one_before": _transform(tale)["MemorySize"] == memory,
        }
        require(
            evidence["stack"] == "UPDATE_ROLLBACK_COMPLETE",
            f"an update that failed half-way left the stack {evidence['stack']}",
        )
        require(evidence["memory_is_the_one_before"], "what was changed before the failure stayed changed")
    _deploy(tale, assembly, "Data")
    evidence |= {"the_next_deploy": _status(tale, "Data"), "memory_now": _transform(tale)["MemorySize"]}
    require(evidence["the_next_deploy"] == "UPDATE_COMPLETE", f"the next is {evidence['the_next_deploy']}")


def _transform(tale: Tale) -> Mapping[str, Any]:
    client = tale.cloud.client("lambda")
    pages = client.get_paginator("list_functions").paginate()
    found: Mapping[str, Any] = next(
        f for page in pages for f in page["Functions"] if "IngestionTransform" in f["FunctionName"]
    )
    return found


# --- in each other's way ---


def _same(archive: bytes) -> bytes:
    return archive


def _version(tale: Tale, name: str) -> str:
    """One more version that is as good as the one that serves."""
    return register_like(tale, parameter_value(tale), name, _same, "the same model once more")


def _started(tale: Tale, before: Any) -> None:
    wait_until(
        "the start of the serving stack's update",
        lambda: serving_stack(tale).get("LastUpdatedTime") != before,
        seconds=60,
        every=0.05,
    )


def _approved_during_a_rollout(tale: Tale, evidence: Evidence) -> None:
    """The second version waits for the end of the first one's rollout, then serves; each is promoted once."""
    first, second = _version(tale, "chaos-first"), _version(tale, "chaos-second")
    bodies = questions(tale, tale.inputs.live[:40])
    with unharmed(tale, evidence, promotions=2):
        before = serving_stack(tale).get("LastUpdatedTime")
        with Traffic(tale, bodies) as traffic:
            approve(tale, first)
            _started(tale, before)
            evidence["injected"] = {f"an approval while {serving_stack(tale)['StackStatus']}": 1}
            approve(tale, second)
            _in_service(tale, second)
        evidence |= {**traffic.answers.summary(), "serving": second.rsplit("/", 1)[-1]}
        require(
            "an approval while UPDATE_IN_PROGRESS" in evidence["injected"], "the rollout was over already"
        )
        _all_answered(traffic.answers)
    tale.known["serving"] = second


def _in_service(tale: Tale, package: str) -> None:
    """Wait until a version is approved and served; what waits in queues is seen again at once."""

    def there() -> bool:
        tale.cloud.server.control("POST", "/queues/see-again", {})
        return parameter_value(tale) == package and serving_stack(tale)["StackStatus"] == "UPDATE_COMPLETE"

    wait_until(f"{package} in service", there, seconds=HEAL_SECONDS)
    await_service(tale)


def _deployed_during_a_rollout(tale: Tale, evidence: Evidence) -> None:
    """A person deploys into a promotion's rollout: it is refused or waits, and neither is lost."""
    package = _version(tale, "chaos-third")
    assembly = changed_assembly(tale, "Serving", "during", _less_patience)
    bodies = questions(tale, tale.inputs.live[:40])
    with unharmed(tale, evidence, promotions=1):
        before = serving_stack(tale).get("LastUpdatedTime")
        with Traffic(tale, bodies) as traffic:
            approve(tale, package)
            _started(tale, before)
            evidence["injected"] = {f"a deploy while {serving_stack(tale)['StackStatus']}": 1}
            try:
                _deploy(tale, assembly, "Serving")
                evidence["cli"] = "deployed after it"
            except CdkError as error:
                evidence["cli"] = str(error)[-300:]
            _in_service(tale, package)
        evidence |= {**traffic.answers.summary(), "stack": serving_stack(tale)["StackStatus"]}
        require("a deploy while UPDATE_IN_PROGRESS" in evidence["injected"], "the rollout was over already")
        _all_answered(traffic.answers)
        _deploy(tale, assembly, "Serving")
        evidence["deployed_again"] = _status(tale, "Serving")
    tale.known["serving"] = package


def _deployed_by_a_person(tale: Tale, evidence: Evidence) -> None:
    """An approval while a person deploys: it waits for the end of the deploy, then serves."""
    package = _version(tale, "chaos-fourth")
    assembly = changed_assembly(tale, "Serving", "person", _another_container)
    bodies = questions(tale, tale.inputs.live[:40])
    with unharmed(tale, evidence, promotions=1):
        before = serving_stack(tale).get("LastUpdatedTime")
        with Traffic(tale, bodies) as traffic, ThreadPoolExecutor(1) as pool:
            deploy = pool.submit(_deploy, tale, assembly, "Serving")
            _started(tale, before)
            evidence["injected"] = {f"an approval while {serving_stack(tale)['StackStatus']}": 1}
            approve(tale, package)
            deploy.result()
            evidence["stack_after_the_deploy"] = serving_stack(tale)["StackStatus"]
            _in_service(tale, package)
        evidence |= {**traffic.answers.summary(), "serving": package.rsplit("/", 1)[-1]}
        require("an approval while UPDATE_IN_PROGRESS" in evidence["injected"], "the deploy was over already")
        _all_answered(traffic.answers)
    tale.known["serving"] = package


CELLS = (
    Cell(
        id="deploy.serving",
        title="An update fails after the endpoint has changed: all of it is taken back, nobody notices",
        chapter=CHAPTER,
        run=_serving_fails,
        capabilities=("roll.rollback",),
    ),
    Cell(
        id="deploy.data",
        title="An update of the way into the lake fails half-way while records arrive",
        chapter=CHAPTER,
        run=_data_fails,
        capabilities=("stream.firehose",),
    ),
    Cell(
        id="deploy.approval",
        title="Approved in the middle of another version's rollout: it waits, then serves",
        chapter=CHAPTER,
        run=_approved_during_a_rollout,
        capabilities=("registry.versions",),
    ),
    Cell(
        id="deploy.during",
        title="A deploy into a rollout: the rollout ends, the deploy works at its next attempt",
        chapter=CHAPTER,
        run=_deployed_during_a_rollout,
        capabilities=("registry.versions",),
    ),
    Cell(
        id="deploy.person",
        title="Approved while a person deploys: it waits, then serves",
        chapter=CHAPTER,
        run=_deployed_by_a_person,
        capabilities=("registry.versions",),
    ),
)
