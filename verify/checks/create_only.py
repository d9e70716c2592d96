"""What holds data is not replaced: its create-only properties against the last release's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from verify.context import Context
from verify.finding import Check, Finding
from verify.release import KEPT, digest

_ID = "create-only"
_LONGEST = 200


def run(context: Context) -> Iterator[Finding]:
    """Compare with the digest of the last release; without one there is nothing to lose yet."""
    if context.release is None:
        return
    now = digest(context.assembly)["stacks"]
    stages = {stack.partition("/")[0] for stack in context.assembly.stacks}
    for stack, resources in context.release["stacks"].items():
        if stack.partition("/")[0] not in stages:
            continue
        for logical_id, before in resources.items():
            after = now.get(stack, {}).get(logical_id)
            place = f"{stack} {logical_id}"
            if after is None or after["type"] != before["type"]:
                yield Finding(
                    check=_ID,
                    place=place,
                    value=f"{before['type']} of the last release is gone",
                    allowed="what holds data keeps its stack and logical id",
                    fix="give it back its id; if it is to go, accept this finding with the reason",
                )
                continue
            yield from _compare(place, before, after)


def _compare(place: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    was, becomes = before["create_only"], after["create_only"]
    for name in sorted(was.keys() | becomes.keys()):
        if was.get(name) != becomes.get(name):
            yield Finding(
                check=_ID,
                place=f"{place}: {name}",
                value=f"{_short(becomes.get(name))}: this replaces the {after['type']}, and its data is lost",
                allowed=f"{_short(was.get(name))}, as in the last release",
                fix="leave it as it is; a new resource beside it takes the new value",
            )
    # RetainExceptOnCreate keeps what was once made, so does Snapshot for its types.
    if KEPT.index(after["kept"]) < KEPT.index(before["kept"]):
        yield Finding(
            check=_ID,
            place=f"{place}: DeletionPolicy",
            value=f"{after['kept']}",
            allowed=f"{before['kept']}, as in the last release",
            fix="keep the policy; what is to be deleted needs the environment's two consents",
        )


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


CHECK = Check(
    id=_ID,
    title="Create-only properties of what holds data against the last release",
    proves="no update from the last release replaces, drops or lets go of a resource that holds data; tags "
    "count where the service cannot change them",
    source="CloudFormation's registry: createOnlyProperties, tagging.tagUpdatable; verify/release.json",
    run=run,
)
