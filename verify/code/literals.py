"""Which texts an expression can have, as far as the code says it without being run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from verify.code.program import Function, Program, Scope

__all__ = ["ANY", "arguments", "texts"]

#: A text, or a part of one, that the code alone does not tell.
ANY = "*"
_DEPTH = 6


def texts(program: Program, scope: Scope, node: ast.AST, *, depth: int = _DEPTH) -> frozenset[str]:  # noqa: PLR0911, PLR0912 - one branch a kind of node
    """Texts that ``node`` may be: constants, constants with a ``*`` in place of what is not known, or ``*``.

    Followed are names of a function, a loop, a module and an import, parameters to the literals that calls
    pass, attributes of ``self`` and of dataclass fields to what they are given, and f-strings.
    """
    if depth == 0:
        return frozenset({ANY})
    match node:
        case ast.Constant(value=str(value)):
            return frozenset({value})
        case ast.JoinedStr(values=values):
            return _joined(program, scope, values, depth)
        case ast.IfExp(body=body, orelse=orelse):
            return texts(program, scope, body, depth=depth - 1) | texts(
                program, scope, orelse, depth=depth - 1
            )
        case ast.BoolOp(values=values):
            return frozenset().union(*(texts(program, scope, value, depth=depth - 1) for value in values))
        case ast.Call(func=ast.Attribute(value=inner, attr=("upper" | "lower" | "strip") as method)):
            found = texts(program, scope, inner, depth=depth - 1)
            return frozenset(text if text == ANY else str(getattr(text, method)()) for text in found)
        case ast.Call(func=ast.Name(id="str"), args=[inner]):
            return texts(program, scope, inner, depth=depth - 1)
        case ast.Name(id=name):
            return _name(program, scope, name, depth, node) or frozenset({ANY})
        case ast.Attribute(value=ast.Name(id=name), attr="name") if _over_fields(scope, name):
            names: set[str] = set()
            for iterable, _place in _looped(scope.node, name, node):
                for element in elements(program, scope, iterable, depth=depth - 1):
                    names |= texts(program, scope, element, depth=depth - 1)
            return frozenset(names) or frozenset({ANY})
        case ast.Subscript(value=ast.Name(id=name), slice=key):
            return _looked_up(program, scope, name, key, depth)
        case ast.Attribute(value=ast.Name(id=module), attr=member) if module in scope.module.imported:
            return _member(program, scope.module.imported[module][0], member, depth) or frozenset({ANY})
        case _:
            return frozenset({ANY})


def _joined(program: Program, scope: Scope, values: list[ast.expr], depth: int) -> frozenset[str]:
    made = frozenset({""})
    for value in values:
        inner = value.value if isinstance(value, ast.FormattedValue) else value
        parts = texts(program, scope, inner, depth=depth - 1)
        if len(made) * len(parts) > 64:
            return frozenset({ANY})
        made = frozenset(head + part for head in made for part in parts)
    return made


def _name(
    program: Program, scope: Scope, name: str, depth: int, node: ast.AST | None = None
) -> frozenset[str]:
    """Texts of a name, by every binding that its scope, its module or an import gives it."""
    found: set[str] = set()
    loops = list(_looped(scope.node, name, node))
    around = node is not None and bool(loops) and _inside(scope.node, name, node)
    for value in () if around else _bound(scope.node, name):
        found |= texts(program, scope, value, depth=depth - 1)
    if not around and isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef):
        for caller, argument in arguments(program, scope, name):
            found |= texts(program, caller, argument, depth=depth - 1)
    for iterable, place in () if found and not around else loops:
        for element in elements(program, scope, iterable, depth=depth - 1):
            part = element
            if place is not None and isinstance(element, ast.Tuple | ast.List) and place < len(element.elts):
                part = element.elts[place]
            found |= texts(program, scope, part, depth=depth - 1)
    if found:
        return frozenset(found)
    if not isinstance(scope.node, ast.Module):
        for value in _bound(scope.module.tree, name):
            found |= texts(program, scope, value, depth=depth - 1)
    if not found and name in scope.module.imported:
        module, member = scope.module.imported[name]
        if member is not None:
            found |= _member(program, module, member, depth)
    return frozenset(found)


def _member(program: Program, module: str, member: str, depth: int) -> frozenset[str]:
    if module not in program.modules:
        return frozenset()
    other = program.modules[module]
    return _name(program, Scope(other, other.tree), member, depth - 1)


def _looked_up(program: Program, scope: Scope, name: str, key: ast.AST, depth: int) -> frozenset[str]:
    """Texts of ``TABLE[key]``: of one entry when the key is known, of all otherwise."""
    keys = texts(program, scope, key, depth=depth - 1)
    found: set[str] = set()
    tables = [*_bound(scope.node, name), *_bound(scope.module.tree, name)]
    if not tables and name in scope.module.imported:
        module, member = scope.module.imported[name]
        if module in program.modules and member is not None:
            tables = list(_bound(program.modules[module].tree, member))
    for table in tables:
        if isinstance(table, ast.Dict):
            for entry, value in zip(table.keys, table.values, strict=True):
                if ANY in keys or (isinstance(entry, ast.Constant) and entry.value in keys):
                    found |= texts(program, scope, value, depth=depth - 1)
    return frozenset(found) or frozenset({ANY})


def _bound(node: ast.AST, name: str) -> Iterator[ast.expr]:
    """Values that assignments give a name."""
    for inner in ast.walk(node) if not isinstance(node, ast.Module) else iter(node.body):
        match inner:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _assigned(target, value, name)
            case ast.AnnAssign(target=ast.Name(id=bound), value=ast.expr() as value) if bound == name:
                yield value
            case ast.AugAssign(target=ast.Name(id=bound), value=value) if bound == name:
                yield value
            case ast.NamedExpr(target=ast.Name(id=bound), value=value) if bound == name:
                yield value
            case _:
                pass


def _assigned(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for part, given in zip(target.elts, value.elts, strict=False):
            yield from _assigned(part, given, name)


def _looped(node: ast.AST, name: str, used: ast.AST | None = None) -> Iterator[tuple[ast.expr, int | None]]:
    """Iterables that a name runs over, with its place in a tuple of targets.

    Of several loops over the same name the innermost one around its use counts.
    """
    found: list[tuple[ast.AST, ast.expr, int | None]] = []
    for outer, target, iterable in _loops(node):
        if isinstance(target, ast.Name) and target.id == name:
            found.append((outer, iterable, None))
        elif isinstance(target, ast.Tuple):
            found += [
                (outer, iterable, place)
                for place, part in enumerate(target.elts)
                if isinstance(part, ast.Name) and part.id == name
            ]
    around = [loop for loop in found if used is not None and any(part is used for part in ast.walk(loop[0]))]
    # Breadth-first: what is found later lies further inside.
    for _outer, iterable, place in around[-1:] or found:
        yield iterable, place


def _inside(node: ast.AST, name: str, used: ast.AST) -> bool:
    """Whether a use of a name stands in a loop over it."""
    return any(
        part is used
        for outer, target, _iterable in _loops(node)
        if any(isinstance(bound, ast.Name) and bound.id == name for bound in ast.walk(target))
        for part in ast.walk(outer)
    )


def _loops(node: ast.AST) -> Iterator[tuple[ast.AST, ast.expr, ast.expr]]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.For):
            yield inner, inner.target, inner.iter
        elif isinstance(inner, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            for generator in inner.generators:
                yield inner, generator.target, generator.iter


def _over_fields(scope: Scope, name: str) -> bool:
    """Whether a name runs over the fields of a dataclass."""
    return any(
        isinstance(iterable, ast.Call)
        and isinstance(iterable.func, ast.Name)
        and iterable.func.id == "fields"
        for iterable, _place in _looped(scope.node, name)
    )


def elements(program: Program, scope: Scope, node: ast.AST, *, depth: int = _DEPTH) -> Iterator[ast.AST]:  # noqa: PLR0912 - one branch a kind of node
    """Elements of an iterable that the code writes down; of a mapping its keys, or its pairs by ``items``."""
    if depth == 0:
        return
    match node:
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                if isinstance(part, ast.Starred):
                    yield from elements(program, scope, part.value, depth=depth - 1)
                else:
                    yield part
        case ast.Dict(keys=keys):
            yield from (key for key in keys if key is not None)
        case ast.DictComp(key=key, generators=[ast.comprehension(target=target, iter=iterable), *_]):
            if isinstance(key, ast.Name) and isinstance(target, ast.Name) and key.id == target.id:
                yield from elements(program, scope, iterable, depth=depth - 1)
        case ast.Call(func=ast.Attribute(value=inner, attr="items"), args=[]):
            yield from _pairs(program, scope, inner, depth)
        case ast.Call(func=ast.Attribute(value=inner, attr="values"), args=[]):
            for pair in _pairs(program, scope, inner, depth):
                if isinstance(pair, ast.Tuple):
                    yield pair.elts[1]
        case ast.Call(func=ast.Name(id="sorted" | "tuple" | "list" | "set"), args=[inner, *_]):
            yield from elements(program, scope, inner, depth=depth - 1)
        case ast.Call(func=ast.Name(id="fields"), args=[ast.Name(id=owner)]):
            yield from _fields(program, scope, owner)
        case ast.IfExp(body=body, orelse=orelse):
            yield from elements(program, scope, body, depth=depth - 1)
            yield from elements(program, scope, orelse, depth=depth - 1)
        case ast.BinOp(left=left, op=ast.BitOr() | ast.Add(), right=right):
            yield from elements(program, scope, left, depth=depth - 1)
            yield from elements(program, scope, right, depth=depth - 1)
        case ast.Name(id=name):
            for bound in (*_bound(scope.node, name), *_bound(scope.module.tree, name)):
                yield from elements(program, scope, bound, depth=depth - 1)
            rest = getattr(getattr(scope.node, "args", None), "vararg", None)
            for caller, argument in arguments(program, scope, name):
                if rest is not None and rest.arg == name:
                    # Of ``*names`` each argument is an element.
                    yield argument
                else:
                    yield from elements(program, caller, argument, depth=depth - 1)
            if name in scope.module.imported:
                module, member = scope.module.imported[name]
                if module in program.modules and member is not None:
                    other = program.modules[module]
                    for bound in _bound(other.tree, member):
                        yield from elements(program, Scope(other, other.tree), bound, depth=depth - 1)
        case _:
            return


def _pairs(  # noqa: PLR0912 - one branch a kind of node
    program: Program, scope: Scope, node: ast.AST, depth: int
) -> Iterator[ast.AST]:
    tables: list[ast.AST] = [node]
    if isinstance(node, ast.Name):
        tables = [*_bound(scope.node, node.id), *_bound(scope.module.tree, node.id)]
        for caller, argument in arguments(program, scope, node.id):
            if depth > 1:
                yield from _pairs(program, caller, argument, depth - 1)
    for table in tables:
        if isinstance(table, ast.Dict):
            for key, value in zip(table.keys, table.values, strict=True):
                if key is None:
                    yield from _pairs(program, scope, value, depth - 1)
                else:
                    yield ast.Tuple(elts=[key, value], ctx=ast.Load())
        elif isinstance(table, ast.BinOp) and isinstance(table.op, ast.BitOr) and depth > 1:
            yield from _pairs(program, scope, table.left, depth - 1)
            yield from _pairs(program, scope, table.right, depth - 1)
        elif isinstance(table, ast.DictComp):
            for element in elements(program, scope, table, depth=depth - 1):
                if isinstance(element, ast.expr):
                    yield ast.Tuple(elts=[element, table.value], ctx=ast.Load())
        elif isinstance(table, ast.IfExp) and depth > 1:
            yield from _pairs(program, scope, table.body, depth - 1)
            yield from _pairs(program, scope, table.orelse, depth - 1)


def _fields(program: Program, scope: Scope, owner: str) -> Iterator[ast.AST]:
    """Names of a dataclass's fields, as texts; ``cls`` is the class that the method belongs to."""
    classes = (
        [scope.owner]
        if owner == "cls" and scope.owner is not None
        else [found.node for found in program.scopes(owner)]
    )
    for node in classes:
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield ast.Constant(value=part.target.id)


