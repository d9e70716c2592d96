"""The operations of CodeBuild that concern builds; projects are ministack's."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

from rehearsal.control import ControlError, control
from rehearsal.executors.code_build.builds import Build, Machine, Place, run
from rehearsal.services.engine import ApiError, Call, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["MACHINE", "begin", "project_of"]

#: What every build of this server finds.
MACHINE = Machine()
_BUILDS: dict[str, Build] = {}
_NUMBERS = itertools.count(1)
_LOCK = threading.Lock()


def project_of(service: Service, name: str) -> dict[str, Any]:
    """A project as ministack keeps it.

    Raises:
        ApiError: there is none.
    """
    call = Call(operation="BatchGetProjects", params={"names": [name]}, principal=None, region=service.region)
    found = service.forward(call)["projects"]
    if not found:
        raise ApiError("ResourceNotFoundException", f"Project cannot be found: {name}")
    project: dict[str, Any] = found[0]
    return project


def begin(
    service: Service,
    project: dict[str, Any],
    *,
    initiator: str,
    inputs: dict[str, Place] | None = None,
    outputs: dict[str, Place] | None = None,
    variables: dict[str, str] | None = None,
) -> Build:
    """Begin a build; its ``done`` is set at its end."""
    with _LOCK:
        build = Build.of(
            project,
            next(_NUMBERS),
            initiator=initiator,
            inputs=inputs or {},
            outputs=outputs or {},
            variables=variables or {},
        )
        _BUILDS[build.id] = build
    runtime = service.runtime
    runtime.background(f"build {build.id}", run, runtime, build, MACHINE, service.region)
    return build


@instead("codebuild", "StartBuild")
def _start(service: Service, call: Call) -> dict[str, Any]:
    """A build of a project that has no source, or whose source a pipeline would bring."""
    known = {"projectName", "environmentVariablesOverride"}
    other = sorted(set(call.params) - known)
    if other:
        raise service.not_emulated(
            Call(
                operation=f"StartBuild with {', '.join(other)}", params={}, principal=None, region=call.region
            )
        )
    project = project_of(service, call.params["projectName"])
    if project.get("source", {}).get("type") == "CODEPIPELINE":
        raise ApiError(
            "InvalidInputException", f"Project {project['name']} takes its source from CodePipeline only"
        )
    if project.get("source", {}).get("type") != "NO_SOURCE":
        raise service.not_emulated(call)
    overridden = {v["name"]: v["value"] for v in call.params.get("environmentVariablesOverride", ())}
    return {"build": _shown(begin(service, project, initiator="user", variables=overridden))}


@instead("codebuild", "BatchGetBuilds")
def _get(service: Service, call: Call) -> dict[str, Any]:
    del service
    wanted = call.params["ids"]
    return {
        "builds": [_shown(_BUILDS[each]) for each in wanted if each in _BUILDS],
        "buildsNotFound": [each for each in wanted if each not in _BUILDS],
    }


@instead("codebuild", "ListBuildsForProject")
def _list(service: Service, call: Call) -> dict[str, Any]:
    del service
    with _LOCK:
        found = [b.id for b in _BUILDS.values() if b.project["name"] == call.params["projectName"]]
    return {"ids": found[::-1]}


@instead("codebuild", "StopBuild")
def _stop(service: Service, call: Call) -> dict[str, Any]:
    del service
    build = _BUILDS.get(call.params["id"])
    if build is None:
        raise ApiError("ResourceNotFoundException", f"Build cannot be found: {call.params['id']}")
    build.stop.set()
    return {"build": _shown(build)}


def _shown(build: Build) -> dict[str, Any]:
    group = f"/aws/codebuild/{build.project['name']}"
    return {
        "id": build.id,
        "arn": build.arn,
        "buildNumber": build.number,
        "buildStatus": build.status,
        "currentPhase": build.phase,
        "projectName": build.project["name"],
        "initiator": build.initiator,
        "startTime": build.began,
        "buildComplete": build.ended is not None,
        "serviceRole": build.project["serviceRole"],
        "logs": {"groupName": group, "streamName": build.id.partition(":")[2]},
        "exportedEnvironmentVariables": [{"name": k, "value": v} for k, v in build.exported.items()],
        **({"endTime": build.ended} if build.ended is not None else {}),
    }


@control("POST", "/builds")
def _machine(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Say what each build from now on finds: ``prepared`` links by name, ``variables`` by name."""
    del runtime
    for key in body:
        if key not in ("prepared", "variables"):
            raise ControlError(f"builds take prepared and variables, got {key!r}")
    for key in ("prepared", "variables"):
        given = body.get(key, {})
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise ControlError(f"{key} must map names to texts, got {given!r}")
    MACHINE.prepared = dict(body.get("prepared", {}))
    MACHINE.variables = dict(body.get("variables", {}))
    return {"prepared": MACHINE.prepared, "variables": MACHINE.variables}
