"""What a run of any kind found, in the form that files, metrics and the page are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_contract.compiled import CompiledContract

from ml_monitoring.settings import ModelMonitorEngine, OwnEngine

__all__ = ["Finding", "Outcome", "Run"]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its settings and the contract of its workload."""

    settings: OwnEngine | ModelMonitorEngine
    contract: CompiledContract


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was judged.

    Args:
        name: which: a feature, a measure, a metric of a facet.
        measure: by what.
        value: how much it is; None where a check counts no value.
        limit: how much it may be.
        beyond: whether it is a violation.
        severity: how many times what is allowed; above 1 is beyond the limit, though chance may explain it.
        text: the violation in words, or what there is to say otherwise.
        baseline: the value in the package.
        segment: of which records; None: of all.
        records: how many it was measured on.
    """

    name: str
    measure: str
    value: float | None
    limit: float | None
    beyond: bool
    severity: float
    text: str
    baseline: float | None = None
    segment: str | None = None
    records: int | None = None

    @property
    def key(self) -> str:
        """Its name over many runs."""
        return self.name if self.segment is None else f"{self.name} of {self.segment}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run found.

    Args:
        documents: files by name, beside ``report.json``.
        violations: the entries of ``constraint_violations.json``.
        findings: everything that was judged.
        judged: records the verdict rests on.
        baseline: where that came from which they were held against.
        report: more of ``report.json``.
        drift: ``FeatureDrift`` by feature.
        figures: what the page draws, by the name of its plot.
    """

    documents: Mapping[str, dict[str, Any]]
    violations: Sequence[Mapping[str, Any]]
    findings: Sequence[Finding]
    judged: int
    baseline: str
    report: Mapping[str, Any]
    drift: Mapping[str, float] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
