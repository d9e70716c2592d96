"""Versions and aliases of functions: weights, measures and CodeDeploy's moves."""

from __future__ import annotations

import importlib
import time as _real_time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.ministack_bridge._inside import CFN, substitute
from rehearsal.ministack_bridge.cloudformation_types import run_on_a_thread


def measure_aliases(measure: Callable[[str, str, float, bool], None]) -> None:
    """Call ``measure(function, alias, seconds, failed)`` after an invocation, for aliases of the version."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._execute_function_dispatch

    def dispatch(func: Any, config: Mapping[str, Any], event: Any, request_id: str, started: float) -> Any:
        began = _real_time.monotonic()
        result = original(func, config, event, request_id, started)
        name, version = str(config["FunctionName"]), str(config.get("Version", "$LATEST"))
        known = functions._functions.get(name) or {}
        for alias, said in list((known.get("aliases") or {}).items()):
            weighed = said.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
            if version != "$LATEST" and version in (said["FunctionVersion"], *weighed):
                failed = isinstance(result, Mapping) and bool(result.get("error"))
                measure(name, alias, _real_time.monotonic() - began, failed)
        return result

    substitute(functions, "_execute_function_dispatch", dispatch)


def keep_version_workers() -> None:
    """Let the processes of a function's versions live when the function changes: versions do not.

    ministack's CloudFormation ends them all, and with them what they are answering.
    """
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions.invalidate_worker

    def invalidate(name: str, qualifier: str | None = None, **scope: Any) -> Any:
        changed = qualifier is None and name in functions._functions
        return original(name, qualifier="$LATEST" if changed else qualifier, **scope)

    substitute(functions, "invalidate_worker", invalidate)


def weigh_aliases(chance: Callable[[], float]) -> None:
    """Send the requests of an alias to its second version as its weights say; ministack keeps them only."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._invoke

    async def invoke(
        name: str, event: Any, headers: Any, qualifier: str | None = None, query: Any = None
    ) -> Any:
        asked = qualifier or functions._qp_first(query or {}, "Qualifier") or None
        alias = (functions._functions.get(name) or {}).get("aliases", {}).get(asked, {})
        drawn = chance()
        for second, weight in alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {}).items():
            if drawn < float(weight):
                return await original(name, event, headers, second, query)
            drawn -= float(weight)
        return await original(name, event, headers, qualifier, query)

    substitute(functions, "_invoke", invoke)


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """An alias that CloudFormation moves to another version, by CodeDeploy as its update policy says."""

    application: str
    group: str
    function: str
    alias: str
    old: str
    new: str


def move_aliases(move: Callable[[AliasMove], None]) -> None:
    """Call ``move(alias)`` before an alias with an update policy of CodeDeploy is set to its new version.

    What it raises fails the resource, whose alias then stays as it is.
    """
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    package = importlib.import_module(CFN)
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Alias"]
    update = handlers["update"]

    def named(stack: Mapping[str, Any], value: Any) -> str:
        reference = value.get("Ref") if isinstance(value, Mapping) else None
        if reference is None:
            return str(value)
        return str(stack.get("_resources", {})[reference]["PhysicalResourceId"])

    def changed(
        physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any], name: str, logical_id: Any = None
    ) -> Any:
        stacks = [stack for stack in package._stacks.values() if stack.get("StackName") == name]
        stack: Mapping[str, Any] = stacks[0] if stacks else {}
        resource = stack.get("_template", {}).get("Resources", {}).get(logical_id, {})
        policy = resource.get("UpdatePolicy", {}).get("CodeDeployLambdaAliasUpdate")
        before, after = str(old.get("FunctionVersion")), str(new.get("FunctionVersion"))
        if policy and before != after:
            move(
                AliasMove(
                    application=named(stack, policy["ApplicationName"]),
                    group=named(stack, policy["DeploymentGroupName"]),
                    function=physical_id.split(":")[6],
                    alias=str(new["Name"]),
                    old=before,
                    new=after,
                )
            )
        return update(physical_id, old, new, name, logical_id)

    provisioners._RESOURCE_HANDLERS["AWS::Lambda::Alias"] = {**handlers, "update": changed}
    run_on_a_thread("AWS::Lambda::Alias")
