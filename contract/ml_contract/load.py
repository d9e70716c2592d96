"""Reading a ``workload.yaml`` and the ``features.py`` beside it.

Every problem is found in one pass and reported as ``file:line: path: got value; allowed; fix``. Nothing that a person
can write into these two files ends in a stack trace.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ml_contract.compiled import Column, CompiledContract, Feature, FitSpec, LabelSpec
from ml_contract.expressions import Expr, ExpressionError, col, type_of
from ml_contract.model import (
    DELIVERY_COLUMNS,
    METRICS,
    RESERVED_COLUMNS,
    BinFeature,
    DatePartFeature,
    DaysBetweenFeature,
    DerivedFeature,
    PythonFeature,
    RatioFeature,
    RecordField,
    RegressionLabel,
    Workload,
)

__all__ = ["ContractError", "LoadedWorkload", "Problem", "discover_workloads", "load_workload"]

YAML_NAME: Final = "workload.yaml"
PYTHON_NAME: Final = "features.py"
MAX_YAML_BYTES: Final = 1_000_000
MAX_YAML_NODES: Final = 50_000
#: Feature Store takes 2,500 feature definitions per group (Service Quotas, "Maximum number of feature definitions").
MAX_COLUMNS: Final = 2_500

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend, with the place."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ContractError(ValueError):
    """A workload that cannot be used; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(p) for p in self.problems))


@dataclass(frozen=True)
class LoadedWorkload:
    """A workload that is right in itself, and where it came from."""

    workload: Workload
    path: Path
    expressions: dict[str, Expr]
    _lines: Mapping[Path_, int]

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.workload.name

    def line_of(self, path: str) -> int:
        """Line of ``training.instance_type``; the nearest enclosing block's when the file leaves it to its default."""
        return _nearest(self._lines, _split(path))

    def problem(self, path: str, message: str) -> Problem:
        """A problem that somebody else found with this workload, at its line."""
        return Problem(str(self.path), self.line_of(path), path, message)

    @cached_property
    def compiled(self) -> CompiledContract:
        """What runtime code reads."""
        return _compile(self.workload, self.expressions)


def load_workload(path: Path) -> LoadedWorkload:
    """Read a workload from its folder or its YAML file. Raises ContractError listing every problem."""
    yaml_path = path / YAML_NAME if path.is_dir() else path
    node, problems = _parse(yaml_path)
    lines: dict[Path_, int] = {}
    data = _plain(node, (), lines, problems, str(yaml_path)) if node is not None else None
    if problems:
        raise ContractError(problems)
    try:
        workload = Workload.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise ContractError(
            [_from_pydantic(e, data, lines, str(yaml_path)) for e in error.errors()]
        ) from None
    folder = yaml_path.parent
    checks = _Checks(workload, yaml_path, lines)
    checks.record()
    checks.label()
    checks.acceptance_and_monitoring()
    expressions = checks.python(folder / PYTHON_NAME)
    checks.features(expressions)
    if checks.problems:
        raise ContractError(checks.problems)
    return LoadedWorkload(workload, yaml_path, expressions, lines)


def discover_workloads(root: Path) -> tuple[LoadedWorkload, ...]:
    """Every folder below ``root`` that holds a ``workload.yaml``, by name. Problems of all of them at once."""
    found: list[LoadedWorkload] = []
    problems: list[Problem] = []
    if not root.is_dir():
        raise ContractError(
            [Problem(str(root), 1, "", "no such folder; workloads live in one folder each below it")]
        )
    for yaml_path in sorted(root.glob(f"*/{YAML_NAME}")):
        try:
            found.append(load_workload(yaml_path))
        except ContractError as error:
            problems += error.problems
    names: dict[str, LoadedWorkload] = {}
    for loaded in found:
        if loaded.name in names:
            problems.append(
                loaded.problem(
                    "name", f"got {loaded.name!r}, which {names[loaded.name].path} has too; rename one"
                )
            )
        names[loaded.name] = loaded
    ids: dict[str, str] = {}
    for loaded in found:
        other = ids.setdefault(loaded.workload.id, loaded.name)
        if other != loaded.name:
            problems.append(
                loaded.problem(
                    "name",
                    f"got {loaded.name!r}, whose id {loaded.workload.id} {other!r} has too; rename one",
                )
            )
    if problems:
        raise ContractError(problems)
    return tuple(names[name] for name in sorted(names))


