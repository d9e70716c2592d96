"""Pydantic's findings in the words of this project: the value got, what is allowed, the fix."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from ml_contract.problems import Lines, Location, Problem, join, nearest, short, suggest
from ml_contract.spec.workload import Workload

__all__ = ["findings", "without_wrong_values"]

_TYPES: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "less than {}"),
}
_PATTERNS: Final = {
    r"^[a-z][a-z0-9_]{0,62}$": "lower-case letters, digits and _, a letter first, 63 at most",
    r"^[a-z][a-z0-9_]{0,30}[a-z0-9]$": "lower-case letters, digits and _, a letter first, 2 to 32",
}


def findings(error: ValidationError, data: Any, lines: Lines, file: str) -> list[Problem]:
    """One problem per place; what several members of a union say of one value becomes one sentence."""
    wanted: dict[Location, list[str]] = {}
    problems: list[Problem] = []
    for finding in error.errors():
        path, beyond = _locate(finding["loc"], data)
        kind = finding["type"]
        if kind in _TYPES:
            wanted.setdefault(path, []).append(_TYPES[kind])
            continue
        if kind == "missing":
            path = (*path, *beyond[-1:])
        message = _Finding(kind, finding["input"], finding.get("ctx", {}), path, finding["msg"]).message()
        problems.append(Problem(file, nearest(lines, path), join(path), message))
    for path, kinds in wanted.items():
        value = _at(data, path)
        needed = " or ".join(dict.fromkeys(kinds))
        quote = (
            "; put quotes around it" if kinds == ["a text"] and isinstance(value, bool | int | float) else ""
        )
        message = f"got {short(value)}; {needed} is needed{quote}"
        problems.append(Problem(file, nearest(lines, path), join(path), message))
    return problems


def without_wrong_values(error: ValidationError, data: Any) -> Any:
    """A copy of the data without what is wrong; None when the record or the label is among it."""
    repaired = copy.deepcopy(data)
    for finding in error.errors():
        path, _ = _locate(finding["loc"], data)
        if not path or path[0] in ("record", "label", "acceptance", "version", "name"):
            return None
        # A wrong element goes with its list, a wrong key with itself.
        keys = (
            [part for part in path if not isinstance(part, int)] if isinstance(path[-1], int) else list(path)
        )
        holder = repaired
        for part in keys[:-1]:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(keys[-1], None)
    return repaired


@dataclass(frozen=True)
class _Finding:
    """One finding of pydantic, at its place in the file's data."""

    kind: str
    got: Any
    context: Mapping[str, Any]
    path: Location
    words: str

    def message(self) -> str:
        for kinds, words in _WORDS.items():
            if self.kind in kinds:
                return words(self)
        return f"got {short(self.got)}; {self.words[:1].lower()}{self.words[1:]}"


def _bound(finding: _Finding) -> str:
    key, phrase = _BOUNDS[finding.kind]
    return f"got {short(finding.got)}; {phrase.format(_number_text(finding.context[key]))} is allowed"


def _literal(finding: _Finding) -> str:
    allowed = finding.context["expected"].replace("'", "").replace(" or ", ", ")
    return f"got {short(finding.got)}; allowed: {allowed}{_meant(str(finding.got), allowed.split(', '))}"


def _union_tag(finding: _Finding) -> str:
    tag = str(finding.context["discriminator"]).strip("'")
    allowed = str(finding.context.get("expected_tags", "")).replace("'", "") or _tags_of(finding.path)
    got = finding.got.get(tag) if isinstance(finding.got, dict) else None
    if got is None:
        return f"{tag} is missing; allowed: {allowed}"
    return f"{tag}: got {short(got)}; allowed: {allowed}{_meant(str(got), allowed.split(', '))}"


def _pattern(finding: _Finding) -> str:
    pattern = finding.context["pattern"]
    return f"got {short(finding.got)}; {_PATTERNS.get(pattern, f'must match {pattern}')}"


def _length(finding: _Finding) -> str:
    unit = "characters" if finding.kind.startswith("string") else "entries"
    context = finding.context
    least = "min_length" in context
    bound = f"at least {context['min_length']}" if least else f"at most {context['max_length']}"
    return f"got {short(finding.got)}; {bound} {unit}"


def _missing(finding: _Finding) -> str:
    return f"is missing; add it{_purpose(finding.path)}"


def _unknown(finding: _Finding) -> str:
    return f"unknown key{suggest(str(finding.path[-1]), _siblings(finding.path))}"


def _own(finding: _Finding) -> str:
    return str(finding.context["error"])


_WORDS: Final[dict[frozenset[str], Callable[[_Finding], str]]] = {
    frozenset(_BOUNDS): _bound,
    frozenset({"literal_error"}): _literal,
    frozenset({"union_tag_invalid", "union_tag_not_found"}): _union_tag,
    frozenset({"string_pattern_mismatch"}): _pattern,
    frozenset({"too_short", "too_long", "string_too_short", "string_too_long"}): _length,
    frozenset({"missing"}): _missing,
    frozenset({"extra_forbidden"}): _unknown,
    frozenset({"value_error"}): _own,
}


def _meant(got: str, allowed: Iterable[str]) -> str:
    hint = suggest(got, allowed)
    return hint if "did you mean" in hint else ""


def _at(data: Any, path: Location) -> Any:
    for part in path:
        data = data[part]
    return data


def _locate(loc: tuple[str | int, ...], data: Any) -> tuple[Location, tuple[str | int, ...]]:
    """The part of ``loc`` that exists in ``data``; pydantic puts names of union members between."""
    path: list[str | int] = []
    tail: list[str | int] = []
    here: Any = data
    for part in loc:
        inside = part in here if isinstance(here, dict) else isinstance(part, int) and isinstance(here, list)
        if inside:
            here = here[part]
            path.append(part)
            tail.clear()
        else:
            tail.append(part)
    return tuple(path), tuple(tail)


def _model_at(path: Location) -> tuple[type[BaseModel], ...]:
    """Models that may stand at ``path``."""
    models: list[Any] = [Workload]
    for part in path:
        following: list[Any] = []
        for model in models:
            for candidate in _members(model):
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    if part in candidate.model_fields:
                        following.append(candidate.model_fields[str(part)].annotation)
                else:
                    following += _element(candidate)
        models = following
    return tuple(
        m for model in models for m in _members(model) if isinstance(m, type) and issubclass(m, BaseModel)
    )


def _members(annotation: Any) -> Iterator[Any]:
    """An annotation without Annotated and unions around it."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        yield annotation
        return
    origin = getattr(annotation, "__origin__", None)
    if hasattr(annotation, "__metadata__"):
        yield from _members(origin)
    elif origin in (dict, tuple, list):
        yield annotation
    else:
        for argument in getattr(annotation, "__args__", ()):
            yield from _members(argument)


def _element(annotation: Any) -> list[Any]:
    arguments = [a for a in getattr(annotation, "__args__", ()) if a is not Ellipsis]
    return arguments[-1:]


def _siblings(path: Location) -> list[str]:
    return sorted({name for model in _model_at(path[:-1]) for name in model.model_fields})


def _tags_of(path: Location) -> str:
    tags: set[str] = set()
    for model in _model_at(path):
        for name in ("kind", "task"):
            if name in model.model_fields:
                tags.update(get_args(model.model_fields[name].annotation))
    return ", ".join(sorted(tags))


def _purpose(path: Location) -> str:
    """What the missing key is for."""
    for model in _model_at(path[:-1]):
        field = model.model_fields.get(str(path[-1]))
        if field is not None and field.description:
            return f" ({field.description.rstrip('.')})"
    return ""


def _number_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
