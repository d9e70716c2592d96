"""Chapter: the stacks are deployed by the CDK CLI that deploys for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehearsal.cdk import StackArtifact, cdk_cli, node_binary, stack_artifacts
from rehearsal.server import DEFAULT_ACCOUNT, DEFAULT_REGION
from rehearsal.story.databases import make_tables
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require

__all__ = ["STEPS", "Synthesis", "describe_all", "described", "synthesize"]

CHAPTER = "Deploy"
DELIVERY = "Delivery"


class Synthesis:
    """A CDK app being synthesised with its own ``cdk.json`` and no credentials, beside what else happens.

    ``context`` adds context keys. ``wait`` it or ``stop`` it: it runs in a process group of its own.
    """

    def __init__(self, app: Path, assembly: Path, *, context: Mapping[str, str] | None = None) -> None:
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "XDG_CACHE_HOME")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        node = node_binary()
        keys = [f"{name}={value}" for name, value in ({} if context is None else context).items()]
        # A file, not a pipe: nobody reads while it runs.
        self._said = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed at its end
        self._process = subprocess.Popen(
            [
                *(node, cdk_cli(app), "synth", "--quiet", "--output", assembly),
                *("--no-notices", "--no-lookups", "--no-color"),
                *(part for key in keys for part in ("--context", key)),
            ],
            cwd=app,
            env={
                **environment,
                "JSII_NODE": str(node),
                "CDK_DISABLE_CLI_TELEMETRY": "true",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            StoryError: the app failed; the text is what it said last.
        """
        try:
            code = self._process.wait()
        except BaseException:
            self.stop()
            raise
        with self._said:
            self._said.seek(0)
            output = self._said.read()
        if code:
            lines = [line.strip() for line in output.splitlines() if line.strip()]
            # The CLI's own last line says only that there were errors; one finding stands once per
            # environment.
            found = [line for line in lines if "error" in line.lower() and "finished with errors" not in line]
            telling = list(dict.fromkeys(found)) or lines
            raise StoryError(f"cdk synth failed: {' | '.join(telling[-3:])}")

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close()


def synthesize(app: Path, assembly: Path) -> None:
    """Synthesise a CDK app and wait for it.

    Raises:
        StoryError: the app failed; the text is what it said last.
    """
    Synthesis(app, assembly).wait()


def described(artifact: StackArtifact) -> dict[str, Any]:
    """What the report says of a stack: its resources by its template, and what it depends on."""
    template = json.loads(artifact.template.read_text(encoding="utf-8"))
    return {
        "id": artifact.id.partition(" (")[0],
        "name": artifact.name,
        "resources": [
            {
                "logical_id": logical_id,
                "type": resource["Type"],
                "retained": resource.get("DeletionPolicy", "Delete") in ("Retain", "RetainExceptOnCreate"),
            }
            for logical_id, resource in template.get("Resources", {}).items()
            if resource["Type"] != "AWS::CDK::Metadata"
        ],
        "depends_on": [],
    }


def describe_all(artifacts: tuple[StackArtifact, ...]) -> list[dict[str, Any]]:
    """What the report says of stacks, with what each depends on."""
    stacks = [described(artifact) for artifact in artifacts]
    # The manifest names dependencies by artifact key, which within a stage is not the id a user types.
    by_key = {
        a.template.name.removesuffix(".template.json"): d["id"]
        for a, d in zip(artifacts, stacks, strict=True)
    }
    for artifact, stack in zip(artifacts, stacks, strict=True):
        stack["depends_on"] = [by_key[key] for key in artifact.dependencies if key in by_key]
    return stacks


def _synth(tale: Tale, evidence: Evidence) -> None:
    started = time.monotonic()
    synthesize(tale.app, tale.assembly)
    evidence["seconds_of_the_cli"] = round(time.monotonic() - started, 1)
    every = stack_artifacts(tale.assembly)
    evidence["stacks_of_the_app"] = [a.id.partition(" (")[0] for a in every]
    wanted = tale.stage_stacks
    parts = {a.id.partition(" (")[0].partition("/")[2] for a in wanted}
    name = tale.workload.id
    missing = {
        "Foundation",
        "DataLake",
        *(f"{name}{p}" for p in ("Data", "Models", "Serving", "Operations")),
    } - parts
    stages = sorted({a.id.partition("/")[0] for a in every if "/" in a.id})
    require(
        not missing,
        f"stage {tale.stage} of the app has no stack {', '.join(sorted(missing))}; "
        f"its stages are {', '.join(stages)}",
    )
    tale.report.stacks = describe_all(wanted)
    evidence["deployed_by_this_story"] = [
        {
            "stack": stack["id"],
            "resources": len(stack["resources"]),
            "retained": sum(1 for r in stack["resources"] if r["retained"]),
        }
        for stack in tale.report.stacks
    ]


