"""Which environment variables a program reads, and which it cannot do without."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from verify.code.literals import ANY, arguments, texts
from verify.code.program import Program, Scope

__all__ = ["Reads", "environment", "reads", "request_properties"]

#: Calls that a condition about a text may hold and still be worked out.
_KNOWN = {"int": int, "float": float, "len": len, "str": str, "all": all, "any": any, "not": None}


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What a program reads of its environment.

    Args:
        names: variables it may read.
        required: those without which it refuses to work, as far as its code says so outright.
        unclear: places where the code does not say which variable it reads.
    """

    names: frozenset[str]
    required: frozenset[str]
    #: Those that are read by a subscript, wherever that is.
    subscripts: frozenset[str]
    unclear: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    scope: Scope
    key: ast.expr
    default: ast.expr | None
    subscript: bool
    node: ast.AST


#: Whether an expression is the mapping whose reads are wanted.
Root: TypeAlias = Callable[[Scope, ast.AST], bool]


def environment(scope: Scope, node: ast.AST) -> bool:
    """``os.environ``."""
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr="environ"):
            return True
        case ast.Name(id=name):
            return scope.module.imported.get(name) == ("os", "environ")
        case _:
            return False


def request_properties(_scope: Scope, node: ast.AST) -> bool:
    """``event["ResourceProperties"]``: what a template gives a custom resource."""
    match node:
        case ast.Subscript(slice=ast.Constant(value="ResourceProperties")):
            return True
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value="ResourceProperties"), *_]):
            return True
        case _:
            return False


def reads(program: Program, root: Root = environment) -> Reads:
    """Find every read of a mapping, also behind the parameters that it is passed as.

    Args:
        program: the code.
        root: which mapping; the environment by default.
    """
    parameters = _parameters(program, root)
    found = list(_reads(program, parameters, root))
    names: set[str] = set()
    asked: set[str] = set()
    subscripts: set[str] = set()
    unclear = []
    for read in found:
        keys = texts(program, read.scope, read.key)
        if ANY in keys:
            unclear.append(f"{read.scope.module.name}:{getattr(read.key, 'lineno', 0)}")
        names |= keys - {ANY}
        if read.subscript:
            subscripts |= keys
        else:
            asked |= keys
    outright: set[str] = set()
    refused: set[str] = set()
    for scope in {read.scope for read in found}:
        here = [read for read in found if read.scope is scope]
        certain = _certain(getattr(scope.node, "body", []))
        outright |= _outright_reads(program, scope, certain, here)
        refused |= _listed(program, scope, certain, names) | _tested(program, scope, certain, here)
    # What is asked for first, or made by the program itself, is no mistake of the template.
    required = refused | (outright - asked - _made(program))
    return Reads(
        names=frozenset(names),
        required=frozenset(required & names),
        subscripts=frozenset(subscripts - asked - {ANY}),
        unclear=tuple(sorted(unclear)),
    )


def _made(program: Program) -> set[str]:
    """Variables that the program gives the processes it starts."""
    return {
        str(key.value)
        for scope in program.live
        for node in scope.nodes()
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }


# -- what is the environment ----------------------------------------------------------------------------


def _aliases(scope: Scope, root: Root) -> set[str]:
    """Names that a function gives the mapping."""
    return {
        target.id
        for node in scope.nodes()
        if isinstance(node, ast.Assign) and root(scope, node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _parameters(program: Program, root: Root) -> set[tuple[ast.AST, str]]:
    """Names that the mapping has: parameters, through however many functions, and other names."""
    found: set[tuple[ast.AST, str]] = {
        (scope.node, name) for scope in program.live for name in _aliases(scope, root)
    }
    grown = True
    while grown:
        grown = False
        for scope in program.live:
            if not isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            known = scope.node.args
            for parameter in (*known.posonlyargs, *known.args, *known.kwonlyargs):
                if (scope.node, parameter.arg) in found or parameter.arg in ("self", "cls"):
                    continue
                for caller, argument in arguments(program, scope, parameter.arg):
                    passed = isinstance(argument, ast.Name) and (caller.node, argument.id) in found
                    if passed or root(caller, argument):
                        found.add((scope.node, parameter.arg))
                        grown = True
                        break
    return found


def _reads(program: Program, parameters: set[tuple[ast.AST, str]], root: Root) -> Iterator[_Read]:
    for scope in program.live:

        def is_environment(node: ast.AST, scope: Scope = scope) -> bool:
            passed = isinstance(node, ast.Name) and (scope.node, node.id) in parameters
            return passed or root(scope, node)

        for node in scope.nodes():
            match node:
                case ast.Subscript(value=value, slice=key, ctx=ast.Load()) if is_environment(value):
                    yield _Read(scope, key, None, True, node)
                case ast.Call(func=ast.Attribute(value=value, attr="get"), args=[key, *rest]) if (
                    is_environment(value)
                ):
                    yield _Read(scope, key, rest[0] if rest else None, False, node)
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="os"), attr="getenv"), args=[key, *rest]
                ) if root is environment:
                    yield _Read(scope, key, rest[0] if rest else None, False, node)
                case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[value]) if (
                    is_environment(value)
                ):
                    yield _Read(scope, key, None, False, node)
                case _:
                    pass


# -- what is needed -------------------------------------------------------------------------------------


