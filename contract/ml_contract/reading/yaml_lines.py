"""YAML as plain JSON data with the line of every value; all problems at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ml_contract.problems import ContractError, Location, Problem, join, short

__all__ = ["Source", "read_yaml"]

MAX_BYTES: Final = 1_000_000
MAX_VALUES: Final = 50_000
_TRUE: Final = ("true", "yes", "on")


@dataclass(frozen=True)
class Source:
    """A file's data, the line of every value, and what is wrong with single values."""

    data: dict[str, Any]
    lines: dict[Location, int]
    problems: list[Problem]


def read_yaml(path: Path) -> Source:
    """Read one mapping from a file. Raises ContractError when it holds none."""
    reader = _Reader(str(path))
    data = reader.value(_compose(path), (), ())
    return Source(data, reader.lines, reader.problems)


def _compose(path: Path) -> MappingNode:
    """Root node of the file."""
    text = _text(path)
    try:
        nodes = [node for node in YAML(typ="safe", pure=True).compose_all(text) if node is not None]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _failed(
            path, f"not YAML: {error.problem or error.context}", 1 if mark is None else mark.line + 1
        ) from None
    except (YAMLError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _failed(path, f"not YAML: {reason}") from None
    if not nodes:
        raise _failed(path, "empty; start with 'version: 1' and 'name: ...', see docs/workloads.md")
    if len(nodes) > 1:
        raise _failed(path, "more than one YAML document; keep one", nodes[1].start_mark.line + 1)
    root: Node = nodes[0]
    if not isinstance(root, MappingNode):
        raise _failed(path, f"a workload is a mapping of keys to values, got {_shape(root)}")
    return root


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _failed(path, f"no such file; a workload is a folder with a {path.name}") from None
    except OSError as error:
        raise _failed(path, f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise _failed(
            path, f"larger than {MAX_BYTES:,} bytes; a workload describes data, it does not hold data"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _failed(
            path, f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8", line
        ) from None


def _failed(path: Path, message: str, line: int = 1) -> ContractError:
    return ContractError([Problem(str(path), line, "", message)])


def _shape(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    return f"the text {short(node.value)}" if isinstance(node, ScalarNode) else "a mapping"


@dataclass
class _Reader:
    """Turns nodes into data; collects lines and problems."""

    file: str
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    too_many: bool = False

    def wrong(self, line: int, path: Location, message: str) -> None:
        self.problems.append(Problem(self.file, line, join(path), message))

    def value(self, node: Node, path: Location, enclosing: tuple[int, ...]) -> Any:
        """Data of a node. ``enclosing`` are the nodes around it: an alias may point at one of them."""
        line: int = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if id(node) in enclosing:
            self.wrong(line, path, "an alias that contains itself; write the value out")
            return None
        if len(self.lines) > MAX_VALUES:
            if not self.too_many:
                self.wrong(line, path, f"more than {MAX_VALUES:,} values; aliases multiply them, write less")
            self.too_many = True
            return None
        inner = (*enclosing, id(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, path, inner)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, i), inner) for i, item in enumerate(node.value)]
        return self._scalar(node, line, path)

    def _mapping(self, node: MappingNode, path: Location, enclosing: tuple[int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self.wrong(line, path, f"a key must be a text, got {_shape(key_node)}")
                continue
            here = (*path, key_node.value)
            if key_node.value in result:
                self.wrong(line, here, f"written twice, first on line {self.lines[here]}; keep one")
                continue
            self.lines[here] = line
            result[key_node.value] = self.value(value_node, here, enclosing)
        return result

    def _scalar(self, node: Node, line: int, path: Location) -> Any:
        kind = str(node.tag).rsplit(":", 1)[-1]
        text: str = node.value
        if kind in ("str", "timestamp"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in _TRUE
        if kind in ("int", "float"):
            return self._number(kind, text, line, path)
        self.wrong(line, path, f"has the tag {node.tag}; plain values only, remove the tag")
        return None

    def _number(self, kind: str, text: str, line: int, path: Location) -> float | None:
        plain = text.replace("_", "").lower()
        try:
            if kind == "float":
                number: float = float(plain.replace(".inf", "inf").replace(".nan", "nan"))
            else:
                number = int(plain) if plain.lstrip("+-").isdigit() else int(plain, 0)
        except ValueError:
            self.wrong(
                line, path, f"got {short(text)}, which cannot be read as {kind}; quote it if it is a text"
            )
            return None
        if not math.isfinite(number):
            self.wrong(line, path, f"got {text}; numbers are finite")
            return 0.0
        if kind == "int" and abs(number) >= 2**63:
            self.wrong(line, path, f"got {short(text)}; whole numbers fit 64 bits")
        return number
