"""Findings that stay: each acceptance has a reason, and one that meets nothing is a finding itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from verify.finding import Finding

__all__ = ["Acceptance", "AcceptanceError", "accept", "read"]

_KEYS = ("check", "place", "value", "without", "reason")
#: Shorter texts say nothing.
_SHORTEST_REASON = 20


class AcceptanceError(Exception):
    """The file of acceptances cannot be read; the message lists every problem."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """One accepted finding, or many: ``place`` and ``value`` take ``*``.

    ``without`` names an environment variable: where it is set, the finding stands.
    """

    check: str
    place: str
    reason: str
    value: str = "*"
    without: str | None = None
    line: int = 0

    def meets(self, finding: Finding) -> bool:
        """Whether it speaks of a finding."""
        return (
            finding.check == self.check
            and fnmatchcase(finding.place, _literal(self.place))
            and fnmatchcase(finding.value, _literal(self.value))
            and self.without not in finding.variables
        )


def _literal(pattern: str) -> str:
    # fnmatch's brackets would be sets of characters; here only the star means something.
    return pattern.replace("[", "[[]").replace("?", "[?]")


def read(path: Path, checks: Iterable[str]) -> tuple[Acceptance, ...]:
    """Read ``accepted:`` of a YAML file; none where the file does not exist.

    Raises:
        AcceptanceError: unknown keys or checks, missing reasons; all at once, with their lines.
    """
    if not path.exists():
        return ()
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise AcceptanceError(f"{path} is no YAML: {error}") from error
    if document is None:
        return ()
    known = tuple(checks)
    problems = []
    found = []
    if not isinstance(document, dict) or set(document) != {"accepted"}:
        raise AcceptanceError(f"{path} must hold one key, accepted, got {document!r}")
    for entry in document["accepted"] or ():
        line = entry.lc.line + 1
        where = f"{path.name}:{line}"
        if unknown := set(entry) - set(_KEYS):
            problems.append(f"{where}: keys are {', '.join(_KEYS)}, got {', '.join(sorted(unknown))}")
            continue
        if missing := {"check", "place", "reason"} - set(entry):
            problems.append(f"{where}: {', '.join(sorted(missing))} is missing")
            continue
        if entry["check"] not in known:
            problems.append(f"{where}: check must be one of {', '.join(known)}, got {entry['check']!r}")
        if len(str(entry["reason"]).strip()) < _SHORTEST_REASON:
            problems.append(f"{where}: reason must say why in a sentence, got {entry['reason']!r}")
        found.append(Acceptance(line=line, **{key: str(value) for key, value in entry.items()}))
    if problems:
        raise AcceptanceError("; ".join(problems))
    return tuple(found)


def accept(
    findings: Sequence[Finding], acceptances: Sequence[Acceptance], *, file: str, shared: bool = False
) -> tuple[list[Finding], list[tuple[Finding, Acceptance]]]:
    """Split findings into those that stand and those that were accepted.

    An acceptance that meets nothing becomes a finding: what it excused is gone, and it would excuse what
    comes. It is a remark only where the file is ``shared`` by several apps.
    """
    standing: list[Finding] = []
    accepted: list[tuple[Finding, Acceptance]] = []
    used: set[Acceptance] = set()
    for finding in findings:
        met = next((item for item in acceptances if item.meets(finding)), None)
        if met is None:
            standing.append(finding)
        else:
            used.add(met)
            accepted.append((finding, met))
    standing += [
        Finding(
            check=item.check,
            place=f"{file}:{item.line}",
            value=f"the acceptance of {item.place} meets no finding",
            allowed="acceptances of what is found",
            fix="take it out of the file",
            severity="warning" if shared else "error",
        )
        for item in acceptances
        if item not in used
    ]
    return standing, accepted
