"""What a row is, and what rows are written with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["Context", "Properties", "Row", "by", "flag", "nothing", "only", "reached", "text"]

Properties: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a row is applied."""

    runtime: Runtime
    region: str
    stack: str
    logical_id: str
    #: The role CloudFormation deploys the stack with, None without one.
    role: str | None = None

    def client(self, service: str) -> Any:
        """Return an operator's client."""
        return self.runtime.client(service, region=self.region)


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one resource type is made out of API calls.

    ``identify`` gives the parameters that name the resource to ``read``, ``update`` and ``delete``, from the
    parameters it was made with and the answer to that. ``ref`` gives what ``Ref`` returns where the
    schema's primary identifier does not. ``finish`` runs after each create and update for what takes a call
    of its own. ``settled`` looks at what ``read`` answers: None means wait, a text is why it failed, an
    empty text that it is there.
    """

    service: str
    create: str
    identify: Callable[[Properties, Properties], Properties]
    read: str | None = None
    update: str | None = None
    delete: str | None = None
    name: str | None = None
    convert: Callable[[Properties, Context], Properties] | None = None
    convert_update: Callable[[Properties, Context], Properties] | None = None
    ref: Callable[[Properties, Properties, Properties], str] | None = None
    attributes: Callable[[Properties, Properties, Properties], Properties] | None = None
    finish: Callable[[Properties, Properties, Context], None] | None = None
    #: Runs after each update, when it is finished.
    after_update: Callable[[Properties, Properties, Context], None] | None = None
    settled: Callable[[Properties, Properties], str | None] | None = None
    #: Properties that only CloudFormation knows or that ``finish`` handles.
    beside: frozenset[str] = frozenset()
    #: Act as the stack's deployment role: the service itself asks who calls (Lake Formation).
    as_deployer: bool = False


def by(*members: str) -> Callable[[Properties, Properties], Properties]:
    """Identify a resource by members of the answer, or else of the parameters, that made it."""

    def identify(params: Properties, output: Properties) -> Properties:
        return {member: output.get(member, params.get(member)) for member in members}

    return identify


def nothing(params: Properties, output: Properties) -> Properties:
    del params, output
    return {}


def only(params: Properties, names: Iterable[str]) -> Properties:
    return {name: params[name] for name in names if name in params}


def text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)


def reached(
    status: str, good: Iterable[str], bad: Iterable[str]
) -> Callable[[Properties, Properties], str | None]:
    good, bad = frozenset(good), frozenset(bad)

    def settled(params: Properties, found: Properties) -> str | None:
        del params
        state = found.get(status)
        if state in good or state is None:
            return ""
        return str(found.get("FailureReason", f"{status} is {state}")) if state in bad else None

    return settled


def flag(value: Any) -> bool:
    return str(value).lower() == "true"