def arguments(program: Program, scope: Scope, name: str) -> Iterator[tuple[Scope, ast.expr]]:
    """What the live calls of a function pass as one of its parameters, with the scope of the call.

    A function inside another is called by the other; its own parameters are looked up the same way.
    """
    for function, owner in _functions(scope):
        known = function.args
        places = [*known.posonlyargs, *known.args]
        names = [part.arg for part in places]
        first = 1 if owner is not None and names[:1] in (["self"], ["cls"]) else 0
        by_name = name in names or name in {part.arg for part in known.kwonlyargs}
        rest = known.vararg is not None and known.vararg.arg == name
        if not by_name and not rest:
            continue
        called = owner.name if owner is not None and function.name == "__init__" else function.name
        for caller, call in program.calls_of(called):
            if rest:
                yield from ((caller, part) for part in call.args[len(names) - first :])
                continue
            place = names.index(name) - first if name in names else None
            if place is not None and 0 <= place < len(call.args):
                yield caller, call.args[place]
            yield from ((caller, part.value) for part in call.keywords if part.arg == name)


def _functions(scope: Scope) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    if isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield scope.node, scope.owner
        for inner in ast.walk(scope.node):
            if isinstance(inner, ast.FunctionDef) and inner is not scope.node:
                yield inner, None


def dictionary(node: ast.Dict) -> Mapping[str, ast.expr]:
    """Entries of a dictionary that the code writes down, by their constant keys."""
    return {
        str(key.value): value
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
    }
