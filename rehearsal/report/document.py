"""What a rehearsal leaves behind, as data: the shape of ``report.json``.

``report.schema.json`` beside this module is its JSON Schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["SCHEMA_PATH", "SCHEMA_VERSION", "Report", "ReportError", "StepResult", "read", "write"]

SCHEMA_VERSION = 1
SCHEMA_PATH = Path(__file__).with_name("report.schema.json")

Status = Literal["passed", "recorded", "failed"]
Outcome = Literal["passed", "failed", "interrupted"]


class ReportError(Exception):
    """A file that is no report of ours; the text names the file, what is wrong and what to do."""


@dataclass(kw_only=True)
class StepResult:
    """One step of the story and what it showed.

    ``recorded`` is a step whose requests were accepted and checked but whose program only an account runs.
    """

    id: str
    title: str
    chapter: str
    status: Status
    seconds: float
    capabilities: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Report:
    """Everything that ``report.json`` holds."""

    workload: str
    title: str
    stage: str
    started: str
    seed: int
    outcome: Outcome = "passed"
    reason: str | None = None
    seconds: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    #: The manifest of sources, and what came of each batch source.
    sources: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, Any] = field(
        default_factory=lambda: {
            "sent": 0,
            "delivered": 0,
            "quarantined": 0,
            "duplicates_dropped": 0,
            "lost": 0,
        }
    )
    model: dict[str, Any] = field(
        default_factory=lambda: {"metrics": {}, "version": None, "approved": False, "history": []}
    )
    drift: dict[str, Any] = field(
        default_factory=lambda: {"violations": [], "before": {}, "after": {}, "features": []}
    )
    traffic: dict[str, Any] = field(default_factory=dict)
    #: A row per cell of the serving matrix: what was played and what came of it.
    matrix: list[dict[str, Any]] = field(default_factory=list)
    #: A row per cell of any other play.
    cells: list[dict[str, Any]] = field(default_factory=list)
    stacks: list[dict[str, Any]] = field(default_factory=list)
    steps: list[StepResult] = field(default_factory=list)
    ledger: dict[str, Any] = field(default_factory=lambda: {"ran": [], "recorded": [], "failed": []})
    iam: dict[str, Any] = field(default_factory=lambda: {"unused": [], "denied": []})
    survivors: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        document: dict[str, Any] = _plain({"schema": SCHEMA_VERSION, **asdict(self)})
        return document


def _plain(value: Any) -> Any:
    """Return ``value`` with only what JSON knows: no NaN, no tuple, no numpy scalar."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write ``report.json`` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Read a ``report.json``.

    Raises:
        ReportError: the file is missing or is no report of this version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"there is no {path}; 'python -m rehearsal run' writes one") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read as a report: {error}") from None
    version = document.get("schema") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ReportError(f"{path} must be a report of schema {SCHEMA_VERSION}, got {version!r}")
    missing = [
        key for key in ("workload", "seconds", "records", "model", "drift", "steps") if key not in document
    ]
    if missing:
        raise ReportError(f"{path} is no complete report: {', '.join(missing)} is missing")
    report: dict[str, Any] = document
    return report
