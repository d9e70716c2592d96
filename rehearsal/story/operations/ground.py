"""What the cells of operations stand on: the app with all of operations switched on, deployed once.

The environment is the one of ``examples/operations`` where the app has such a folder, else the app's own.
The workload is the one that is rehearsed, with the blocks that the chosen cells' modules switch on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_contract.load import load_workload
from ruamel.yaml import YAML

from rehearsal.story import deployment, ingestion, processing, serving, training
from rehearsal.story.matrix.variants import LEFT_OUT, WORKLOAD, WORKLOADS
from rehearsal.story.operations.cells import GROUNDS, Ground
from rehearsal.story.telling import Evidence, Step, StoryError

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["STAGE", "merged", "operations_app", "steps_to"]

CHAPTER = "Ground"
#: Stage of ``examples/operations``.
STAGE = "Ops"
EXAMPLE = Path("examples") / "operations" / "app.py"

#: Steps of the main story that bring the ground from the one before; the stories' own functions.
_STEPS: Mapping[Ground, tuple[str, ...]] = {
    "synthesised": (),
    "deployed": ("bootstrap", "deploy"),
    "fed": ("send", "deliver", "curate"),
    "trained": ("train", "evaluate", "register"),
    "serving": ("approve", "traffic"),
}


def merged(data: Any, changes: Mapping[str, Any]) -> None:
    """Put ``changes`` into a workload's data: mappings key by key, anything else in place of what was."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), Mapping):
            merged(data[key], value)
        else:
            # Through JSON: plain data, no anchors between blocks that share a part.
            data[key] = json.loads(json.dumps(value))


def operations_app(app: Path, folder: Path, workload: Path, changes: Sequence[Mapping[str, Any]]) -> Path:
    """Make ``folder`` the app with one workload, whose blocks are changed; return it.

    All but the one workload.yaml is a link, and ``app.py`` the one of ``examples/operations`` where there is
    one: it synthesises the stage ``Ops``.
    """
    own = folder / WORKLOADS / workload.name
    own.mkdir(parents=True)
    for entry in app.iterdir():
        if entry.name not in LEFT_OUT and entry != folder and entry not in folder.parents:
            (folder / entry.name).symlink_to(entry)
    if (app / EXAMPLE).exists():
        (folder / "app.py").unlink()
        (folder / "app.py").symlink_to(app / EXAMPLE)
    for entry in workload.iterdir():
        if entry.name not in (WORKLOAD, "__pycache__"):
            (own / entry.name).symlink_to(entry)
    yaml = YAML(typ="rt")
    data = yaml.load((workload / WORKLOAD).read_text(encoding="utf-8"))
    for change in changes:
        merged(data, change)
    text = io.StringIO()
    yaml.dump(data, text)
    (own / WORKLOAD).write_text(text.getvalue(), encoding="utf-8")
    return folder


def steps_to(ground: Ground, changes: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps that lead to ``ground``: the stories' own, after the synthesis of the changed app."""

    def synth(tale: Tale, evidence: Evidence) -> None:
        app = operations_app(
            tale.app.resolve(), tale.out / "operations", tale.loaded.path.parent.resolve(), changes
        )
        tale.loaded = load_workload(app / WORKLOADS / tale.loaded.path.parent.name)
        if tale.stage == STAGE and not (tale.app / EXAMPLE).exists():
            raise StoryError(f"the app has no {EXAMPLE}; name one of its own stages by --stage")
        evidence["switched_on"] = {key: value for change in changes for key, value in change.items()}
        deployment.synthesize(app, tale.assembly)
        stacks = deployment.describe_all(tale.stage_stacks)
        tale.report.stacks = stacks
        evidence["stacks"] = [stack["id"] for stack in stacks]

    others = {
        step.id: step
        for chapter in (deployment, ingestion, processing, training, serving)
        for step in chapter.STEPS
    }
    wanted = GROUNDS[: GROUNDS.index(ground) + 1]
    return (
        Step(
            id="synth",
            title="Synthesise the app with operations switched on",
            chapter=CHAPTER,
            run=synth,
            capabilities=lambda _: (),
        ),
        *(others[step_id] for each in wanted for step_id in _STEPS[each]),
    )
