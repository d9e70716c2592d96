"""Bringing back objects as of a moment, against a naive oracle; and what is refused."""

# ruff: noqa: N803 - parameters as boto3 names them
from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from tools import restore

START = datetime(2026, 1, 1, tzinfo=UTC)


class Bucket:
    """As much of a versioned bucket as the tool asks for, with a clock of its own."""

    def __init__(self, *, versioning: str | None = "Enabled") -> None:
        self.versioning = versioning
        #: Key -> entries from the oldest to the newest: version id, moment, content (None: delete marker).
        self.history: dict[str, list[tuple[str, datetime, str | None]]] = {}
        self.now = START
        self._numbers = 0

    def put(self, key: str, content: str | None) -> None:
        self._numbers += 1
        self.history.setdefault(key, []).append((f"v{self._numbers}", self.now, content))

    def content(self, at: datetime | None = None) -> dict[str, str]:
        found = {}
        for key, entries in self.history.items():
            past = [content for _, moment, content in entries if at is None or moment <= at]
            if past and past[-1] is not None:
                found[key] = past[-1]
        return found

    def get_bucket_versioning(self, **_: str) -> dict[str, Any]:
        return {} if self.versioning is None else {"Status": self.versioning}

    def get_paginator(self, operation: str) -> Bucket:
        assert operation == "list_object_versions"
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:
        for key in sorted(key for key in self.history if key.startswith(Prefix)):
            newest = self.history[key][-1][0]
            items = [
                {"Key": key, "VersionId": version, "LastModified": moment, "IsLatest": version == newest}
                for version, moment, _ in reversed(self.history[key])
            ]
            markers = {version for version, _, content in self.history[key] if content is None}
            # A page for each key: a history may go on where another page begins.
            yield {
                "Versions": [item for item in items if item["VersionId"] not in markers],
                "DeleteMarkers": [item for item in items if item["VersionId"] in markers],
            }

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        self.put(Key, None)

    def copy(self, source: dict[str, str], bucket: str, key: str) -> None:
        content = next(c for version, _, c in self.history[key] if version == source["VersionId"])
        assert content is not None, "a delete marker cannot be copied"
        self.put(key, content)


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["data/a", "data/b", "data/c", "other/a"]),
        st.one_of(st.none(), st.text("xyz", min_size=1, max_size=3)),
        st.integers(1, 3),
    ),
    max_size=20,
)


@given(events=_EVENTS, second=st.integers(0, 40))
def test_should_give_back_every_object_as_it_was(
    events: list[tuple[str, str | None, int]], second: int
) -> None:
    bucket = Bucket()
    for key, content, pause in events:
        bucket.now += timedelta(seconds=pause)
        bucket.put(key, content)
    at = START + timedelta(seconds=second)
    bucket.now = max(bucket.now, at) + timedelta(seconds=1)
    before = bucket.content()
    asked = {key: content for key, content in bucket.content(at).items() if key.startswith("data/")}
    told = restore.restore_objects(bucket, "lake", "data/", at, dry_run=True)
    assert bucket.content() == before, "a dry run changes nothing"
    outcome = restore.restore_objects(bucket, "lake", "data/", at)
    assert outcome == told
    after = bucket.content()
    assert {key: content for key, content in after.items() if key.startswith("data/")} == asked
    assert after.get("other/a") == before.get("other/a"), "nothing outside the prefix is touched"
    assert outcome.restored + outcome.unchanged == len(asked)
    again = restore.restore_objects(bucket, "lake", "data/", bucket.now)
    assert (again.restored, again.removed) == (0, 0), "what is now is left alone"


def test_should_rather_restore_than_lose_what_was_deleted_in_the_second_it_was_written() -> None:
    bucket = Bucket()
    bucket.put("data/a", "first")
    bucket.put("data/a", None)
    bucket.put("data/b", "once")
    bucket.put("data/b", "twice")
    bucket.now += timedelta(seconds=5)
    bucket.put("data/b", None)
    bucket.put("data/a", "third")
    restore.restore_objects(bucket, "lake", "data/", START)
    assert bucket.content() == {"data/a": "first", "data/b": "twice"}


def test_should_refuse_a_bucket_without_versions() -> None:
    with pytest.raises(restore.RestoreError, match="bucket lake keeps no versions"):
        restore.restore_objects(Bucket(versioning=None), "lake", "data/", START)


def test_should_restore_real_versions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="lake")
        s3.put_bucket_versioning(Bucket="lake", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="lake", Key="data/a", Body=b"kept")
        s3.delete_object(Bucket="lake", Key="data/a")
        # Before anything was: the object is to be absent, as it is.
        assert (
            restore.main(["objects", "--bucket", "lake", "--prefix", "data/", "--at", "2020-01-01T00:00:00Z"])
            == 0
        )
        assert json.loads(capsys.readouterr().out) == {
            "restored": 0,
            "removed": 0,
            "unchanged": 0,
            "dry_run": False,
        }
        (version,) = s3.list_object_versions(Bucket="lake")["Versions"]
        s3.delete_object(
            Bucket="lake",
            Key="data/a",
            VersionId=s3.list_object_versions(Bucket="lake")["DeleteMarkers"][0]["VersionId"],
        )
        s3.put_object(Bucket="lake", Key="data/a", Body=b"overwritten")
        changes, _ = restore.plan(s3, "lake", "data/", version["LastModified"])
        assert changes in ([], [restore.Change("data/a", version["VersionId"])])


def test_should_say_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        restore.main(["objects", "--bucket", "lake", "--prefix", "x", "--at", "2026-01-01T00:00:00"])
    assert "must have a time zone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        restore.main(["rows", "--database", "d", "--table", "t"])
    assert "one of the arguments --at --snapshot is required" in capsys.readouterr().err
