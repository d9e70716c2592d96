"""Labels land once: whatever comes twice, at once, or half."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from label_landing import handler as landing
from label_landing.errors import BadEventError, MisconfiguredError, TransientError
from label_landing.handler import land
from label_landing.settings import Settings
from label_landing.table import LabelTable
from label_support import NOW, Steps, item, item_table, name_of, stored
from label_tasks.tasks import Tasks
from lake_files.iceberg import Place, ensure_table
from ml_lifecycle.labelling.landing import COLUMNS
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.exceptions import CommitFailedException

PLACE = Place("curated", "parcel_delay_labels")


@pytest.fixture
def catalog(tmp_path: Path) -> InMemoryCatalog:
    catalog = InMemoryCatalog("test", warehouse=tmp_path.as_uri())
    catalog.create_namespace("curated")
    ensure_table(catalog, PLACE, location=f"{tmp_path.as_uri()}/labels", columns=COLUMNS)
    return catalog


@pytest.fixture
def items() -> Iterator[Any]:
    with item_table() as table:
        yield table


def decided(number: int, **changes: Any) -> Any:
    decision = {
        "label": "yes",
        "labelled_at": NOW.isoformat(timespec="milliseconds"),
        "labelled_by": ["ada", "ben"],
        "votes": 2,
        "agreement": 1.0,
        "resolution": "consensus",
    }
    return replace(item(number, queue=None, token=None), decision={**decision, **changes})


def message(number: int, token: str | None = "t", ident: int | None = None) -> dict[str, Any]:
    body = {"task": name_of(number)} | ({} if token is None else {"token": token})
    return {"messageId": f"m{number if ident is None else ident}", "body": json.dumps(body)}


def rows(catalog: InMemoryCatalog) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = catalog.load_table(("curated", PLACE.name)).scan().to_arrow().to_pylist()
    return sorted(found, key=lambda row: row["task"])


def test_should_land_a_batch_in_one_commit_and_answer_then(catalog: InMemoryCatalog, items: Any) -> None:
    stored(Tasks(items), decided(1), decided(2, label="no", labelled_by=["cem"], agreement=0.6667))
    steps = Steps()
    failed, counts = land([message(1, "a"), message(2, "b")], items, LabelTable(catalog, str(PLACE)), steps)
    assert failed == []
    assert counts["landed"] == 2
    first, second = rows(catalog)
    assert first == {
        "identifier": "P1",
        "label": "yes",
        "labelled_at": NOW,
        "labelled_by": ["ada", "ben"],
        "votes": 2,
        "agreement": 1.0,
        "resolution": "consensus",
        "origin": "low_confidence",
        "task": name_of(1),
        "inference_id": "i1",
    }
    assert (second["label"], second["labelled_by"], second["agreement"]) == ("no", ["cem"], 0.6667)
    assert len(catalog.load_table(("curated", PLACE.name)).snapshots()) == 1
    assert [token for token, _ in steps.answered] == ["a", "b"]


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 1, 1])))
def test_should_land_once_what_comes_often(
    catalog: InMemoryCatalog, items: Any, order: tuple[int, ...]
) -> None:
    stored(Tasks(items), decided(1), decided(2))
    labels = LabelTable(catalog, str(PLACE))
    for number in order[:2]:
        land([message(number)], items, labels, Steps())
    land([message(n, ident=i) for i, n in enumerate(order)], items, labels, Steps())
    assert [row["task"] for row in rows(catalog)] == [name_of(1), name_of(2)]


def test_should_append_a_correction_and_overwrite_nothing(catalog: InMemoryCatalog, items: Any) -> None:
    later = "2026-11-22T12:00:00.000+00:00"
    stored(
        Tasks(items),
        decided(1),
        replace(decided(2, label="no", labelled_at=later), identifier="P1", origin="correction"),
    )
    labels = LabelTable(catalog, str(PLACE))
    land([message(1)], items, labels, Steps())
    land([message(2)], items, labels, Steps())
    assert [(row["identifier"], row["label"]) for row in rows(catalog)] == [("P1", "yes"), ("P1", "no")]
    from lake_files.labels import newest_labels

    newest, _ = newest_labels(catalog.load_table(("curated", PLACE.name)))
    assert newest.to_pylist() == [{"identifier": "P1", "label": "no"}]


def test_should_look_again_when_somebody_else_committed_in_between(
    catalog: InMemoryCatalog, items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(Tasks(items), decided(1), decided(2))
    other = LabelTable(catalog, str(PLACE))
    raced = []

    class Racing:
        """A catalog whose first table is outdated as soon as it is loaded: another writer was quicker."""

        def load_table(self, place: Any) -> Any:
            loaded = catalog.load_table(place)
            if not raced:
                raced.append(True)
                land([message(1)], items, other, Steps())
            return loaded

    landed = land([message(1), message(2)], items, LabelTable(Racing(), str(PLACE), sleep=_no), Steps())
    assert landed[1]["landed"] == 1
    assert [row["task"] for row in rows(catalog)] == [name_of(1), name_of(2)]


def _no(_seconds: float) -> None:
    return None


def test_should_leave_it_to_the_queue_when_others_commit_all_the_time(
    catalog: InMemoryCatalog, items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyiceberg.table import Table

    def refused(*_args: Any, **_kwargs: Any) -> None:
        raise CommitFailedException("too late")

    stored(Tasks(items), decided(1))
    monkeypatch.setattr(Table, "append", refused)
    steps = Steps()
    with pytest.raises(TransientError, match="all the time"):
        land([message(1)], items, LabelTable(catalog, str(PLACE), sleep=_no), steps)
    # Nobody is told that a label landed which did not.
    assert steps.answered == []


@pytest.mark.parametrize(
    "bad",
    [
        {"messageId": "bad", "body": "{"},
        {"messageId": "bad", "body": "[]"},
        {"messageId": "bad", "body": '{"token": "t"}'},
        {"messageId": "bad"},
        message(9) | {"messageId": "bad"},
        message(3) | {"messageId": "bad"},
    ],
)
def test_should_keep_a_bad_message_apart_and_land_the_others(
    catalog: InMemoryCatalog, items: Any, bad: dict[str, Any]
) -> None:
    stored(Tasks(items), decided(1), item(3))
    failed, counts = land([bad, message(1)], items, LabelTable(catalog, str(PLACE)), Steps())
    assert failed == ["bad"]
    assert counts["landed"] == 1
    assert [row["task"] for row in rows(catalog)] == [name_of(1)]


@pytest.mark.parametrize(("code", "again"), [("TaskTimedOut", []), ("ThrottlingException", ["m1"])])
def test_should_come_again_only_for_a_token_that_somebody_waits_for(
    catalog: InMemoryCatalog, items: Any, code: str, again: list[str]
) -> None:
    stored(Tasks(items), decided(1))
    steps = Steps()
    steps.error = code
    failed, _ = land([message(1)], items, LabelTable(catalog, str(PLACE)), steps)
    assert failed == again
    assert len(rows(catalog)) == 1


def test_should_answer_nobody_where_nobody_waits(catalog: InMemoryCatalog, items: Any) -> None:
    stored(Tasks(items), decided(1))
    steps = Steps()
    assert land([message(1, None)], items, LabelTable(catalog, str(PLACE)), steps)[0] == []
    assert steps.answered == []
    assert len(rows(catalog)) == 1


def test_should_say_that_the_table_is_not_there(tmp_path: Path, items: Any) -> None:
    catalog = InMemoryCatalog("test", warehouse=tmp_path.as_uri())
    stored(Tasks(items), decided(1))
    with pytest.raises(MisconfiguredError, match="no Iceberg table"):
        land([message(1)], items, LabelTable(catalog, str(PLACE)), Steps())


# --- the function -------------------------------------------------------------------------------------


@pytest.fixture
def deployed(catalog: InMemoryCatalog, items: Any, monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setenv("TABLE", "items")
    monkeypatch.setenv("LABEL_TABLE", str(PLACE))
    steps = Steps()
    resource = type("Resource", (), {"Table": lambda _self, _name: items})()
    monkeypatch.setattr(landing, "_clients", lambda: (resource, steps))
    monkeypatch.setattr(landing, "_labels", lambda settings: LabelTable(catalog, settings.labels))
    return steps


def test_should_name_the_messages_that_must_come_again(
    deployed: Steps, items: Any, catalog: InMemoryCatalog
) -> None:
    stored(Tasks(items), decided(1))
    answer = landing.handler({"Records": [message(1), message(8)]}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m8"}]}
    assert len(rows(catalog)) == 1


@pytest.mark.parametrize("event", [{}, {"Records": None}, [], None])
def test_should_refuse_what_is_no_batch(deployed: Steps, event: Any) -> None:
    with pytest.raises(BadEventError):
        landing.handler(event, None)


def _client_error(status: int) -> ClientError:
    answer: Any = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetItem")


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (_client_error(500), TransientError),
        (_client_error(403), MisconfiguredError),
        (EndpointConnectionError(endpoint_url="x"), TransientError),
        (OSError("S3 is busy"), TransientError),
    ],
)
def test_should_tell_what_passes_from_what_a_person_has_to_mend(
    deployed: Steps, monkeypatch: pytest.MonkeyPatch, raised: Exception, error: type[Exception]
) -> None:
    def fail(*_args: Any) -> None:
        raise raised

    monkeypatch.setattr(landing, "land", fail)
    with pytest.raises(error):
        landing.handler({"Records": []}, None)


def test_should_report_every_problem_of_its_environment() -> None:
    with pytest.raises(MisconfiguredError, match=r"TABLE is not set; LABEL_TABLE must be database\.table"):
        Settings.from_environment({"LABEL_TABLE": "labels"})
