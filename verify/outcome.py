"""A run of the checks: what they found, what was accepted, how long it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.acceptance import Acceptance, accept
from verify.context import Context
from verify.finding import Check, Finding

__all__ = ["Outcome", "Row", "judge"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check's result."""

    check: Check
    findings: tuple[Finding, ...]
    accepted: tuple[tuple[Finding, Acceptance], ...]
    seconds: float

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that fail the run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Remarks."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "id": self.check.id,
            "title": self.check.title,
            "proves": self.check.proves,
            "source": self.check.source,
            "seconds": round(self.seconds, 3),
            "passed": not self.errors,
            "findings": [finding.as_json() for finding in self.findings],
            "accepted": [
                {**finding.as_json(), "reason": acceptance.reason} for finding, acceptance in self.accepted
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A whole run."""

    folder: Path
    stacks: int
    resources: int
    rows: tuple[Row, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no check found an error."""
        return not any(row.errors for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "assembly": self.folder.name,
            "stacks": self.stacks,
            "resources": self.resources,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "checks": [row.as_json() for row in self.rows],
        }


def judge(
    context: Context,
    checks: Sequence[Check],
    acceptances: Sequence[Acceptance] = (),
    *,
    file: str = "verify.yaml",
    shared: bool = False,
) -> Outcome:
    """Run the checks over one assembly; ``file`` and ``shared`` are said of acceptances that meet nothing."""
    started = time.perf_counter()
    rows = []
    for check in checks:
        begun = time.perf_counter()
        found = list(dict.fromkeys(check.run(context)))
        own = [item for item in acceptances if item.check == check.id]
        standing, accepted = accept(found, own, file=file, shared=shared)
        standing.sort(key=lambda finding: (finding.severity, finding.place, finding.value))
        rows.append(
            Row(
                check=check,
                findings=tuple(standing),
                accepted=tuple(accepted),
                seconds=time.perf_counter() - begun,
            )
        )
    return Outcome(
        folder=context.assembly.folder,
        stacks=len(context.assembly.stacks),
        resources=sum(len(stack.resources) for stack in context.assembly.stacks.values()),
        rows=tuple(rows),
        seconds=time.perf_counter() - started,
    )
