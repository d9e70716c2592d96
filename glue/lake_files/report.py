"""What a curation found and did: one JSON object per run, the same from every engine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_contract.compiled import CompiledContract
from ml_contract.records import personal

from lake_files.drift import schema_drift
from lake_files.objects import write_text
from lake_files.parquet import ParquetFile, UnreadableFile

#: Refused rows named in the report, so that it stays readable; the raw zone holds them all.
EXAMPLES = 20


class NothingToCurateError(Exception):
    """There is no readable raw file: nothing was written."""


class QualityError(Exception):
    """The rows break a rule of the ruleset: the curated zone keeps its former state."""


@dataclasses.dataclass(frozen=True)
class RuleOutcome:
    """What became of one rule of the ruleset."""

    rule: str
    outcome: str
    value: Mapping[str, float]
    reason: str | None
    #: What a broken rule does: ``stop``, ``quarantine`` or ``warn``.
    severity: str = "stop"

    @property
    def passed(self) -> bool:
        """Whether the data keeps the rule."""
        return self.outcome == "Passed"


class Report(dict[str, Any]):
    """What the run found and did; one JSON object under the quality prefix."""

    def __init__(self, s3: Any, uri: str) -> None:
        super().__init__(
            rows_read=0, rows_rejected=0, rows_quarantined=0, duplicates_dropped=0, rows_written=0, late=0
        )
        self.update(rules=[], passed=False)
        self._s3 = s3
        self.uri = uri

    def write(self) -> None:
        """Store it and show it in the job's log."""
        text = json.dumps(self, sort_keys=True, default=str)
        write_text(self._s3, self.uri, text)
        print(f"quality report {self.uri}: {text}")

    def files(
        self,
        files: Sequence[ParquetFile],
        unreadable: Sequence[UnreadableFile],
        contract: CompiledContract,
    ) -> None:
        """Note which files were read and how their columns differ from the contract's."""
        drift = schema_drift(files, contract.glue_columns())
        self.update(
            files_read=len(files),
            files_unreadable=[dataclasses.asdict(one) for one in unreadable],
            schema_drift=[dataclasses.asdict(one) for one in drift],
        )

    def nothing(self, unreadable: Sequence[UnreadableFile], raw_uri: str) -> NothingToCurateError:
        """Write the report of a run without a readable file; returns the error to raise."""
        self.update(files_read=0, files_unreadable=[dataclasses.asdict(one) for one in unreadable])
        self.write()
        reason = f"{len(unreadable)} files and none is readable" if unreadable else "no file"
        return NothingToCurateError(f"{reason} under {raw_uri}: nothing was written")

    def look_for_personal_data(
        self, contract: CompiledContract, sample: Callable[[list[str], int], Iterable[Mapping[str, Any]]]
    ) -> None:
        """Note the fields that nobody marked and whose values look personal; never the values.

        ``sample`` returns rows of the fields named, at most as many as asked for.
        """
        if not contract.batch.get("scan"):
            return
        columns = personal.scanned_columns(contract)
        found = personal.scan(sample(columns, personal.SAMPLE), columns) if columns else []
        self.update(
            personal_data={
                "columns": columns,
                "found": [dataclasses.asdict(one) for one in found],
            }
        )
        for one in found:
            print(f"{one.column} looks like {one.kind} in {one.share:.1%} of its values; mark it sensitive")

    def judged(self, outcomes: Sequence[RuleOutcome]) -> None:
        """Note the outcomes. Raises QualityError, the report written, when a rule that stops is broken."""
        stopping = [one for one in outcomes if not one.passed and one.severity != "warn"]
        self.update(
            rules=[dataclasses.asdict(one) for one in outcomes],
            passed=not stopping,
            warnings=[one.rule for one in outcomes if not one.passed and one.severity == "warn"],
        )
        if stopping:
            self.update(rows_written=0)
            self.write()
            listed = "; ".join(f"{one.rule}: {one.reason}" for one in stopping)
            raise QualityError(
                f"{len(stopping)} of {len(outcomes)} rules failed, nothing was written: {listed}"
            )


def digest(contract: CompiledContract) -> str:
    """What tells two versions of a contract apart."""
    return hashlib.sha256(contract.to_json().encode()).hexdigest()
