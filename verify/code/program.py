"""A deployed program: its modules, and the part of their code that can run from its entry.

Which code is live is judged by names: from the entry, every function, method and class of ours that live code
names is live too; of an attribute of some object, the methods of that name of all classes. That takes in too
much rather than too little, and so do the checks that build on it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["Function", "Module", "Program", "Scope"]

_IMPLICIT = (
    "__init__",
    "__post_init__",
    "__enter__",
    "__exit__",
    "__call__",
    "__iter__",
    "__next__",
    "__getitem__",
    "__contains__",
)
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

#: Packages that travel with a program and call nothing of AWS: not read. The contract's runtime is checked to
#: know no AWS; narwhals is somebody else's.
_CLOSED = frozenset({"ml_contract", "narwhals"})


@dataclass(frozen=True, eq=False)
class Module:
    """One module of a program."""

    name: str
    path: Path
    tree: ast.Module

    @functools.cached_property
    def imported(self) -> dict[str, tuple[str, str | None]]:
        """What a name stands for: module and, of ``from x import y``, its member."""
        found: dict[str, tuple[str, str | None]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = (alias.name, None)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = (node.module, alias.name)
        return found


@dataclass(frozen=True, eq=False)
class Scope:
    """A live piece of code: the body of a function, of a class, or of a module itself."""

    module: Module
    node: Function | ast.ClassDef | ast.Module
    #: The class of a method.
    owner: ast.ClassDef | None = None
    #: Words that the program is started with: of a table by such words only their entries count.
    words: frozenset[str] = frozenset()

    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of it, without what is a scope of its own."""
        return self._nodes

    @functools.cached_property
    def _nodes(self) -> tuple[ast.AST, ...]:
        return tuple(self._walked())

    def _walked(self) -> Iterator[ast.AST]:
        todo: list[ast.AST] = list(ast.iter_child_nodes(self.node))
        inner_functions = isinstance(self.node, ast.FunctionDef | ast.AsyncFunctionDef)
        while todo:
            node = todo.pop()
            if not inner_functions and isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            ):
                continue
            yield node
            if isinstance(node, ast.Dict) and self.words:
                todo.extend(self._picked(node))
            else:
                todo.extend(ast.iter_child_nodes(node))

    def _picked(self, node: ast.Dict) -> Iterator[ast.AST]:
        """Entries of a table of commands that can be meant; of any other dictionary, all."""
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        chosen = self.words & {key for key in keys if isinstance(key, str)}
        for key, part, value in zip(keys, node.keys, node.values, strict=True):
            if not chosen or key in chosen:
                yield from filter(None, (part, value))


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


