"""One execution of a pipeline: its stages, its actions, what they hand on."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rehearsal.executors.code_build.builds import Place

__all__ = ["ActionRun", "Execution", "StageRun"]


@dataclass(kw_only=True)
class ActionRun:
    """One action in one execution."""

    stage: str
    declared: Mapping[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "InProgress"
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))
    summary: str = ""
    error: str = ""
    #: What an approval is answered with.
    token: str | None = None
    external: str = ""
    configuration: dict[str, str] = field(default_factory=dict)
    answered: threading.Event = field(default_factory=threading.Event)
    answer: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """Its name in the definition."""
        return str(self.declared["name"])

    def end(self, status: str, *, summary: str = "", error: str = "") -> None:
        """Set its last status."""
        self.status, self.changed = status, datetime.now(UTC)
        self.summary, self.error = summary or self.summary, error


@dataclass(kw_only=True)
class StageRun:
    """One stage in one execution."""

    name: str
    status: str = "InProgress"
    actions: list[ActionRun] = field(default_factory=list)


@dataclass(kw_only=True)
class Execution:
    """One execution. ``definition`` is the pipeline as it was when it began."""

    pipeline: str
    definition: Mapping[str, Any]
    trigger: str
    detail: str = ""
    kind: str = "STANDARD"
    #: Of a rollback: the execution whose artifacts are deployed again, and the only stage that is run.
    target: Execution | None = None
    only_stage: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "InProgress"
    why: str = ""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))
    artifacts: dict[str, Place] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    stages: list[StageRun] = field(default_factory=list)
    revisions: list[dict[str, Any]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def declared_stages(self) -> Sequence[Mapping[str, Any]]:
        """The stages that it runs."""
        every: Sequence[Mapping[str, Any]] = self.definition["stages"]
        return [stage for stage in every if self.only_stage in (None, stage["name"])]

    def stage(self, name: str) -> StageRun | None:
        """One of its stages, if it came that far."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def end(self, status: str, why: str = "") -> None:
        """Set its last status; one that was cancelled stays so."""
        if self.status == "InProgress":
            self.status, self.why = status, why
        self.changed = datetime.now(UTC)
