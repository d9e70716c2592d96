"""Old versions go to the archive, and never one that somebody needs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from model_archive import handler as module
from model_archive.logic import Rule, Version, archived, serving
from model_archive.settings import MisconfiguredError, Settings

NOW = datetime(2026, 11, 21, tzinfo=UTC)
GROUP = "dev-trips"


def version(
    number: int, *, status: str = "Approved", stage: str | None = None, age_days: int = 30
) -> Version:
    return Version(
        arn=f"arn:{GROUP}/{number}",
        number=number,
        created=NOW - timedelta(days=age_days),
        approval_status=status,
        stage=stage,
    )


STATUSES = st.sampled_from(["Approved", "Rejected", "PendingManualApproval"])
VERSIONS = st.lists(
    st.builds(
        version,
        st.integers(1, 40),
        status=STATUSES,
        stage=st.sampled_from([None, "Archived", "Production"]),
        age_days=st.integers(0, 400),
    ),
    unique_by=lambda v: v.number,
    max_size=30,
)


@given(
    versions=VERSIONS,
    kept=st.sets(st.integers(1, 40), max_size=3),
    keep=st.integers(1, 12),
    days=st.none() | st.integers(1, 300),
)
def test_should_put_away_what_is_old_and_nobody_needs(
    versions: list[Version], kept: set[int], keep: int, days: int | None
) -> None:
    rule = Rule(keep_versions=keep, after=None if days is None else timedelta(days=days))
    arns = {f"arn:{GROUP}/{number}" for number in kept}
    gone = archived(versions, kept=arns, rule=rule, now=NOW)
    newest = sorted((v.number for v in versions), reverse=True)[:keep]
    for one in versions:
        old = days is None or NOW - one.created > timedelta(days=days)
        wanted = (
            one.number not in newest
            and one.number not in kept
            and one.stage != "Archived"
            and one.approval_status != "PendingManualApproval"
            and old
        )
        assert (one in gone) == wanted
    assert [v.number for v in gone] == sorted(v.number for v in gone)


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        (["none"], set()),
        (["none", "a"], {"a"}),
        (["none", "a", "b"], {"a", "b"}),
        (["none", "a", "b", "c"], {"b", "c"}),
        (["none", "a", "b", "b", "b"], {"a", "b"}),
        # Rolled back: what serves again, and what was tried last.
        (["none", "a", "b", "a"], {"a", "b"}),
        (["a", "none"], {"a"}),
        ([], set()),
    ],
)
def test_should_keep_what_serves_and_what_a_rollback_returns_to(history: list[str], kept: set[str]) -> None:
    assert serving(history) == kept


class Cloud:
    """SageMaker and SSM, as far as the function asks them."""

    def __init__(self, *versions: Version, values: list[str], gone: int | None = None) -> None:
        self.versions = {v.arn: v for v in versions}
        self.values = values
        self.gone = gone
        self.stages: dict[str, str] = {}

    def get_paginator(self, operation: str) -> Cloud:
        assert operation in ("list_model_packages", "get_parameter_history")
        return self

    def paginate(self, **arguments: str) -> Iterator[dict[str, Any]]:
        if "Name" in arguments:
            for value in self.values:
                yield {"Parameters": [{"Value": value}]}
            return
        assert arguments == {"ModelPackageGroupName": GROUP}
        for arn in self.versions:
            yield {"ModelPackageSummaryList": [{"ModelPackageArn": arn}]}

    def describe_model_package(self, **arguments: str) -> dict[str, Any]:
        one = self.versions[arguments["ModelPackageName"]]
        if one.number == self.gone:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "gone"}}, "Describe")
        stage = self.stages.get(one.arn, one.stage)
        return {
            "ModelPackageVersion": one.number,
            "CreationTime": one.created,
            "ModelApprovalStatus": one.approval_status,
            **({} if stage is None else {"ModelLifeCycle": {"Stage": stage}}),
        }

    def update_model_package(self, **arguments: Any) -> None:
        arn = arguments["ModelPackageArn"]
        assert arn not in self.stages
        self.stages[arn] = arguments["ModelLifeCycle"]["Stage"]


def settings(keep: int = 2) -> Settings:
    return Settings(group_name=GROUP, parameters=("/approved",), rule=Rule(keep_versions=keep))


def test_should_do_it_once_however_often_it_runs() -> None:
    cloud = Cloud(
        *(version(number) for number in range(1, 7)),
        values=["none", f"arn:{GROUP}/2", f"arn:{GROUP}/3"],
        gone=1,
    )
    assert module.archive(cloud, cloud, settings(), now=NOW) == [4]
    assert module.archive(cloud, cloud, settings(), now=NOW) == []
    assert cloud.stages == {f"arn:{GROUP}/4": "Archived"}


def test_should_read_its_settings_and_say_all_that_is_wrong() -> None:
    good = {
        "MODEL_PACKAGE_GROUP_NAME": GROUP,
        "PARAMETER_NAMES": "/a,/b",
        "KEEP_VERSIONS": "3",
        "AFTER_DAYS": "30",
    }
    read = Settings.from_environment(good)
    assert (read.parameters, read.rule) == (("/a", "/b"), Rule(keep_versions=3, after=timedelta(days=30)))
    with pytest.raises(MisconfiguredError) as refused:
        Settings.from_environment({"KEEP_VERSIONS": "0", "AFTER_DAYS": "soon"})
    for name in ("KEEP_VERSIONS", "AFTER_DAYS", "MODEL_PACKAGE_GROUP_NAME", "PARAMETER_NAMES"):
        assert name in str(refused.value)
