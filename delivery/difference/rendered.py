"""A difference as text, as JSON, as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from delivery.difference.findings import KINDS, Difference, Finding

__all__ = ["as_html", "as_json", "as_text"]

#: Of one kind in one stack, as text; the page and the JSON have all.
_MOST_LINES = 12


def as_json(difference: Difference) -> str:
    """The whole of it, for programs."""
    return json.dumps(_document(difference), indent=2) + "\n"


def _document(difference: Difference) -> dict[str, Any]:
    return {
        "counts": dict(difference.counts()),
        "findings": [asdict(finding) for finding in difference.findings],
        "stacks": [asdict(stack) for stack in difference.stacks],
        "cost": difference.cost,
        "notes": list(difference.notes),
    }


def as_text(difference: Difference) -> str:
    """For a terminal and a message: the gravest first, a line each."""
    return "\n".join(_lines(difference)) + "\n"


def _lines(difference: Difference) -> Iterator[str]:
    states: dict[str, list[str]] = {}
    for stack in difference.stacks:
        states.setdefault(stack.state, []).append(stack.stack)
    yield ", ".join(f"{len(names)} stacks {state}" for state, names in sorted(states.items())) or "no stacks"
    for stack in difference.stacks:
        if stack.state == "changed":
            yield (
                f"  {stack.stack}: {len(stack.added)} added, {len(stack.changed)} changed, "
                f"{len(stack.removed)} removed"
            )
        elif stack.state == "gone":
            yield f"  {stack.stack}: not in the app any more; a deploy leaves it as it is"
    for kind, words in KINDS.items():
        found = difference.of((kind,))
        if not found:
            continue
        yield ""
        yield f"{kind.upper()} ({len(found)}): {words}"
        for line, finding in enumerate(found):
            if line == _MOST_LINES:
                yield f"  ... and {len(found) - _MOST_LINES} more"
                break
            yield f"  {_one(finding)}"
    if not difference.findings:
        yield "nothing is replaced, deleted, opened or allowed that was not before"
    if difference.cost_text is not None:
        yield ""
        yield difference.cost_text
    for note in difference.notes:
        yield f"note: {note}"


def _one(finding: Finding) -> str:
    return f"{finding.stack} {finding.resource} ({finding.type}): {finding.why}"


def as_html(difference: Difference, *, title: str) -> str:
    """A page for whoever approves."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("delivery", "templates"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("difference.html").render(
        title=title,
        counts=difference.counts(),
        kinds=KINDS,
        difference=difference,
    )