def _outright_reads(program: Program, scope: Scope, certain: list[ast.stmt], found: list[_Read]) -> set[str]:
    """Variables that are read by a subscript outside every condition."""
    nodes = {node for statement in certain for node in _outright(statement)}
    return {
        key
        for read in found
        if read.subscript and read.node in nodes
        for key in texts(program, scope, read.key) - {ANY}
    }


def _certain(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run whenever the function does: those before the first that may leave it early."""
    certain = []
    for statement in body:
        certain.append(statement)
        if isinstance(statement, ast.If) and any(
            isinstance(node, ast.Return) for node in ast.walk(statement)
        ):
            break
    return certain


def _outright(statement: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a statement that are worked out whatever else holds."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            todo.append(node.test)
        elif isinstance(node, ast.BoolOp):
            todo.append(node.values[0])
        elif isinstance(node, ast.FunctionDef | ast.Lambda | ast.Try):
            continue
        else:
            todo.extend(ast.iter_child_nodes(node))


def _listed(program: Program, scope: Scope, certain: list[ast.stmt], names: set[str]) -> set[str]:
    """Variables that a comprehension lists as missing: ``[f"{name} is not set" for .. if not texts[name]]``.

    What it would say of each element is worked out, and the variables in it count.
    """
    required: set[str] = set()
    for statement in certain:
        for node in _outright(statement):
            if not isinstance(node, ast.ListComp | ast.GeneratorExp):
                continue
            generator = node.generators[0]
            if not any(_is_not(test) for test in generator.ifs):
                continue
            if isinstance(generator.iter, ast.Name) and isinstance(node.elt, ast.Name):
                said = {
                    text
                    for part in _first_bound(scope, generator.iter)
                    for text in texts(program, scope, part)
                }
            else:
                said = set(texts(program, scope, node.elt))
            words = {word for text in said for word in re.findall(r"\w+", text)}
            required |= words & names
    return required


def _first_bound(scope: Scope, node: ast.AST) -> Iterator[ast.AST]:
    """Elements that an iterable has for certain: of a name only those of its first binding."""
    if isinstance(node, ast.Name):
        for inner in ast.walk(scope.node):
            if isinstance(inner, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == node.id for target in inner.targets
            ):
                yield from _first_bound(scope, inner.value)
                return
    elif isinstance(node, ast.Tuple | ast.List):
        yield from (part for part in node.elts if not isinstance(part, ast.Starred))


def _is_not(test: ast.expr) -> bool:
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _tested(program: Program, scope: Scope, certain: list[ast.stmt], found: list[_Read]) -> set[str]:
    """Variables whose absence a test refuses: ``text = environment.get(X, "")``, ``if not text: raise``."""
    required: set[str] = set()
    blocks: list[list[ast.stmt]] = [certain]
    blocks += [statement.body for statement in certain if isinstance(statement, ast.For)]
    for block in blocks:
        empty: dict[str, tuple[str, _Read]] = {}
        for statement in block:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                read = next(
                    (read for read in found if any(read.node is node for node in ast.walk(statement.value))),
                    None,
                )
                if read is not None and not read.subscript and _plainly(statement.value, read.node):
                    default = read.default.value if isinstance(read.default, ast.Constant) else None
                    if isinstance(default, str):
                        empty[statement.targets[0].id] = (default.strip(), read)
            if not isinstance(statement, ast.If):
                continue
            spoken = {
                node.id for node in ast.walk(statement.test) if isinstance(node, ast.Name)
            } & empty.keys()
            verdict = _worked_out(statement.test, {name: text for name, (text, _read) in empty.items()})
            if spoken and verdict and _leaves(statement.body):
                for name in spoken:
                    empty.pop(name)
            elif spoken and verdict and _refuses(statement.body):
                # Only what the test speaks of first is what is missing.
                for name in spoken:
                    if _worked_out(statement.test, {name: empty[name][0]}):
                        required |= texts(program, scope, empty[name][1].key) - {ANY}
    return required


def _plainly(value: ast.expr, read: ast.AST) -> bool:
    """Whether a value is the read itself, stripped or in lower case at most."""
    while isinstance(value, ast.Call) and value is not read:
        if not isinstance(value.func, ast.Attribute) or value.func.attr not in ("strip", "lower", "upper"):
            return False
        value = value.func.value
    return value is read


def _leaves(body: list[ast.stmt]) -> bool:
    return len(body) == 1 and isinstance(body[0], ast.Continue | ast.Return | ast.Pass)


def _refuses(body: list[ast.stmt]) -> bool:
    return any(
        isinstance(node, ast.Raise)
        or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append"
        )
        for statement in body
        for node in ast.walk(statement)
    )


def _worked_out(test: ast.expr, values: dict[str, str]) -> bool | None:
    """Whether a condition holds for some texts; None when other things decide it.

    What it may speak of are those texts, methods of texts and a few built-in functions: nothing that acts.
    """
    for node in ast.walk(test):
        if isinstance(node, ast.Attribute) and not hasattr(str, node.attr):
            return None
        if isinstance(node, ast.NamedExpr | ast.Lambda | ast.Await):
            return None
    code = compile(ast.Expression(body=test), "<condition>", "eval")
    try:
        return bool(eval(code, {"__builtins__": {}}, {**_KNOWN, **values}))  # noqa: S307 - see above
    except Exception:  # noqa: BLE001 - what else the condition needs is not known: it decides nothing
        return None