def _start(tale: Tale, evidence: Evidence) -> None:
    accounts = {a.account for a in tale.stage_stacks if a.account is not None}
    regions = {a.region for a in tale.stage_stacks if a.region is not None}
    require(len(accounts) <= 1 and len(regions) <= 1, f"stage {tale.stage} spans {accounts} and {regions}")
    account = next(iter(accounts), DEFAULT_ACCOUNT)
    region = next(iter(regions), DEFAULT_REGION)
    tale.server = tale.start_server(account, region)
    make_tables(tale)
    evidence |= {"endpoint": tale.server.endpoint, "account": account, "region": region}
    tale.cdk.bootstrap()
    stack = tale.cloud.client("cloudformation").describe_stacks(StackName="CDKToolkit")["Stacks"][0]
    evidence["toolkit_stack"] = stack["StackStatus"]
    require(stack["StackStatus"] == "CREATE_COMPLETE", f"CDKToolkit is {stack['StackStatus']}")


def _deploy(tale: Tale, evidence: Evidence) -> None:
    ids = [a.id.partition(" (")[0] for a in tale.stage_stacks]
    tale.cdk.deploy(ids)
    evidence["stacks"] = _statuses(tale, tale.stage_stacks)
    types = Counter(r["type"] for s in tale.report.stacks for r in s["resources"])
    evidence["resources"] = sum(types.values())
    evidence["types"] = len(types)
    parameter = tale.outputs("Models")["ApprovedModelParameter"]
    value = tale.cloud.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    evidence["approved_model_at_first"] = value
    require(value == "none", f"before any approval parameter {parameter} must be none, got {value}")
    endpoints = tale.cloud.client("sagemaker").list_endpoints()["Endpoints"]
    require(not endpoints, f"before any approval there must be no endpoint, got {endpoints}")
    evidence["endpoints_before_a_model_is_approved"] = 0


def _statuses(tale: Tale, artifacts: tuple[StackArtifact, ...]) -> list[dict[str, Any]]:
    rows = []
    for artifact in artifacts:
        stack = tale.cloud.client("cloudformation").describe_stacks(StackName=artifact.name)["Stacks"][0]
        require(
            stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"),
            f"stack {artifact.name} is {stack['StackStatus']}: {stack.get('StackStatusReason', '')}",
        )
        rows.append(
            {
                "stack": artifact.name,
                "status": stack["StackStatus"],
                "outputs": len(stack.get("Outputs", ())),
            }
        )
    return rows


def _deploy_delivery(tale: Tale, evidence: Evidence) -> None:
    found = [a for a in stack_artifacts(tale.assembly) if a.id.partition(" (")[0] == DELIVERY]
    require(found, f"the app has no stack {DELIVERY}")
    tale.cdk.deploy([DELIVERY])
    evidence["stacks"] = _statuses(tale, tuple(found))
    tale.report.stacks += describe_all(tuple(found))
    pipelines = tale.cloud.client("codepipeline").list_pipelines()["pipelines"]
    require(pipelines, "the Delivery stack has made no pipeline")
    definition = tale.cloud.client("codepipeline").get_pipeline(name=pipelines[0]["name"])["pipeline"]
    evidence["stages"] = [
        {"stage": stage["name"], "actions": [action["name"] for action in stage["actions"]]}
        for stage in definition["stages"]
    ]
    evidence["why_recorded"] = (
        "its source is a repository elsewhere; the play of operations runs a pipeline whose source is here"
    )


STEPS = (
    Step(
        id="synth",
        title="Synthesise the app",
        chapter=CHAPTER,
        run=_synth,
        capabilities=lambda _: (),
    ),
    Step(
        id="bootstrap",
        title="Start the embedded AWS and bootstrap it with the CDK CLI",
        chapter=CHAPTER,
        run=_start,
        capabilities=lambda _: (),
    ),
    Step(
        id="deploy",
        title="Deploy every stack of the stage; no model, no endpoint yet",
        chapter=CHAPTER,
        run=_deploy,
        capabilities=lambda _: ("data.repository", "secure.kms", "secure.network", "secure.roles"),
    ),
    Step(
        id="deploy-delivery",
        title="Deploy the delivery pipeline",
        chapter=CHAPTER,
        run=_deploy_delivery,
        recorded=True,
        capabilities=lambda _: ("deliver.pipeline", "deliver.sources", "deliver.checks", "deliver.approval"),
    ),
)
