"""Chapter: what the registry knows at the end, and what it puts away."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from rehearsal.models import collect, page
from rehearsal.story.serving import parameter_value
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require

__all__ = ["STEPS"]

CHAPTER = "Registry"
MODELS_PAGE = "models.html"


def _dashboard(tale: Tale, evidence: Evidence) -> None:
    groups = collect(tale.cloud.client)
    (tale.out / MODELS_PAGE).write_text(page(groups, when=datetime.now(UTC)), encoding="utf-8")
    name = tale.outputs("Models")["ModelPackageGroupName"]
    own = next((group for group in groups if group.name == name), None)
    if own is None:
        raise StoryError(f"there is no group {name}; there are: {', '.join(g.name for g in groups)}")
    evidence |= {
        "page": MODELS_PAGE,
        "versions": [
            {
                "version": version.number,
                "status": version.status,
                "why": version.why,
                "stage": version.stage,
                "card": version.card,
                "serves": list(version.serves),
                "lacks": list(version.missing),
            }
            for version in own.versions
        ],
    }
    serving = own.serving
    require(serving is not None, f"no endpoint serves a version of {name}")
    if serving is not None:
        require(serving.arn == parameter_value(tale), f"{serving.arn} serves, the parameter says otherwise")
        require(not serving.missing, f"the version that serves lacks {', '.join(serving.missing)}")
        require(serving.why, "nobody said why the version that serves was approved")


def _archive(tale: Tale, evidence: Evidence) -> None:
    function = tale.outputs("Models")["ModelArchiveFunctionName"]
    answer = tale.cloud.client("lambda").invoke(FunctionName=function, Payload=b"{}")
    said = json.loads(answer["Payload"].read())
    require("FunctionError" not in answer, f"the archive failed: {said}")
    sagemaker = tale.cloud.client("sagemaker")
    rule = tale.workload.registry.archive
    evidence |= {
        "kept_newest": None if rule is None else rule.keep_versions,
        "archived": said["archived"],
    }
    serving = parameter_value(tale)
    for number in said["archived"]:
        arn = f"{serving.rpartition('/')[0]}/{number}"
        stage = sagemaker.describe_model_package(ModelPackageName=arn)["ModelLifeCycle"]["Stage"]
        require(stage == "Archived", f"version {number} is at stage {stage}")
        require(arn != serving, f"version {number} serves and was put away")


STEPS = (
    Step(
        id="models-page",
        title="A page of all versions: status, who approved it and why, its numbers, what serves",
        chapter=CHAPTER,
        run=_dashboard,
        capabilities=lambda _: ("registry.dashboard", "registry.cards", "registry.versions"),
    ),
    Step(
        id="archive",
        title="Old versions are put away; the one that serves and the one before it stay",
        chapter=CHAPTER,
        run=_archive,
        capabilities=lambda _: ("registry.versions",),
        applies=lambda workload: workload.registry.archive is not None,
    ),
)
