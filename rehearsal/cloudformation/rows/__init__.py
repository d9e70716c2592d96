"""CloudFormation types as rows of a table over AWS's public APIs.

A row says which operations make, read, change and delete a resource. What the registry's schema says (which
property is the name, what ``Ref`` and ``Fn::GetAtt`` return, what a change replaces) is not repeated here.
Properties reach the API by their names; where the two differ a ``convert`` says how. A property that no
parameter takes is an error.

Each module of this package has a ``TABLE`` of rows by resource type; a type stands in one of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from rehearsal.cloudformation.rows.base import Context, Row

__all__ = ["ROWS", "Context", "Row"]


def _collect() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base"):
        table: Mapping[str, Row] = importlib.import_module(f"{__name__}.{name}").TABLE
        twice = sorted(rows.keys() & table.keys())
        if twice:
            raise ValueError(f"{name}: {', '.join(twice)} stands in another module of rows too")
        rows.update(table)
    return rows


#: Every type that is made through public APIs.
ROWS: Mapping[str, Row] = _collect()