class Program:
    """The code that starts at one entry.

    Args:
        roots: folders in which its packages lie.
        entry: module and function (``label_tasks.rounds``, ``handler``); without a function the module runs.
        script: file of the entry, where it is no module of a folder.
        words: what the program is started with, such as the command that it is to do.
    """

    def __init__(
        self,
        roots: tuple[Path, ...],
        entry: tuple[str, str | None],
        script: Path | None = None,
        words: frozenset[str] = frozenset(),
    ) -> None:
        self.words = words
        self.roots = roots
        self.entry = entry
        self.modules: dict[str, Module] = {}
        self._load(entry[0], script)
        self._scopes = self._all_scopes()
        self.live = tuple(self._live())

    @property
    def found(self) -> bool:
        """Whether the entry is there."""
        if self.entry[0] not in self.modules:
            return False
        return self.entry[1] is None or any(
            scope.module.name == self.entry[0] for scope in self._scopes.get(self.entry[1], ())
        )

    # -- modules --------------------------------------------------------------------------------------------

    def _file(self, name: str) -> Path | None:
        for root in self.roots:
            place = root.joinpath(*name.split("."))
            for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                if path.is_file():
                    return path
        return None

    def _load(self, name: str, script: Path | None) -> None:
        todo: list[tuple[str, Path | None]] = [(name, script or self._file(name))]
        while todo:
            name, path = todo.pop()
            if name in self.modules or path is None or name.partition(".")[0] in _CLOSED:
                continue
            module = self.modules[name] = Module(name, path, _parsed(path))
            for wanted in self._wanted(module):
                todo.append((wanted, self._file(wanted)))

    @staticmethod
    def _wanted(module: Module) -> Iterator[str]:
        for imported, member in module.imported.values():
            parts = imported.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))
            if member is not None:
                yield f"{imported}.{member}"

    # -- live code -------------------------------------------------------------------------------------------

    def _all_scopes(self) -> dict[str, list[Scope]]:
        """Every function, method and class by its name."""
        found: dict[str, list[Scope]] = {}
        for module in self.modules.values():
            todo: list[tuple[ast.AST, ast.ClassDef | None]] = [(module.tree, None)]
            while todo:
                parent, owner = todo.pop()
                for node in ast.iter_child_nodes(parent):
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        found.setdefault(node.name, []).append(Scope(module, node, owner))
                    elif isinstance(node, ast.ClassDef):
                        found.setdefault(node.name, []).append(Scope(module, node))
                        todo.append((node, node))
                    elif isinstance(node, ast.If | ast.Try | ast.With):
                        todo.append((node, owner))
        return found

    def _live(self) -> Iterator[Scope]:
        todo = [Scope(module, module.tree, words=self.words) for module in self.modules.values()]
        entry = self.entry[1]
        if entry is not None:
            todo += [scope for scope in self._scopes.get(entry, ()) if scope.module.name == self.entry[0]]
        seen: set[ast.AST] = set()
        while todo:
            scope = todo.pop()
            if scope.node in seen:
                continue
            seen.add(scope.node)
            yield scope
            for found in self._named(scope):
                if found.node not in seen:
                    todo.append(found)

    def _named(self, scope: Scope) -> Iterator[Scope]:
        """Functions, methods and classes that a piece of code names.

        A bare name is one of its module or of an import; ``module.name`` one of that module; any other
        attribute may be the method of that name of every class.
        """
        module = scope.module
        for node in scope.nodes():
            if isinstance(node, ast.Name):
                origin, member = module.imported.get(node.id, (module.name, node.id))
                yield from self._members(origin, member)
            elif isinstance(node, ast.Attribute):
                head = module.imported.get(node.value.id) if isinstance(node.value, ast.Name) else None
                # A module, or what a module has: a class, whose methods are meant.
                origin = "" if head is None else ".".join(filter(None, head))
                if origin in self.modules:
                    yield from self._members(origin, node.attr)
                else:
                    yield from (part for part in self._scopes.get(node.attr, ()) if part.owner is not None)
        if isinstance(scope.node, ast.ClassDef):
            # Python calls these itself.
            for name in _IMPLICIT:
                yield from (part for part in self._scopes.get(name, ()) if part.owner is scope.node)

    def _members(self, origin: str, member: str | None) -> Iterator[Scope]:
        for part in self._scopes.get(member or "", ()):
            if part.module.name == origin and part.owner is None:
                yield part
        # ``from package import name`` where the package itself has it from a module of its own.
        passed = self.modules[origin].imported.get(member or "") if origin in self.modules else None
        if passed is not None and passed[0] != origin:
            yield from self._members(*passed)

    def calls_of(self, name: str) -> Iterator[tuple[Scope, ast.Call]]:
        """Every live call of what is called ``name``."""
        yield from self._calls.get(name, ())

    @functools.cached_property
    def _calls(self) -> dict[str, list[tuple[Scope, ast.Call]]]:
        found: dict[str, list[tuple[Scope, ast.Call]]] = {}
        for scope in self.live:
            for node in scope.nodes():
                if isinstance(node, ast.Call):
                    called = node.func
                    name = (
                        called.id
                        if isinstance(called, ast.Name)
                        else called.attr
                        if isinstance(called, ast.Attribute)
                        else None
                    )
                    if name is not None:
                        found.setdefault(name, []).append((scope, node))
        return found

    def scopes(self, name: str) -> tuple[Scope, ...]:
        """Functions, methods and classes of that name."""
        return tuple(self._scopes.get(name, ()))
