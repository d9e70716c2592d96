"""CodeDeploy for Lambda: an alias moves to its new version in steps, watched by alarms, and goes back.

Source: "Deployments on an AWS Lambda compute platform" and "Deployment configurations", CodeDeploy user
guide. The deployment group's role must be allowed to move the alias. Hook functions are not called.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.executors.serving.deployments import ringing
from rehearsal.iam import AccessDeniedError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["AliasError", "install", "steps_of"]

_WATCH_SECONDS = 10.0
_BUILT_IN = re.compile(
    r"CodeDeployDefault\.Lambda(?:(?P<once>AllAtOnce)|Canary(?P<canary>\d+)Percent(?P<after>\d+)Minutes?"
    r"|Linear(?P<linear>\d+)PercentEvery(?P<every>\d+)Minutes?)"
)


class AliasError(Exception):
    """A deployment that cannot be made, or was taken back; the text is the reason."""


def steps_of(name: str, config: Mapping[str, Any] | None) -> list[tuple[float, float]]:
    """The shares of the new version and how many seconds each is watched.

    :param config: the deployment configuration, None for one of CodeDeploy's own
    :raises AliasError: there is no such configuration
    """
    if config is None:
        match = _BUILT_IN.fullmatch(name)
        if match is None:
            raise AliasError(f"there is no deployment configuration {name} for Lambda")
        if match["once"]:
            return []
        if match["canary"]:
            return [(int(match["canary"]) / 100, int(match["after"]) * 60.0)]
        return _linear(int(match["linear"]), int(match["every"]))
    routing = config.get("trafficRoutingConfig", {})
    if routing.get("type") == "TimeBasedCanary":
        canary = routing["timeBasedCanary"]
        return [(canary["canaryPercentage"] / 100, canary["canaryInterval"] * 60.0)]
    if routing.get("type") == "TimeBasedLinear":
        linear = routing["timeBasedLinear"]
        return _linear(linear["linearPercentage"], linear["linearInterval"])
    return []


def _linear(percent: int, minutes: int) -> list[tuple[float, float]]:
    return [(share / 100, minutes * 60.0) for share in range(percent, 100, percent)]


def _move(runtime: Runtime, alias: bridge.AliasMove) -> None:
    """Move an alias step by step.

    :raises AliasError: an alarm rang, and the alias is where it was
    """
    service = runtime.service("codedeploy")
    group = service.peek("DeploymentGroup", alias.group)
    if group is None:
        raise AliasError(f"there is no deployment group {alias.group} of {alias.application}")
    role = group.data["serviceRoleArn"]
    if not bridge.trusts(role, "codedeploy.amazonaws.com"):
        raise AliasError(f"CodeDeploy cannot assume the role {role}")
    name = group.data.get("deploymentConfigName", "CodeDeployDefault.LambdaAllAtOnce")
    config = service.peek("DeploymentConfig", name)
    watched = group.data.get("alarmConfiguration", {})
    alarms = tuple(alarm["name"] for alarm in watched.get("alarms", ())) if watched.get("enabled") else ()
    _require(runtime, role, alias)
    client = runtime.client("lambda")
    shares: list[float] = []

    def point(version: str, weights: Mapping[str, float]) -> None:
        client.update_alias(
            FunctionName=alias.function,
            Name=alias.alias,
            FunctionVersion=version,
            RoutingConfig={"AdditionalVersionWeights": dict(weights)},
        )

    for share, seconds in steps_of(name, None if config is None else config.data):
        shares.append(share)
        point(alias.old, {alias.new: share})
        reason = _watch(runtime, alarms, seconds)
        if reason is not None:
            point(alias.old, {})
            runtime.ledger.ran(
                "alias-deployment", f"{alias.function}:{alias.alias}", shares=shares, outcome="rolled back"
            )
            raise AliasError(f"The deployment to version {alias.new} was rolled back: {reason}")
    point(alias.new, {})
    runtime.ledger.ran(
        "alias-deployment", f"{alias.function}:{alias.alias}", shares=[*shares, 1.0], outcome="deployed"
    )


def _require(runtime: Runtime, role: str, alias: bridge.AliasMove) -> None:
    """Hold the role to its policies, by the action that moving an alias is.

    :raises AliasError: it may not
    """
    principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
    if principal is None:
        return  # a role of the CDK's own
    resource = f"arn:aws:lambda:{runtime.region}:{runtime.account}:function:{alias.function}"
    check = bridge.Check(action="lambda:UpdateAlias", resource=resource)
    try:
        runtime.authorizer.require(principal, "lambda", [check], runtime.region)
    except AccessDeniedError as denied:
        raise AliasError(str(denied)) from denied
    runtime.authorizer.note_service_use(role, ("lambda:GetAlias",), resource, runtime.region)


def _watch(runtime: Runtime, alarms: tuple[str, ...], seconds: float) -> str | None:
    clock, service = runtime.clock, runtime.service("codedeploy")
    end = clock.timestamp() + seconds
    while True:
        found = ringing(service, alarms)
        if found:
            return f"the alarm {', '.join(found)} is in ALARM"
        left = end - clock.timestamp()
        if left <= 0 or runtime.stopping.is_set():
            return None
        clock.sleep(min(left, _WATCH_SECONDS))


def install(runtime: Runtime) -> None:
    """Weigh the versions of aliases, and move them as CodeDeploy does."""
    bridge.keep_version_workers()
    bridge.weigh_aliases(random.random)
    bridge.move_aliases(lambda alias: _move(runtime, alias))
