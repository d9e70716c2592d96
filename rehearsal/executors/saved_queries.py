"""Saved queries of Logs Insights, which ministack lacks: kept, and told again. It does run queries."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.services.engine import Call, Record, Service

__all__: list[str] = []

_NOUN = "QueryDefinition"


def _kept(service: Service) -> dict[str, Record]:
    return dict(service.records.get(_NOUN, {}))


@instead("logs", "PutQueryDefinition")
def put_query_definition(service: Service, call: Call) -> dict[str, Any]:
    """Keep a query under a new id, or in place of the one whose id is given."""
    given = {k: v for k, v in call.params.items() if k not in ("queryDefinitionId", "clientToken")}
    number = call.params.get("queryDefinitionId")
    if number is None:
        number = str(uuid.uuid4())
    elif number not in _kept(service):
        raise ApiError("ResourceNotFoundException", f"there is no query definition {number}")
    else:
        del service.records[_NOUN][number]
    changed = round(service.runtime.clock.timestamp() * 1000)
    service.put(_NOUN, number, {**given, "queryDefinitionId": number, "lastModified": changed})
    return {"queryDefinitionId": number}


@instead("logs", "DescribeQueryDefinitions")
def describe_query_definitions(service: Service, call: Call) -> dict[str, Any]:
    """Tell the queries whose name begins as asked, all at once."""
    prefix = str(call.params.get("queryDefinitionNamePrefix", ""))
    found = [record.data for record in _kept(service).values() if record.data["name"].startswith(prefix)]
    return {"queryDefinitions": sorted(found, key=lambda definition: str(definition["name"]))}


@instead("logs", "DeleteQueryDefinition")
def delete_query_definition(service: Service, call: Call) -> dict[str, Any]:
    """Forget a query."""
    number = call.params["queryDefinitionId"]
    if number not in _kept(service):
        raise ApiError("ResourceNotFoundException", f"there is no query definition {number}")
    del service.records[_NOUN][number]
    return {"success": True}