# --- YAML ------------------------------------------------------------------------------------------------------


def _parse(path: Path) -> tuple[Node | None, list[Problem]]:
    """Root node of the file. Problems come with None."""

    def failed(message: str, line: int = 1) -> tuple[None, list[Problem]]:
        return None, [Problem(str(path), line, "", message)]

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_YAML_BYTES + 1)
    except FileNotFoundError:
        return failed(f"no such file; a workload is a folder with a {YAML_NAME}")
    except OSError as error:
        return failed(f"cannot be read: {error.strerror}")
    if len(raw) > MAX_YAML_BYTES:
        return failed(
            f"larger than {MAX_YAML_BYTES:,} bytes; a workload describes data, it does not hold data"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return failed(f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8", line)
    yaml = YAML(typ="safe", pure=True)
    try:
        nodes = list(yaml.compose_all(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        return failed(f"not YAML: {error.problem or error.context}", line)
    except (YAMLError, RecursionError, ValueError) as error:
        return failed(f"not YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    nodes = [n for n in nodes if n is not None]
    if not nodes:
        return failed("empty; start with 'version: 1' and 'name: ...', see docs/workloads.md")
    if len(nodes) > 1:
        return failed("more than one YAML document; keep one", nodes[1].start_mark.line + 1)
    if not isinstance(nodes[0], MappingNode):
        return failed("a workload is a mapping of keys to values, got " + _shape(nodes[0]))
    return nodes[0], []


def _shape(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    return f"the text {_short(node.value)}" if isinstance(node, ScalarNode) else "a mapping"


def _plain(
    node: Node,
    path: Path_,
    lines: dict[Path_, int],
    problems: list[Problem],
    file: str,
    open_nodes: tuple[int, ...] = (),
) -> Any:
    """Plain JSON data of a node; the line of every path goes into ``lines``."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)

    def wrong(message: str) -> None:
        problems.append(Problem(file, line, _join(path), message))

    if id(node) in open_nodes:
        wrong("an alias that contains itself; write the value out")
        return None
    if len(lines) > MAX_YAML_NODES:
        if not any("aliases" in p.message for p in problems):
            wrong(f"more than {MAX_YAML_NODES:,} values; aliases multiply them, write less")
        return None
    inner = (*open_nodes, id(node))
    if isinstance(node, MappingNode):
        return _plain_mapping(node, path, lines, problems, file, inner)
    if isinstance(node, SequenceNode):
        return [_plain(item, (*path, i), lines, problems, file, inner) for i, item in enumerate(node.value)]
    return _scalar(node, wrong)


def _plain_mapping(
    node: MappingNode,
    path: Path_,
    lines: dict[Path_, int],
    problems: list[Problem],
    file: str,
    open_nodes: tuple[int, ...],
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            problems.append(Problem(file, line, _join(path), f"a key must be a text, got {_shape(key_node)}"))
            continue
        key = key_node.value
        key_path = (*path, key)
        if key in result:
            problems.append(
                Problem(
                    file, line, _join(key_path), f"written twice, first on line {lines[key_path]}; keep one"
                )
            )
            continue
        lines[key_path] = line
        result[key] = _plain(value_node, key_path, lines, problems, file, open_nodes)
    return result


def _scalar(node: Node, wrong: Any) -> Any:
    kind = str(node.tag).rsplit(":", 1)[-1]
    text: str = node.value
    if kind in ("str", "timestamp"):
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("true", "yes", "on")
    plain = text.replace("_", "")
    try:
        if kind == "int":
            number = int(plain, 0) if not plain.lstrip("+-").isdigit() else int(plain)
            if abs(number) >= 2**63:
                wrong(f"got {_short(text)}; whole numbers fit 64 bits")
            return number
        if kind == "float":
            value = float(plain.replace(".inf", "inf").replace(".nan", "nan"))
            if not math.isfinite(value):
                wrong(f"got {text}; numbers are finite")
                return 0.0
            return value
    except ValueError:
        wrong(f"got {_short(text)}, which cannot be read as {kind}; quote it if it is a text")
        return None
    wrong(f"has the tag {node.tag}; plain values only, remove the tag")
    return None


# --- pydantic's findings in our words --------------------------------------------------------------------------

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
    r"^[a-z][a-z0-9_]{0,62}$": "lower-case letters, digits and _ , a letter first, 63 at most",
    r"^[a-z][a-z0-9_]{0,30}[a-z0-9]$": "lower-case letters, digits and _ , a letter first, no _ last, 2 to 32",
}


def _from_pydantic(error: Any, data: Any, lines: Mapping[Path_, int], file: str) -> Problem:
    path, unknown_tail = _locate(error["loc"], data)
    kind = error["type"]
    context = error.get("ctx", {})
    got = _short(error["input"])
    if kind == "missing":
        path = (*path, *unknown_tail[-1:])
        message = f"is missing; add it{_one_of_keys(path)}"
    elif kind == "extra_forbidden":
        message = f"unknown key{_suggest(str(path[-1]) if path else '', _siblings(path))}"
    elif kind in _TYPES:
        message = f"got {got}; {_TYPES[kind]} is needed{_quote_hint(kind, error['input'])}"
    elif kind in _BOUNDS:
        key, phrase = _BOUNDS[kind]
        message = f"got {got}; {phrase.format(_number_text(context[key]))} is allowed"
    elif kind == "literal_error":
        allowed = context["expected"].replace("'", "").replace(" or ", ", ")
        message = f"got {got}; allowed: {allowed}{_suggest(str(error['input']), allowed.split(', '))}"
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = str(context.get("discriminator", "")).strip("'")
        allowed = str(context.get("expected_tags", "")).replace("'", "") or _tags_of(path)
        value = error["input"].get(tag) if isinstance(error["input"], dict) else None
        where = f"{tag}: got {_short(value)}" if value is not None else f"{tag} is missing"
        message = f"{where}; allowed: {allowed}{_suggest(str(value), allowed.split(', '))}"
    elif kind == "string_pattern_mismatch":
        message = f"got {got}; {_PATTERNS.get(context['pattern'], 'must match ' + context['pattern'])}"
    elif kind in ("too_short", "string_too_short"):
        message = (
            f"got {got}; at least {context['min_length']} {'characters' if 'string' in kind else 'entries'}"
        )
    elif kind in ("too_long", "string_too_long"):
        message = (
            f"got {got}; at most {context['max_length']} {'characters' if 'string' in kind else 'entries'}"
        )
    elif kind == "value_error":
        message = str(context["error"])
    else:
        message = f"got {got}; {error['msg'][:1].lower()}{error['msg'][1:]}"
    return Problem(file, _nearest(lines, path), _join(path), message)


def _locate(loc: tuple[str | int, ...], data: Any) -> tuple[Path_, tuple[str | int, ...]]:
    """The part of ``loc`` that exists in ``data``; pydantic puts names of union members between."""
    path: list[str | int] = []
    tail: list[str | int] = []
    here = data
    for part in loc:
        if (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        ):
            here = here[part]
            path.append(part)
            tail.clear()
        else:
            tail.append(part)
    return tuple(path), tuple(tail)


def _model_at(path: Path_) -> tuple[type[BaseModel], ...]:
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


def _siblings(path: Path_) -> list[str]:
    return sorted({name for model in _model_at(path[:-1]) for name in model.model_fields})


def _tags_of(path: Path_) -> str:
    tags = set()
    for model in _model_at(path):
        for name in ("kind", "task"):
            if name in model.model_fields:
                tags.update(model.model_fields[name].annotation.__args__)  # type: ignore[union-attr]
    return ", ".join(sorted(tags))


def _one_of_keys(path: Path_) -> str:
    """What the missing key takes, when it is a choice."""
    for model in _model_at(path[:-1]):
        field = model.model_fields.get(str(path[-1]))
        if field is not None and field.description:
            return f" ({field.description.rstrip('.')})"
    return ""


def _suggest(got: str, allowed: list[str] | Iterator[str]) -> str:
    names = list(allowed)
    close = get_close_matches(got, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(names)}" if 0 < len(names) <= 30 and got not in names else ""


def _quote_hint(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "; put quotes around it"
    return ""


def _short(value: object) -> str:
    if isinstance(value, str):
        text = repr(value)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _join(path: Path_) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _split(path: str) -> Path_:
    parts: list[str | int] = []
    for part in path.replace("]", "").split("."):
        name, *indexes = part.split("[")
        if name:
            parts.append(name)
        parts += [int(i) for i in indexes]
    return tuple(parts)


def _nearest(lines: Mapping[Path_, int], path: Path_) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


# --- what holds between blocks ---------------------------------------------------------------------------------


class _Checks:
    """Checks over the whole workload; each appends to ``problems``."""

    def __init__(self, workload: Workload, file: Path, lines: Mapping[Path_, int]) -> None:
        self.workload = workload
        self.fields = workload.record.fields
        self.file = str(file)
        self.lines = lines
        self.problems: list[Problem] = []

    def wrong(self, path: Path_, message: str) -> None:
        self.problems.append(Problem(self.file, _nearest(self.lines, path), _join(path), message))

    def _field(self, path: Path_, name: str) -> RecordField | None:
        found = self.fields.get(name)
        if found is None:
            close = get_close_matches(name, list(self.fields), n=1, cutoff=0.6)
            hint = (
                f"did you mean {close[0]}?" if close else "add it to record.fields or use one that is there"
            )
            self.wrong(path, f"got {name!r}, which is no field of the record; {hint}")
        return found

    def record(self) -> None:
        record = self.workload.record
        sources: dict[str, str] = {}
        for name, field in self.fields.items():
            path: Path_ = ("record", "fields", name)
            if name in RESERVED_COLUMNS:
                self.wrong(
                    path,
                    f"{name} is a name that Feature Store reserves; rename the column and give source: {name}",
                )
            if name in DELIVERY_COLUMNS:
                self.wrong(
                    path, f"{name} is a column that delivery adds; rename the column and give source: {name}"
                )
            source = field.source if field.source is not None else name
            if source in sources:
                self.wrong(
                    path, f"reads the source field {source!r}, which {sources[source]} reads too; keep one"
                )
            sources[source] = name
            if any(ord(c) < 32 or c in '"\\' for c in source):
                self.wrong(
                    (*path, "source"),
                    f"got {source!r}; quotes, backslashes and control characters are not allowed",
                )
            if field.type == "integer":
                for bound in ("minimum", "maximum"):
                    value = getattr(field, bound)
                    if value is not None and (value != int(value) or abs(value) >= 2**63):
                        self.wrong(
                            (*path, bound), f"got {value:g}; an integer field needs a whole number of 64 bits"
                        )
            if len(set(field.missing)) != len(field.missing):
                self.wrong((*path, "missing"), f"got {_short(list(field.missing))}, which names a text twice")
            both = set(field.missing) & set(field.allowed or ())
            if both:
                self.wrong(
                    (*path, "missing"),
                    f"{sorted(both)[0]!r} is both allowed and missing; keep it in one of them",
                )
            if field.format is not None:
                self._format(field, (*path, "format"))
        identifier = self._field(("record", "identifier"), record.identifier)
        if identifier is not None:
            if identifier.type not in ("string", "integer"):
                self.wrong(
                    ("record", "identifier"),
                    f"{record.identifier} is {identifier.type}; an identifier is string or integer",
                )
            self._must_be_required(record.identifier, identifier, "the identifier")
        event_time = self._field(("record", "event_time"), record.event_time)
        if event_time is not None:
            if event_time.type not in ("date", "timestamp"):
                self.wrong(
                    ("record", "event_time"),
                    f"{record.event_time} is {event_time.type}; an event time is date or timestamp",
                )
            self._must_be_required(record.event_time, event_time, "the event time")
        if record.identifier == record.event_time:
            self.wrong(
                ("record", "event_time"),
                f"got {record.event_time!r}, which is the identifier; name another field",
            )
        expected = len(self.fields) + len(DELIVERY_COLUMNS)
        if expected > MAX_COLUMNS:
            self.wrong(("record", "fields"), f"got {expected} columns; at most {MAX_COLUMNS}")

    def _must_be_required(self, name: str, field: RecordField, role: str) -> None:
        if not field.required:
            self.wrong(("record", "fields", name), f"is {role}, so it needs required: true")

    def _format(self, field: RecordField, path: Path_) -> None:
        from ml_contract.dates import FormatError, date_parser

        try:
            date_parser(field.type, field.format)
        except FormatError as error:
            self.wrong(path, str(error))

    def label(self) -> None:
        label = self.workload.label
        path: Path_ = ("label", "field")
        field = self._field(path, label.field)
        if label.field in (self.workload.record.identifier, self.workload.record.event_time):
            self.wrong(
                path, f"got {label.field!r}, which is the identifier or the event time; name another field"
            )
        if field is None:
            return
        if isinstance(label, RegressionLabel):
            if field.type not in ("integer", "number"):
                self.wrong(path, f"{label.field} is {field.type}; a regression label is integer or number")
            return
        if field.type not in ("string", "integer", "boolean"):
            self.wrong(path, f"{label.field} is {field.type}; a class label is string, integer or boolean")
            return
        wanted = {"string": str, "integer": int, "boolean": bool}[field.type]
        for i, value in enumerate(label.values):
            here: Path_ = ("label", "values", i)
            if type(value) is not wanted:
                fix = "; put quotes around it" if field.type == "string" else ""
                self.wrong(here, f"got {_short(value)}; {label.field} is {field.type}{fix}")
            elif field.allowed is not None and value not in field.allowed:
                self.wrong(here, f"got {_short(value)}; {label.field} allows {', '.join(field.allowed)}")
            elif isinstance(value, str) and value in field.missing:
                self.wrong(here, f"got {_short(value)}, which {label.field} calls missing; name a class")
        if len(set(label.values)) != len(label.values):
            self.wrong(("label", "values"), f"got {_short(list(label.values))}, which names a class twice")
        if field.sensitive == "pii":
            self.wrong(path, f"{label.field} is pii; a label goes into training data, so it cannot be")

    def acceptance_and_monitoring(self) -> None:
        workload = self.workload
        allowed = METRICS[workload.label.task]
        metric = workload.acceptance.metric
        if metric not in allowed:
            self.wrong(
                ("acceptance", "metric"),
                f"got {metric!r}; for a {workload.label.task} label: {', '.join(allowed)}",
            )
        names = self._feature_names()
        known = [*self.fields, *names]
        for where, listed in (
            ("fields", list(workload.monitoring.fields)),
            ("ignore", list(workload.monitoring.ignore)),
        ):
            for i, name in enumerate(listed):
                if name not in known:
                    key: str | int = name if where == "fields" else i
                    self.wrong(
                        ("monitoring", where, key),
                        f"got {name!r}, which is no field and no feature{_suggest(name, known)}",
                    )
        if workload.stream.mode == "on_demand" and ("stream", "shards") in self.lines:
            self.wrong(("stream", "shards"), "goes with mode: provisioned; remove it or set the mode")

    def _feature_names(self) -> list[str]:
        return [*_field_features(self.workload), *self.workload.features.derive]

    def features(self, expressions: Mapping[str, Expr]) -> None:
        features = self.workload.features
        keys = (self.workload.record.identifier, self.workload.record.event_time, self.workload.label.field)
        if features.fields != "all":
            for i, name in enumerate(features.fields):
                self._named_feature(("features", "fields", i), name, keys)
            if len(set(features.fields)) != len(features.fields):
                self.wrong(("features", "fields"), "names a field twice")
        for i, exclusion in enumerate(features.exclude):
            here: Path_ = ("features", "exclude", i, "field")
            if self._field(here, exclusion.field) is None:
                continue
            if features.fields != "all" and exclusion.field not in features.fields:
                self.wrong(
                    here, f"got {exclusion.field!r}, which features.fields does not name; remove it here"
                )
            elif exclusion.field in keys:
                self.wrong(here, f"got {exclusion.field!r}, which is never a feature; remove it here")
        for name, derived in features.derive.items():
            self._derived(("features", "derive", name), name, derived, expressions)
        if not self._feature_names():
            self.wrong(("features",), "leaves no feature; name fields or derive some")
        total = len(self._feature_names()) + 3
        if total > MAX_COLUMNS:
            self.wrong(("features",), f"makes {total} columns; Feature Store takes {MAX_COLUMNS}")

    def _named_feature(self, path: Path_, name: str, keys: tuple[str, ...]) -> None:
        field = self._field(path, name)
        if field is None:
            return
        if name in keys:
            self.wrong(path, f"got {name!r}, which is the identifier, the event time or the label; remove it")
        elif field.sensitive == "pii":
            self.wrong(path, f"got {name!r}, which is pii and never a feature; remove it")
        elif field.type in ("date", "timestamp"):
            self.wrong(path, f"got {name!r}, a {field.type}; derive date_part or days_between from it")

    def _derived(
        self, path: Path_, name: str, derived: DerivedFeature, expressions: Mapping[str, Expr]
    ) -> None:
        if name in self.fields:
            self.wrong(path, f"{name} is a field of the record; give the feature another name")
        if name in RESERVED_COLUMNS or name in DELIVERY_COLUMNS:
            self.wrong(path, f"{name} is reserved; give the feature another name")
        uses: list[tuple[str, str, tuple[str, ...]]] = []
        numbers, dates = ("integer", "number"), ("date", "timestamp")
        if isinstance(derived, BinFeature):
            uses = [("field", derived.field, numbers)]
        elif isinstance(derived, DaysBetweenFeature):
            uses = [("since", derived.since, dates), ("until", derived.until, dates)]
        elif isinstance(derived, RatioFeature):
            uses = [("numerator", derived.numerator, numbers), ("denominator", derived.denominator, numbers)]
        elif isinstance(derived, DatePartFeature):
            uses = [("field", derived.field, ("timestamp",) if derived.part == "hour" else dates)]
        elif name in expressions:
            self._used_by_python(path, name, expressions[name])
        for key, used, types in uses:
            field = self._field((*path, key), used)
            if field is None:
                continue
            if field.type not in types:
                self.wrong((*path, key), f"{used} is {field.type}; {derived.kind} takes {' or '.join(types)}")
            self._may_be_used((*path, key), used, field)

    def _may_be_used(self, path: Path_, used: str, field: RecordField) -> None:
        if field.sensitive == "pii":
            self.wrong(path, f"{used} is pii and never part of a feature; use another field")
        if used == self.workload.label.field:
            self.wrong(path, f"{used} is the label; a feature made from it would tell the answer")

    def _used_by_python(self, path: Path_, name: str, expression: Expr) -> None:
        for used in sorted(expression.columns()):
            field = self.fields.get(used)
            if field is not None:
                self._may_be_used(path, used, field)

    def python(self, file: Path) -> dict[str, Expr]:
        """Expressions of ``features.py``, each checked against its declaration."""
        declared = {n: d for n, d in self.workload.features.derive.items() if isinstance(d, PythonFeature)}
        if not file.is_file():
            for name in declared:
                self.wrong(
                    ("features", "derive", name),
                    f"kind python, but there is no {file.name} beside the file; write FEATURES = {{{name!r}: ...}} there",
                )
            return {}
        defined, problem = _run_features(file)
        if problem is not None:
            self.problems.append(problem)
            return {}
        types = {name: field.type for name, field in self.fields.items()}
        result: dict[str, Expr] = {}
        for name, expression in defined.items():
            place = Problem(str(file), _line_of_key(file, name), f"FEATURES[{name!r}]", "")
            if name not in declared:
                hint = _suggest(name, list(declared)).removeprefix("; ")
                self._at(
                    place, f"is not declared; add features.derive.{name}: {{kind: python, type: ...}}", hint
                )
                continue
            if not isinstance(expression, Expr):
                self._at(
                    place, f"got {type(expression).__name__}; an expression is needed, e.g. col('field') + 1"
                )
                continue
            result[name] = expression
            unknown = sorted(expression.columns() - set(types))
            for used in unknown:
                self._at(place, f"uses {used!r}, which is no field of the record", _close(used, types))
            if not unknown:
                self._typed(place, expression, types, declared[name].type)
        for name in declared:
            if name not in defined:
                close = get_close_matches(name, list(defined), n=1, cutoff=0.6)
                hint = f"did you mean {close[0]}?" if close else f"add FEATURES[{name!r}] to it"
                self.wrong(
                    ("features", "derive", name), f"kind python, but {file.name} does not define it; {hint}"
                )
        return result

    def _typed(self, place: Problem, expression: Expr, types: Mapping[str, str], wanted: str) -> None:
        try:
            kind = type_of(expression, types)
        except ExpressionError as error:
            self._at(place, str(error))
            return
        fits = kind in ("number", "boolean") if wanted == "number" else kind == "string"
        if not fits:
            fix = "; use .cast('string')" if wanted == "category" and kind in ("number", "boolean") else ""
            self._at(place, f"is {kind}, declared as type: {wanted}{fix}")

    def _at(self, place: Problem, message: str, hint: str = "") -> None:
        text = f"{message}; {hint}" if hint else message
        self.problems.append(Problem(place.file, place.line, place.path, text))


def _close(name: str, known: Mapping[str, str]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def _run_features(file: Path) -> tuple[dict[str, Any], Problem | None]:
    """``FEATURES`` of the file; whatever it raises becomes one problem at its line."""

    def failed(message: str, line: int = 1) -> tuple[dict[str, Any], Problem]:
        return {}, Problem(str(file), line, "", message)

    try:
        source = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return failed("is not UTF-8; save the file as UTF-8")
    except OSError as error:
        return failed(f"cannot be read: {error.strerror}")
    namespace: dict[str, Any] = {"__name__": "features", "__file__": str(file)}
    try:
        # The workload's own code, from the repository that is being synthesised: trusted as the app itself is.
        exec(compile(source, str(file), "exec"), namespace)  # noqa: S102
    except SyntaxError as error:
        return failed(f"is not Python: {error.msg}", error.lineno or 1)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a person's file may raise anything; it is reported
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
        line = frames[-1].lineno if frames else None
        return failed(f"raises {type(error).__name__}: {error}", line or 1)
    features = namespace.get("FEATURES")
    if not isinstance(features, dict) or not all(isinstance(k, str) for k in features):
        got = "nothing" if features is None else type(features).__name__
        return failed(f"must define FEATURES as a dict from feature name to expression, got {got}")
    return features, None


def _line_of_key(file: Path, name: str) -> int:
    """First line of the file that writes the feature's name as a text."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if f'"{name}"' in line or f"'{name}'" in line:
            return number
    return 1


# --- compilation -----------------------------------------------------------------------------------------------


def _field_features(workload: Workload) -> list[str]:
    """Fields that are features by themselves, in the order of the record."""
    features = workload.features
    keys = {workload.record.identifier, workload.record.event_time, workload.label.field}
    excluded = {e.field for e in features.exclude}
    if features.fields != "all":
        named = set(features.fields)
        return [n for n in workload.record.fields if n in named and n not in excluded]
    return [
        name
        for name, field in workload.record.fields.items()
        if name not in keys
        and name not in excluded
        and field.sensitive is None
        and field.type not in ("date", "timestamp")
    ]


def _compile(workload: Workload, expressions: Mapping[str, Expr]) -> CompiledContract:
    columns = tuple(
        Column(
            name=name,
            source=field.source if field.source is not None else name,
            type=field.type,
            required=field.required,
            minimum=field.minimum,
            maximum=field.maximum,
            allowed=field.allowed,
            pattern=field.pattern,
            max_length=field.max_length,
            missing=field.missing,
            format=field.format,
            sensitive=field.sensitive,
        )
        for name, field in workload.record.fields.items()
    )
    label = workload.label
    values = None if isinstance(label, RegressionLabel) else tuple(_class_text(v) for v in label.values)
    features = [
        Feature(
            name=name,
            type="category" if workload.record.fields[name].type == "string" else "number",
            expression=col(name),
        )
        for name in _field_features(workload)
    ]
    types = {c.name: c.type for c in columns}
    for name, derived in workload.features.derive.items():
        expression = expressions[name] if isinstance(derived, PythonFeature) else _declared(derived)
        kind = type_of(expression, types)
        features.append(
            Feature(name=name, type="category" if kind == "string" else "number", expression=expression)
        )
    data = workload.json_dict()
    return CompiledContract(
        name=workload.name,
        identifier=workload.record.identifier,
        event_time=workload.record.event_time,
        late_after_days=workload.record.late_after_days,
        columns=columns,
        label=LabelSpec(task=label.task, field=label.field, values=values),
        features=tuple(features),
        fit=FitSpec(
            impute_numbers=workload.features.impute_numbers,
            max_categories=workload.features.max_categories,
            minimum_category_count=workload.features.minimum_category_count,
        ),
        decision_threshold=workload.serving.decision_threshold,
        split=data["training"]["split"],
        acceptance=data["acceptance"],
        monitoring=data["monitoring"],
        training={
            key: data["training"][key]
            for key in ("algorithm", "hyperparameters", "rounds", "early_stopping_rounds")
        },
        rules=workload.batch.rules,
    )


def _class_text(value: str | bool | int) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _declared(derived: DerivedFeature) -> Expr:
    if isinstance(derived, BinFeature):
        return col(derived.field).cut(derived.edges, derived.labels, below=derived.below, above=derived.above)
    if isinstance(derived, DaysBetweenFeature):
        return col(derived.since).days_between(col(derived.until))
    if isinstance(derived, RatioFeature):
        return col(derived.numerator) / col(derived.denominator)
    if isinstance(derived, DatePartFeature):
        parts = {
            "year": Expr.year,
            "month": Expr.month,
            "day": Expr.day,
            "weekday": Expr.weekday,
            "hour": Expr.hour,
        }
        return parts[derived.part](col(derived.field))
    raise TypeError(f"{derived.kind} features are expressions of {PYTHON_NAME}")
