"""What the cells of security put into the calls that the templates carry."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from ml_lifecycle.security.job_roles import KINDS
from ml_lifecycle.security.job_roles import METADATA as OF_A_ROLE
from ml_lifecycle.security.rights import FORBIDDEN, METADATA, rights

from rehearsal.story.operations import security


def _values() -> dict[str, str]:
    outputs: dict[str, str] = defaultdict(lambda: "s3://bucket/prefix/")
    server = SimpleNamespace(account="1", environment=lambda: {"AWS_REGION": "r"})
    tale = SimpleNamespace(
        outputs=lambda _: outputs,
        cloud=SimpleNamespace(server=server),
        stage="Ops",
        workload=SimpleNamespace(slug="parcels"),
    )
    return security.values(cast("Any", tale))


def test_should_know_what_every_placeholder_stands_for() -> None:
    calls = [
        *(right.call for right in rights("t", "T")),
        *FORBIDDEN.values(),
        *(call for kind in KINDS.values() for call in (*kind.let.values(), *kind.refused.values())),
    ]
    used = {name for call in calls for name in re.findall(r"\$\{(\w+)\}", json.dumps(dict(call.parameters)))}
    assert used <= set(_values()) | {"OwnRole", "OtherRoleArn"}
    assert _values()["LakeBucket"] == "bucket"


def test_should_look_where_the_constructs_leave_it() -> None:
    assert (security.RIGHTS, security.JOB_ROLE) == (METADATA, OF_A_ROLE)
    assert set(security.KINDS) == set(KINDS)


def test_should_fill_placeholders_at_any_depth() -> None:
    given = {"A": "x-${One}", "B": [{"C": "${Two}${One}"}], "D": 3}
    assert security.filled(given, {"One": "1", "Two": "2"}) == {"A": "x-1", "B": [{"C": "21"}], "D": 3}
    with pytest.raises(KeyError):
        security.filled("${Three}", {})


def test_should_tell_a_refusal_from_an_answer() -> None:
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetRole")

    client = SimpleNamespace(get_role=refuse, list_roles=lambda: {})
    assert security.made(client, {"operation": "GetRole", "parameters": {}}, {}) == ("AccessDenied", "no")
    assert security.made(client, {"operation": "ListRoles", "parameters": {}}, {}) == (None, "")
