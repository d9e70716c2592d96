"""Saved queries of Logs Insights: kept by id, found by name, forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.rehearsal


def test_should_keep_show_change_and_forget_a_saved_query(client: Callable[[str], Any]) -> None:
    logs = client("logs")
    made = logs.put_query_definition(name="dev/claims/slow", queryString="fields @message")
    identifier = made["queryDefinitionId"]
    logs.put_query_definition(name="dev/hotline/slow", queryString="fields @message")

    logs.put_query_definition(
        queryDefinitionId=identifier, name="dev/claims/slow", queryString="limit 5", logGroupNames=["/a"]
    )

    [found] = logs.describe_query_definitions(queryDefinitionNamePrefix="dev/claims")["queryDefinitions"]
    assert found.pop("lastModified") > 0
    assert found == {
        "queryDefinitionId": identifier,
        "name": "dev/claims/slow",
        "queryString": "limit 5",
        "logGroupNames": ["/a"],
    }
    assert logs.delete_query_definition(queryDefinitionId=identifier)["success"] is True
    with pytest.raises(ClientError, match="there is no query definition"):
        logs.delete_query_definition(queryDefinitionId=identifier)
