"""Rows of what keeps the lake's tables in order."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from collections.abc import Mapping

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by

__all__ = ["TABLE"]


def _optimizer(p: Properties, context: Context) -> Properties:
    """Write the settings as the API does, whose members begin small."""
    del context
    return {**p, "TableOptimizerConfiguration": _small(p["TableOptimizerConfiguration"])}


def _small(value: Properties) -> Properties:
    return {
        key[:1].lower() + key[1:]: _small(item) if isinstance(item, dict) else item
        for key, item in value.items()
    }


TABLE: Mapping[str, Row] = {
    "AWS::Glue::TableOptimizer": Row(
        service="glue",
        create="CreateTableOptimizer",
        read="GetTableOptimizer",
        update="UpdateTableOptimizer",
        delete="DeleteTableOptimizer",
        convert=_optimizer,
        convert_update=_optimizer,
        identify=by("CatalogId", "DatabaseName", "TableName", "Type"),
        ref=lambda p, out, found: "|".join(
            str(p[name]) for name in ("TableName", "DatabaseName", "Type", "CatalogId")
        ),
    ),
}
