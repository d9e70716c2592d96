"""ECR's images, the tasks and services of ECS and the load balancers before them."""

from __future__ import annotations

import importlib
import time as _real_time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.ministack_bridge._inside import account_scope, substitute


def correct_ecr() -> None:
    """Answer ``ImageNotFoundException`` for a missing tag.

    ministack answers an empty list, from which the CDK CLI concludes that the image is there and skips its
    build.
    """
    ecr = importlib.import_module("ministack.services.ecr")
    responses = importlib.import_module("ministack.core.responses")
    original = ecr._describe_images

    def describe(data: Mapping[str, Any]) -> Any:
        repository = data.get("repositoryName", "")
        for wanted in data.get("imageIds") or ():
            if repository in ecr._repositories and not ecr._find_image(repository, wanted):
                return responses.error_response_json(
                    "ImageNotFoundException",
                    f"The image with imageId {wanted} does not exist within the repository with name "
                    f"'{repository}'",
                    400,
                )
        return original(data)

    substitute(ecr, "_describe_images", describe)


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What an ECS task's containers need to know of its definition and its service."""

    family: str
    role: str | None
    execution_role: str | None
    #: Port and path at which the service's load balancer looks for health, None without one.
    health: tuple[int, str] | None


def use_task_containers(engine: object) -> None:
    """Start the containers of ECS tasks by ``engine``, which has what ministack uses of a Docker client."""
    ecs = importlib.import_module("ministack.services.ecs")
    substitute(ecs, "_docker", engine)


def task_facts(task_arn: str) -> TaskFacts:
    """Return what is known of a task, by its ARN.

    :raises KeyError: there is no such task
    """
    ecs = importlib.import_module("ministack.services.ecs")
    alb = importlib.import_module("ministack.services.alb")
    account, region = task_arn.split(":")[4], task_arn.split(":")[3]
    with account_scope(account, region):
        task = ecs._tasks[task_arn]
        definition = ecs._task_defs[ecs._resolve_td_key(task["taskDefinitionArn"])]
        name = str(task.get("group", "")).removeprefix("service:")
        service = ecs._services.get(f"{task['clusterArn'].rsplit('/', 1)[-1]}/{name}") or {}
        health = None
        for balancer in service.get("loadBalancers") or ():
            group = alb._tgs.get(balancer.get("targetGroupArn"))
            if group is not None:
                health = (int(balancer["containerPort"]), str(group.get("HealthCheckPath") or "/"))
    return TaskFacts(
        family=str(definition["family"]),
        role=definition.get("taskRoleArn"),
        execution_role=definition.get("executionRoleArn"),
        health=health,
    )


def service_deployment(service_arn: str) -> dict[str, Any]:
    """Return the newest deployment that a service of ECS means, with its count of running tasks."""
    ecs = importlib.import_module("ministack.services.ecs")
    account, region = service_arn.split(":")[4], service_arn.split(":")[3]
    with account_scope(account, region):
        service = ecs._services["/".join(service_arn.split("/")[-2:])]
        primary = ecs._primary_deployment(service) or {}
        failed = [d for d in service.get("deployments", ()) if d.get("rolloutState") == "FAILED"]
        return {
            "definition": service["taskDefinition"],
            "state": primary.get("rolloutState", "COMPLETED"),
            "desired": int(service.get("desiredCount", 0)),
            "running": int(service.get("runningCount", 0)),
            "failed": {d["taskDefinition"]: d.get("rolloutStateReason", "") for d in failed},
        }


@dataclass(frozen=True, kw_only=True)
class BalancedRequest:
    """A request that a load balancer has answered; it and its target group as their metrics name them."""

    balancer: str
    group: str | None
    targets: int
    status: int
    seconds: float


def watch_load_balancers(watcher: Callable[[BalancedRequest], None]) -> None:
    """Call ``watcher(request)`` after each request to an application load balancer."""
    alb = importlib.import_module("ministack.services.alb")
    original = alb.dispatch_request

    async def dispatch(lb: Mapping[str, Any], *args: Any, **given: Any) -> Any:
        began = _real_time.monotonic()
        answer = await original(lb, *args, **given)
        group, targets = None, 0
        for listener in list(alb._listeners.values()):
            for action in listener.get("DefaultActions", ()):
                if listener["LoadBalancerArn"] == lb["LoadBalancerArn"] and action.get("TargetGroupArn"):
                    group = action["TargetGroupArn"].rsplit(":", 1)[-1]
                    targets = len(alb._targets.get(action["TargetGroupArn"]) or ())
        name = lb["LoadBalancerArn"].partition(":loadbalancer/")[2]
        watcher(
            BalancedRequest(
                balancer=name,
                group=group,
                targets=targets,
                status=int(answer[0]),
                seconds=_real_time.monotonic() - began,
            )
        )
        return answer

    substitute(alb, "dispatch_request", dispatch)
