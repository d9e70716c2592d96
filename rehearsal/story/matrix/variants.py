"""The app once more, with another ``serving`` block: everything is a link but the one workload.yaml.

The app reads its workloads beside its ``app.py``, as any app that uses the constructs does; so a folder that
holds links to all it has, and a workload of its own, is that app with another block. What the app imports is
the app's own: Python looks where a linked program really lies.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ml_contract.spec.serving import CAPTURING
from ruamel.yaml import YAML

from rehearsal.story.deployment import Synthesis
from rehearsal.story.matrix.cells import Block
from rehearsal.story.telling import require

__all__ = ["Variants", "linked_app", "with_block"]

WORKLOADS = "workloads"
WORKLOAD = "workload.yaml"
#: Not the app's: what runs and tools leave behind, and a repository, which a link would let git write to.
LEFT_OUT = frozenset({".git", "cdk.out", WORKLOADS})


def with_block(source: Path, block: Block) -> str:
    """The text of a workload.yaml with its ``serving`` block replaced; what stands elsewhere stays.

    The decision threshold stays too: it belongs to the model, not to the way that it is served. A style whose
    requests nobody captures has no drift to retrain on, so that is switched off with it.
    """
    yaml = YAML(typ="rt")
    data = yaml.load(source.read_text(encoding="utf-8"))
    old = data.get("serving") or {}
    kept = {key: old[key] for key in ("decision_threshold",) if key in old}
    # Through JSON: plain data, no anchors between blocks that share a part.
    data["serving"] = json.loads(json.dumps({**kept, **block}))
    if block.get("style", "real_time") not in CAPTURING and (data.get("retraining") or {}).get("on_drift"):
        data["retraining"]["on_drift"] = False
    text = io.StringIO()
    yaml.dump(data, text)
    return text.getvalue()


def linked_app(app: Path, folder: Path, workload: Path, block: Block) -> Path:
    """Make ``folder`` the app with another block in one workload, the only one it has; return it."""
    own = folder / WORKLOADS / workload.name
    own.mkdir(parents=True)
    for entry in app.iterdir():
        if entry.name not in LEFT_OUT and entry != folder and entry not in folder.parents:
            (folder / entry.name).symlink_to(entry)
    for entry in workload.iterdir():
        if entry.name not in (WORKLOAD, "__pycache__"):
            (own / entry.name).symlink_to(entry)
    (own / WORKLOAD).write_text(with_block(workload / WORKLOAD, block), encoding="utf-8")
    return folder


class Variants:
    """Assemblies of the app by ``serving`` block, made once each.

    Args:
        app: folder of the CDK app.
        workload: folder of the workload in it.
        folder: where they are made.
        context: context keys of every synthesis.
    """

    def __init__(
        self, app: Path, workload: Path, folder: Path, *, context: Mapping[str, str] | None = None
    ) -> None:
        self._app = app.resolve()
        self._workload = workload.resolve()
        self._folder = folder.resolve()
        self._context = context
        self._running: dict[str, Synthesis] = {}
        self._made: dict[str, Path] = {}

    def begin(self, block: Block) -> None:
        """Start to synthesise, beside what else happens; nothing if that was started before."""
        key = _key(block)
        if key in self._made or key in self._running:
            return
        app = linked_app(self._app, self._folder / key, self._workload, block)
        self._running[key] = Synthesis(app, app / "cdk.out", context=self._context)

    def assembly(self, block: Block) -> Path:
        """The cloud assembly for a block; waits for it.

        Raises:
            StoryError: the app failed, which refuses the block perhaps.
        """
        self.begin(block)
        key = _key(block)
        if key not in self._made:
            self._running.pop(key).wait()
            self._made[key] = self._folder / key / "cdk.out"
        return self._made[key]

    def text(self, block: Block) -> str:
        """The workload.yaml that a block was deployed with."""
        path = self._folder / _key(block) / WORKLOADS / self._workload.name / WORKLOAD
        require(path.exists(), "the block was not synthesised")
        return path.read_text(encoding="utf-8")

    def close(self) -> None:
        """End what still runs."""
        for synthesis in self._running.values():
            synthesis.stop()
        self._running.clear()


def _key(block: Block) -> str:
    data: Any = json.dumps(block, sort_keys=True)
    return blake2b(data.encode(), digest_size=6).hexdigest()
