"""A picture of what was deployed: one box per stack, its resources by service, an arrow per dependency.

Drawn from the cloud assembly's own facts, so it cannot differ from what CloudFormation was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = ["picture"]

BOX_WIDTH, LINE_HEIGHT, COLUMN_GAP, ROW_GAP, PADDING = 208, 19, 44, 22, 12
HEADER = 44
#: How many services a box names before it sums up the rest.
MOST_SERVICES = 12
#: Characters of a title that fit into a box; the whole id is its tooltip.
TITLE_LENGTH = 25

#: A part of the platform -> the services that make it; gives the colour of a service's dot.
FAMILIES = {
    "data": ("S3", "Glue", "Kinesis", "KinesisFirehose", "LakeFormation", "Athena", "DynamoDB"),
    "model": ("SageMaker", "ApplicationAutoScaling"),
    "code": (
        "Lambda",
        "Events",
        "Scheduler",
        "SQS",
        "SNS",
        "StepFunctions",
        "CodePipeline",
        "CodeBuild",
        "ECR",
    ),
    "guard": ("IAM", "KMS", "EC2", "CloudTrail", "Config"),
    "watch": ("CloudWatch", "Logs", "Budgets", "SSM"),
}


@dataclass(frozen=True)
class _Box:
    id: str
    title: str
    subtitle: str
    lines: tuple[tuple[str, int, str], ...]
    x: float
    y: float

    @property
    def height(self) -> float:
        return HEADER + LINE_HEIGHT * len(self.lines) + PADDING


def _family(service: str) -> str:
    return next((name for name, services in FAMILIES.items() if service in services), "other")


def _services(resources: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int, str], ...]:
    """Return ``(service, resources, family)``, most first."""
    counts = Counter(
        parts[1] if len(parts := str(r["type"]).split("::")) == 3 else parts[0] for r in resources
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [(service, count, _family(service)) for service, count in ordered[:MOST_SERVICES]]
    rest = ordered[MOST_SERVICES:]
    if rest:
        lines.append((f"{len(rest)} more services", sum(count for _, count in rest), "other"))
    return tuple(lines)


def _levels(stacks: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Put each stack one column to the right of what it depends on."""
    ids = {str(stack["id"]): stack for stack in stacks}
    depth: dict[str, int] = {}

    def of(stack_id: str, path: tuple[str, ...] = ()) -> int:
        if stack_id in path:
            raise ValueError(f"stacks depend on each other in a circle: {' -> '.join((*path, stack_id))}")
        if stack_id not in depth:
            below = [of(d, (*path, stack_id)) for d in ids[stack_id].get("depends_on", ()) if d in ids]
            depth[stack_id] = 1 + max(below, default=-1)
        return depth[stack_id]

    columns: list[list[Mapping[str, Any]]] = [[] for _ in range(max((of(i) for i in ids), default=-1) + 1)]
    for stack_id, stack in ids.items():
        columns[of(stack_id)].append(stack)
    return columns


def _place(stacks: Sequence[Mapping[str, Any]]) -> list[_Box]:
    boxes = []
    for number, column in enumerate(_levels(stacks)):
        y = 0.0
        for stack in column:
            lines = _services(stack["resources"])
            box = _Box(
                id=str(stack["id"]),
                title=str(stack["id"]).rsplit("/", 1)[-1],
                subtitle=f"{len(stack['resources'])} resources",
                lines=lines,
                x=number * (BOX_WIDTH + COLUMN_GAP),
                y=y,
            )
            boxes.append(box)
            y += box.height + ROW_GAP
    # Centre each column on the tallest one: arrows then cross less.
    heights: dict[float, float] = {}
    for box in boxes:
        heights[box.x] = max(heights.get(box.x, 0.0), box.y + box.height)
    tallest = max(heights.values(), default=0.0)
    return [_Box(b.id, b.title, b.subtitle, b.lines, b.x, b.y + (tallest - heights[b.x]) / 2) for b in boxes]


def picture(stacks: Sequence[Mapping[str, Any]]) -> str:
    """Return an ``<svg>`` of the stacks; empty when there are none.

    Args:
        stacks: ``{"id", "resources": [{"type"}], "depends_on": [id]}`` of each.
    """
    boxes = _place(stacks)
    if not boxes:
        return ""
    by_id = {box.id: box for box in boxes}
    width = max(b.x for b in boxes) + BOX_WIDTH
    height = max(b.y + b.height for b in boxes)
    parts = [
        '<svg role="img" aria-label="deployed stacks" class="stacks" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="-4 -4 {width + 8:.0f} {height + 8:.0f}" '
        f'style="min-width:{width * 0.72:.0f}px;max-width:{width:.0f}px">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" class="tip"/></marker></defs>',
    ]
    for stack in stacks:
        for other in _direct(stack, stacks):
            parts.append(_arrow(by_id[other], by_id[str(stack["id"])]))
    parts += [_box(box) for box in boxes]
    return "".join([*parts, "</svg>"])


def _direct(stack: Mapping[str, Any], stacks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the stack depends on, less what follows from its other dependencies."""
    ids = {str(s["id"]): s for s in stacks}
    below = [str(d) for d in stack.get("depends_on", ()) if d in ids]

    def reach(stack_id: str) -> set[str]:
        found: set[str] = set()
        for d in ids[stack_id].get("depends_on", ()):
            if d in ids and d not in found:
                found |= {str(d)} | reach(str(d))
        return found

    implied = set().union(*(reach(d) for d in below)) if below else set()
    return [d for d in below if d not in implied]


def _arrow(source: _Box, target: _Box) -> str:
    x1, y1 = source.x + BOX_WIDTH, source.y + source.height / 2
    x2, y2 = target.x - 3, target.y + target.height / 2
    bend = (x2 - x1) / 2
    curve = f"M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
    return f'<path class="edge" d="{curve}" marker-end="url(#arrow)"/>'


def _short(title: str) -> str:
    return title if len(title) <= TITLE_LENGTH else f"{title[: TITLE_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


def _box(box: _Box) -> str:
    parts = [
        f'<g transform="translate({box.x:.0f} {box.y:.0f})"><title>{escape(box.id)}</title>',
        f'<rect class="box" width="{BOX_WIDTH}" height="{box.height:.0f}" rx="10"/>',
        f'<text class="title" x="{PADDING}" y="22">{escape(_short(box.title))}</text>',
        f'<text class="sub" x="{PADDING}" y="37">{escape(box.subtitle)}</text>',
    ]
    for number, (service, count, family) in enumerate(box.lines):
        y = HEADER + LINE_HEIGHT * number + 13
        parts.append(f'<circle class="f-{family}" cx="{PADDING + 4}" cy="{y - 4}" r="4"/>')
        parts.append(f'<text class="name" x="{PADDING + 16}" y="{y}">{escape(service)}</text>')
        parts.append(f'<text class="count" x="{BOX_WIDTH - PADDING}" y="{y}">{count}</text>')
    parts.append("</g>")
    return "".join(parts)
