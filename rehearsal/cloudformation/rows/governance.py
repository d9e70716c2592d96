"""Rows of Lake Formation's tags and filters."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by, only

__all__ = ["TABLE"]

_PLACE = ("TableCatalogId", "DatabaseName", "TableName", "Name")


def _tag_values(p: Properties, context: Context) -> Properties:
    """The values that are new and those that are gone: UpdateLFTag takes no whole list."""
    there = context.client("lakeformation").get_lf_tag(TagKey=p["TagKey"])["TagValues"]
    new = [value for value in p["TagValues"] if value not in there]
    gone = [value for value in there if value not in p["TagValues"]]
    return {
        "TagKey": p["TagKey"],
        **({"TagValuesToAdd": new} if new else {}),
        **({"TagValuesToDelete": gone} if gone else {}),
    }


def _associated(p: Properties, out: Properties, found: Properties) -> str:
    """Adding tags answers what failed, and no error."""
    del found
    if out.get("Failures"):
        raise ValueError(f"LF-tags were not added to {p['Resource']}: {out['Failures']}")
    return f"{_digest(p['Resource'])}|{_digest(p['LFTags'])}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _filter(p: Properties, context: Context) -> Properties:
    del context
    data = dict(p)
    if "RowFilter" in data and "AllRowsWildcard" in data["RowFilter"]:
        data["RowFilter"] = {"AllRowsWildcard": {}}
    return {"TableData": data}


TABLE: Mapping[str, Row] = {
    "AWS::LakeFormation::Tag": Row(
        service="lakeformation",
        create="CreateLFTag",
        update="UpdateLFTag",
        delete="DeleteLFTag",
        identify=by("TagKey"),
        convert_update=_tag_values,
        as_deployer=True,
    ),
    "AWS::LakeFormation::TagAssociation": Row(
        service="lakeformation",
        create="AddLFTagsToResource",
        delete="RemoveLFTagsFromResource",
        identify=lambda p, out: only(p, ("Resource", "LFTags")),
        ref=_associated,
        attributes=lambda p, out, found: {
            "ResourceIdentifier": _digest(p["Resource"]),
            "TagsIdentifier": _digest(p["LFTags"]),
        },
        as_deployer=True,
    ),
    "AWS::LakeFormation::DataCellsFilter": Row(
        service="lakeformation",
        create="CreateDataCellsFilter",
        delete="DeleteDataCellsFilter",
        identify=lambda p, out: only(p["TableData"], _PLACE),
        convert=_filter,
        ref=lambda p, out, found: "|".join(str(p["TableData"][key]) for key in _PLACE),
        as_deployer=True,
    ),
}
