"""Cells of the cross-checks: the play's own assembly passes them, a copy that is spoilt does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rehearsal.story.operations.cells import Cell
from rehearsal.story.telling import Evidence, require

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "ORDER", "SPOILS"]

#: It reads the assembly only: it may come first.
ORDER = 10
CHAPTER = "Cross-checks"

Template: TypeAlias = dict[str, Any]


def _verify(tale: Tale, folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the checks over an assembly; return their exit status and what they said."""
    done = subprocess.run(
        # The acceptances are those of the whole app, of which the play deploys a part.
        [sys.executable, "-m", "verify", str(folder), "--json", "--shared", *arguments],
        cwd=tale.app,
        capture_output=True,
        text=True,
        check=False,
    )
    require(done.returncode in (0, 1), f"verify ended with {done.returncode}: {done.stderr[-500:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, said


def _passes(tale: Tale, evidence: Evidence) -> None:
    page = tale.out / "verify.html"
    status, said = _verify(tale, tale.assembly, "--html", str(page))
    evidence |= {
        "resources": said["resources"],
        "stacks": said["stacks"],
        "checks": {check["title"]: _verdict(check) for check in said["checks"]},
        "accepted": sum(len(check["accepted"]) for check in said["checks"]),
        "page": page.name,
    }
    found = [
        f"{f['place']}: {f['value']}"
        for c in said["checks"]
        for f in c["findings"]
        if f["severity"] == "error"
    ]
    require(status == 0 and not found, f"the app's own assembly does not pass: {'; '.join(found[:3])}")
    require("Cross-checks" in page.read_text(encoding="utf-8"), "there is no page of the checks")


def _verdict(check: Mapping[str, Any]) -> str:
    errors = sum(finding["severity"] == "error" for finding in check["findings"])
    remarks = len(check["findings"]) - errors
    said = f"{errors} found" if errors else "nothing found"
    return f"{said}, {remarks} remarks" if remarks else said


# -- a copy is spoilt ------------------------------------------------------------------------------------


def _first(template: Template, *types: str) -> Iterator[dict[str, Any]]:
    for resource in template["Resources"].values():
        if resource["Type"] in types:
            yield resource


def _event(template: Template) -> bool:
    for rule in _first(template, "AWS::Events::Rule"):
        if rule["Properties"].get("EventPattern", {}).get("source") == ["aws.sagemaker"]:
            rule["Properties"]["EventPattern"]["detail-type"] = ["SageMaker State Changed"]
            return True
    return False


def _metric(template: Template) -> bool:
    for alarm in _first(template, "AWS::CloudWatch::Alarm"):
        if alarm["Properties"].get("Namespace") == "MLLifecycle":
            alarm["Properties"]["Dimensions"].pop()
            return True
    return False


def _variable(template: Template) -> bool:
    for function in _first(template, "AWS::Lambda::Function"):
        variables = function["Properties"].get("Environment", {}).get("Variables", {})
        if "PIPELINE_NAME" in variables:
            variables["PIPELINE"] = variables.pop("PIPELINE_NAME")
            return True
    return False


def _parameter(template: Template) -> bool:
    for pipeline in _first(template, "AWS::SageMaker::Pipeline"):
        body = pipeline["Properties"]["PipelineDefinition"]["PipelineDefinitionBody"]
        text = body["Fn::Sub"][0]
        if '"StoppingCondition"' in text:
            body["Fn::Sub"][0] = text.replace('"StoppingCondition"', '"StopCondition"', 1)
            return True
    return False


def _grant(template: Template) -> bool:
    for policy in _first(template, "AWS::IAM::Policy"):
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            named = [actions] if isinstance(actions, str) else actions
            if "sagemaker:StartPipelineExecution" in named:
                statement["Action"] = "sagemaker:StopPipelineExecution"
                return True
    return False


def _order(template: Template) -> bool:
    policies = {
        name for name, resource in template["Resources"].items() if resource["Type"] == "AWS::IAM::Policy"
    }
    spoilt = False
    for resource in _first(template, "AWS::KinesisFirehose::DeliveryStream"):
        named = resource.get("DependsOn", [])
        kept = [name for name in ([named] if isinstance(named, str) else named) if name not in policies]
        spoilt = spoilt or len(kept) < len(named)
        resource["DependsOn"] = kept
    return spoilt


def _name(template: Template) -> bool:
    template["Resources"]["SpoiltConfig"] = {
        "Type": "AWS::SageMaker::EndpointConfig",
        "Properties": {"EndpointConfigName": "always-the-same", "ProductionVariants": [{}]},
    }
    return True


def _retired(template: Template) -> bool:
    template["Resources"]["SpoiltFleet"] = {"Type": "AWS::SageMaker::DeviceFleet", "Properties": {}}
    return True


def _quota(template: Template) -> bool:
    for function in _first(template, "AWS::Lambda::Function"):
        function["Properties"].setdefault("Environment", {}).setdefault("Variables", {})["AWS_FILLER"] = (
            "x" * 4_096
        )
        return True
    return False


def _replaced(template: Template) -> bool:
    for group in _first(template, "AWS::SageMaker::FeatureGroup"):
        group["Properties"]["FeatureGroupName"] = "another-name"
        return True
    return False


#: By check: what spoils a template so that the check has to find it; whether it could.
SPOILS: Mapping[str, Callable[[Template], bool]] = {
    "attached": _order,
    "availability": _retired,
    "create-only": _replaced,
    "events": _event,
    "grants": _grant,
    "metrics": _metric,
    "names": _name,
    "parameters": _parameter,
    "quotas": _quota,
    "variables": _variable,
}


def _catches(tale: Tale, evidence: Evidence) -> None:
    copy = tale.out / "spoilt"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(tale.assembly, copy)
    release = copy / "release.json"
    done = subprocess.run(
        [sys.executable, "-m", "verify", "release", str(copy), "--release", str(release)],
        cwd=tale.app,
        capture_output=True,
        text=True,
        check=False,
    )
    require(done.returncode == 0, f"no digest was written: {done.stderr[-500:]}")
    left = dict(SPOILS)
    for path in sorted(copy.rglob("*.template.json")):
        template = json.loads(path.read_text(encoding="utf-8"))
        for check in [name for name, spoil in left.items() if spoil(template)]:
            del left[check]
        path.write_text(json.dumps(template), encoding="utf-8")
    require(not left, f"nothing in the assembly could be spoilt for {', '.join(left)}")
    status, said = _verify(tale, copy, "--release", str(release))
    shutil.rmtree(copy)
    caught = {
        check["id"]: next((f["value"] for f in check["findings"] if f["severity"] == "error"), None)
        for check in said["checks"]
    }
    evidence["caught"] = caught
    missed = [name for name in SPOILS if not caught.get(name)]
    require(status == 1 and not missed, f"what was spoilt is not found by {', '.join(missed)}")


CELLS = (
    Cell(
        id="verify.passes",
        title="What no synth checks: ten cross-checks over templates, code and AWS's models",
        run=_passes,
        capabilities=("deliver.checks",),
        chapter=CHAPTER,
        ground="synthesised",
    ),
    Cell(
        id="verify.catches",
        title="A copy of the assembly is spoilt in ten ways, and each check finds its own",
        run=_catches,
        capabilities=("deliver.checks",),
        chapter=CHAPTER,
        ground="synthesised",
    ),
)
