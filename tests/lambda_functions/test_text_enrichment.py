"""Every text has one row of answers, whatever fails, and none is asked for twice without need."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lake_files.iceberg import Place, ensure_table
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.exceptions import CommitFailedException
from text_enrichment import handler as enrichment
from text_enrichment.comprehend import (
    BATCH,
    CALL_ATTEMPTS,
    DOCUMENT_ATTEMPTS,
    MOST_BYTES,
    NOT_ANSWERED,
    Comprehend,
    cut,
)
from text_enrichment.errors import MisconfiguredError, TransientError
from text_enrichment.handler import enrich
from text_enrichment.settings import Settings
from text_enrichment.table import TextTable

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
COLUMNS = [
    ("identifier", "string"),
    ("text_sha256", "string"),
    ("language", "string"),
    ("truncated", "boolean"),
    ("sentiment", "string"),
    ("positive", "double"),
    ("negative", "double"),
    ("neutral", "double"),
    ("mixed", "double"),
    ("entities", "string"),
    ("error", "string"),
    ("enriched_at", "timestamp"),
    ("snapshot_id", "bigint"),
]
SETTINGS = Settings(
    curated="curated.parcels",
    texts="curated.parcels_texts",
    identifier="parcel",
    field="remark",
    language="en",
    kinds=("sentiment", "entities"),
    most_texts=100_000,
)
Rows = Sequence[tuple[str, str | None]]


class Killed(BaseException):
    """The process is gone: no handler of ours sees it."""


class Service:
    """Comprehend as its API is described; ``before`` may raise, or answer codes of single documents."""

    def __init__(self, before: Callable[[str, list[str]], Mapping[int, str | None]] | None = None) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.calls: list[int] = []
        self._before = before or (lambda kind, texts: {})

    def batch_detect_sentiment(self, **request: Any) -> dict[str, Any]:
        scores = {"Positive": 0.7, "Negative": 0.1, "Neutral": 0.1, "Mixed": 0.1}
        return self._answer("sentiment", request, {"Sentiment": "POSITIVE", "SentimentScore": scores})

    def batch_detect_entities(self, **request: Any) -> dict[str, Any]:
        one = {"Text": "Köln", "Type": "LOCATION", "Score": 0.9, "BeginOffset": 0, "EndOffset": 4}
        return self._answer("entities", request, {"Entities": [one]})

    def _answer(self, kind: str, request: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        texts = request["TextList"]
        assert request["LanguageCode"] == "en"
        assert 1 <= len(texts) <= 25
        assert all(1 <= len(text.encode()) <= 5_000 for text in texts)
        errors = self._before(kind, texts)
        self.calls.append(len(texts))
        self.asked.update((kind, text) for text in texts)
        return {
            "ResultList": [{"Index": i, **result} for i in range(len(texts)) if i not in errors],
            # An index whose code is None is in neither list.
            "ErrorList": [{"Index": i, "ErrorCode": code} for i, code in errors.items() if code is not None],
        }


def error(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "BatchDetectSentiment")


def lake(folder: Path, rows: Rows) -> InMemoryCatalog:
    catalog = InMemoryCatalog("test", warehouse=folder.as_uri())
    catalog.create_namespace("curated")
    ensure_table(
        catalog,
        Place("curated", "parcels"),
        location=f"{folder.as_uri()}/parcels",
        columns=[("parcel", "string"), ("remark", "string")],
    )
    ensure_table(
        catalog, Place("curated", "parcels_texts"), location=f"{folder.as_uri()}/texts", columns=COLUMNS
    )
    curate(catalog, rows)
    return catalog


def curate(catalog: InMemoryCatalog, rows: Rows) -> None:
    table = catalog.load_table("curated.parcels")
    schema = table.schema().as_arrow()
    write = table.append if table.current_snapshot() is None else table.overwrite
    write(pa.Table.from_pylist([{"parcel": p, "remark": r} for p, r in rows], schema=schema))


def found(catalog: InMemoryCatalog) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = catalog.load_table("curated.parcels_texts").scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: (row["identifier"], row["text_sha256"]))


def run(catalog: Any, service: Service, *, done: int = 0, **options: Any) -> dict[str, Any]:
    chosen = replace(SETTINGS, **options.pop("settings", {}))
    comprehend = Comprehend(service, language="en", kinds=chosen.kinds, sleep=lambda _seconds: None)
    options.setdefault("seconds_left", lambda: 900.0)
    return enrich(catalog, comprehend, chosen, done=done, now=lambda: NOW, **options)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_should_land_what_was_found_with_where_it_comes_from(tmp_path: Path) -> None:
    catalog = lake(tmp_path, [("P1", "Köln was fast"), ("P2", None), ("P3", "  ")])
    answer = run(catalog, Service())
    snapshot = catalog.load_table("curated.parcels").current_snapshot()
    assert snapshot is not None
    assert answer == {
        "done": 1,
        "more": False,
        "reached_most": False,
        "failed": 0,
        "snapshot_id": str(snapshot.snapshot_id),
    }
    (row,) = found(catalog)
    assert json.loads(row.pop("entities")) == [
        {"text": "Köln", "type": "LOCATION", "score": 0.9, "begin": 0, "end": 4}
    ]
    assert row == {
        "identifier": "P1",
        "text_sha256": digest("Köln was fast"),
        "language": "en",
        "truncated": False,
        "sentiment": "POSITIVE",
        "positive": 0.7,
        "negative": 0.1,
        "neutral": 0.1,
        "mixed": 0.1,
        "error": None,
        "enriched_at": NOW,
        "snapshot_id": snapshot.snapshot_id,
    }


def test_should_ask_only_for_texts_that_are_new_or_changed(tmp_path: Path) -> None:
    catalog, service = lake(tmp_path, [("P1", "one"), ("P2", "two")]), Service()
    run(catalog, service)
    run(catalog, service)
    curate(catalog, [("P1", "one"), ("P2", "two again"), ("P3", "one")])
    run(catalog, service)
    # P3 says what P1 says; it is another text, and its own row.
    assert service.asked == Counter(
        {
            (kind, text): 2 if text == "one" else 1
            for kind in SETTINGS.kinds
            for text in ("one", "two", "two again")
        }
    )
    assert [(row["identifier"], row["text_sha256"]) for row in found(catalog)] == sorted(
        [("P1", digest("one")), ("P2", digest("two")), ("P2", digest("two again")), ("P3", digest("one"))]
    )


def test_should_do_nothing_before_anything_was_curated(tmp_path: Path) -> None:
    catalog = InMemoryCatalog("test", warehouse=tmp_path.as_uri())
    catalog.create_namespace("curated")
    for name, columns in (
        ("parcels", [("parcel", "string"), ("remark", "string")]),
        ("parcels_texts", COLUMNS),
    ):
        ensure_table(catalog, Place("curated", name), location=f"{tmp_path.as_uri()}/{name}", columns=columns)
    assert run(catalog, Service())["snapshot_id"] is None
    assert found(catalog) == []


def test_should_ask_in_batches_of_25_and_once_for_texts_that_are_the_same(tmp_path: Path) -> None:
    service = Service()
    run(lake(tmp_path, [(f"P{n:03}", f"text {n}") for n in range(60)]), service)
    assert service.calls == [25, 25, 25, 25, 10, 10]
    same = Service()
    catalog = lake(tmp_path / "same", [(f"P{n}", "same") for n in range(9)])
    run(catalog, same)
    assert same.calls == [1, 1]
    assert len(found(catalog)) == 9


@given(
    st.text(max_size=3_000).map(lambda text: text * 3)
    | st.sampled_from(["ä" * 2_501, "€" * 1_667, "😀" * 1_251])
)
@example("x" * MOST_BYTES)
@example("x" * (MOST_BYTES - 1) + "ä")
def test_should_cut_at_a_character_and_only_where_it_must(text: str) -> None:
    text = text.encode(errors="ignore").decode()
    kept, was_cut = cut(text)
    assert text.startswith(kept)
    assert len(kept.encode()) <= MOST_BYTES
    assert was_cut == (kept != text)
    if was_cut:
        assert len(text[: len(kept) + 1].encode()) > MOST_BYTES


def test_should_mark_a_text_that_was_cut_and_know_it_by_the_whole(tmp_path: Path) -> None:
    long = "ä" * 4_000
    catalog = lake(tmp_path, [("P1", long), ("P2", long + "!")])
    run(catalog, Service())
    assert [(row["truncated"], row["text_sha256"]) for row in found(catalog)] == [
        (True, digest(long)),
        (True, digest(long + "!")),
    ]


def test_should_keep_the_code_of_a_document_that_is_never_answered(tmp_path: Path) -> None:
    def before(kind: str, texts: list[str]) -> dict[int, str | None]:
        codes = {("entities", "bad"): "INTERNAL_SERVER_ERROR", ("sentiment", "gone"): None}
        return {i: codes[kind, text] for i, text in enumerate(texts) if (kind, text) in codes}

    service = Service(before)
    catalog = lake(tmp_path, [("P1", "good"), ("P2", "bad"), ("P3", "gone")])
    assert run(catalog, service)["failed"] == 2
    good, bad, gone = found(catalog)
    assert good["error"] is None
    assert (bad["error"], bad["sentiment"], bad["entities"]) == (
        "entities: INTERNAL_SERVER_ERROR",
        "POSITIVE",
        None,
    )
    assert (gone["error"], gone["sentiment"], gone["positive"]) == (f"sentiment: {NOT_ANSWERED}", None, None)
    assert service.asked["entities", "bad"] == service.asked["sentiment", "gone"] == DOCUMENT_ATTEMPTS
    assert service.asked["sentiment", "good"] == 1


def test_should_take_an_answer_that_comes_at_the_second_time(tmp_path: Path) -> None:
    tries: Counter[str] = Counter()

    def before(kind: str, texts: list[str]) -> dict[int, str | None]:
        tries.update(texts)
        return {i: "INTERNAL_SERVER_ERROR" for i, text in enumerate(texts) if tries[text] == 1}

    catalog = lake(tmp_path, [("P1", "one"), ("P2", "two")])
    assert run(catalog, Service(before))["failed"] == 0
    assert [row["error"] for row in found(catalog)] == [None, None]


@pytest.mark.parametrize("code", ["TextSizeLimitExceededException", "InvalidRequestException"])
def test_should_find_the_document_that_spoils_its_call(tmp_path: Path, code: str) -> None:
    def before(_kind: str, texts: list[str]) -> dict[int, str | None]:
        if "text 7" in texts:
            raise error(code)
        return {}

    catalog = lake(tmp_path, [(f"P{n:02}", f"text {n}") for n in range(25)])
    run(catalog, Service(before))
    errors = {row["identifier"]: row["error"] for row in found(catalog) if row["error"]}
    assert errors == {"P07": f"sentiment: {code}; entities: {code}"}
    assert len(found(catalog)) == 25


@pytest.mark.parametrize(
    "failure",
    [
        error("ThrottlingException"),
        error("TooManyRequestsException", 429),
        error("Odd", 503),
        ConnectTimeoutError(endpoint_url="x"),
    ],
)
def test_should_ask_again_when_comprehend_is_busy_and_give_up_in_the_end(
    tmp_path: Path, failure: Exception
) -> None:
    failures = [failure] * (CALL_ATTEMPTS - 1)

    def busy(_kind: str, _texts: list[str]) -> dict[int, str | None]:
        if failures:
            raise failures.pop()
        return {}

    catalog = lake(tmp_path, [("P1", "one")])
    assert run(catalog, Service(busy))["done"] == 1
    failures[:] = [failure] * CALL_ATTEMPTS
    curate(catalog, [("P2", "two")])
    with pytest.raises(TransientError, match=f"asked {CALL_ATTEMPTS} times"):
        run(catalog, Service(busy))


def test_should_say_that_a_person_must_act_when_comprehend_may_not_be_asked(tmp_path: Path) -> None:
    def denied(_kind: str, _texts: list[str]) -> dict[int, str | None]:
        raise error("AccessDeniedException")

    with pytest.raises(MisconfiguredError, match="AccessDenied"):
        run(lake(tmp_path, [("P1", "one")]), Service(denied))


def test_should_land_what_was_answered_before_comprehend_failed(tmp_path: Path) -> None:
    calls: list[str] = []

    def second_fails(_kind: str, texts: list[str]) -> dict[int, str | None]:
        calls.append(texts[0])
        if len(calls) > 2:
            raise error("AccessDeniedException")
        return {}

    catalog = lake(tmp_path, [(f"P{n:02}", f"text {n}") for n in range(BATCH + 5)])
    with pytest.raises(MisconfiguredError):
        run(catalog, Service(second_fails))
    assert len(found(catalog)) == BATCH


def test_should_stop_when_time_is_short_and_get_on_each_time(tmp_path: Path) -> None:
    catalog = lake(tmp_path, [(f"P{n:02}", f"text {n}") for n in range(60)])
    answers = [run(catalog, Service(), done=25 * n, seconds_left=lambda: 10.0) for n in range(4)]
    assert [(answer["done"], answer["more"]) for answer in answers] == [
        (25, True),
        (50, True),
        (60, True),
        (75, False),
    ]
    assert len(found(catalog)) == 60


def test_should_stop_at_the_most_that_a_run_may_cost(tmp_path: Path) -> None:
    catalog = lake(tmp_path, [(f"P{n:02}", f"text {n}") for n in range(60)])
    most = {"most_texts": 30}
    first = run(catalog, Service(), settings=most)
    assert (first["done"], first["more"], first["reached_most"]) == (30, False, True)
    assert run(catalog, Service(), settings=most, done=30)["done"] == 30
    run(catalog, Service(), settings=most)
    assert len(found(catalog)) == 60


def test_should_not_land_twice_what_another_run_landed_meanwhile(tmp_path: Path) -> None:
    catalog = lake(tmp_path, [("P1", "one"), ("P2", "two")])
    raced: list[bool] = []

    def race(_kind: str, _texts: list[str]) -> dict[int, str | None]:
        if not raced:
            raced.append(True)
            run(catalog, Service())
        return {}

    assert run(catalog, Service(race))["done"] == 0
    assert [row["identifier"] for row in found(catalog)] == ["P1", "P2"]


def test_should_look_again_when_a_commit_is_refused(tmp_path: Path) -> None:
    catalog = lake(tmp_path, [("P1", "one")])
    loads: list[bool] = []

    class Racing:
        """The table that the commit loads is outdated at once: another run commits after it was loaded."""

        def load_table(self, place: Any) -> Any:
            loaded = catalog.load_table(place)
            if tuple(place)[-1] == "parcels_texts":
                loads.append(True)
                if len(loads) == 2:
                    run(catalog, Service())
            return loaded

    assert run(Racing(), Service())["done"] == 0
    assert len(found(catalog)) == 1


def test_should_leave_it_to_the_state_machine_when_others_commit_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyiceberg.table import Table

    catalog = lake(tmp_path, [("P1", "one")])

    def refused(*_args: Any, **_kwargs: Any) -> None:
        raise CommitFailedException("too late")

    target = TextTable(catalog, SETTINGS.texts, sleep=lambda _seconds: None)
    target.known()
    monkeypatch.setattr(Table, "append", refused)
    with pytest.raises(TransientError, match="others commit"):
        target.append([{"identifier": "P1", "text_sha256": "0" * 64}])


texts = st.lists(
    st.tuples(
        st.integers(0, 60).map("P{}".format), st.sampled_from(["good", "bad", "odd", " ", None, "ä" * 3_000])
    ),
    max_size=80,
    unique_by=lambda row: row[0],
)
faults = st.lists(
    st.sampled_from(["", "", "document", "missing", "throttle", "denied", "spoiled", "killed"]), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(texts, faults)
def test_should_have_one_row_for_each_text_whatever_fails(rows: Rows, plan: list[str]) -> None:
    def before(_kind: str, asked: list[str]) -> dict[int, str | None]:
        fault = plan.pop(0) if plan else ""
        if fault == "killed":
            raise Killed
        if fault in ("throttle", "denied", "spoiled"):
            codes = {"throttle": "ThrottlingException", "denied": "AccessDeniedException"}
            raise error(codes.get(fault, "InvalidRequestException"))
        return {0: "ODD" if fault == "document" else None} if fault in ("document", "missing") else {}

    plan = list(plan)
    with tempfile.TemporaryDirectory() as folder:
        catalog = lake(Path(folder), rows)
        done = False
        while not done:
            try:
                done = not run(catalog, Service(before), seconds_left=lambda: 1.0)["more"]
            except (TransientError, MisconfiguredError, Killed):
                continue
        wanted = sorted((name, digest(text)) for name, text in rows if text and text.strip())
        landed = found(catalog)
        assert [(row["identifier"], row["text_sha256"]) for row in landed] == wanted
        # A row has what was asked for, or says why not.
        assert all(row["error"] or (row["sentiment"] and row["entities"]) for row in landed)


def test_should_read_what_the_template_says() -> None:
    given = {
        "CURATED_TABLE": "a.b",
        "TEXTS_TABLE": "a.b_texts",
        "IDENTIFIER": "parcel",
        "FIELD": "remark",
        "LANGUAGE": "de",
        "KINDS": "sentiment",
        "MOST_TEXTS": "5",
    }
    read = Settings.from_environment(given)
    assert (read.kinds, read.most_texts, read.language) == (("sentiment",), 5, "de")
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment(
            {**given, "CURATED_TABLE": "b", "KINDS": "mood", "MOST_TEXTS": "0", "FIELD": ""}
        )
    for part in ("FIELD is not set", "CURATED_TABLE must be", "KINDS must be of", "MOST_TEXTS must be"):
        assert part in str(caught.value)


def test_should_call_botocore_as_its_model_says() -> None:
    client = boto3.client("comprehend", region_name="eu-central-1")
    shape = client.meta.service_model.operation_model("BatchDetectSentiment").input_shape
    assert set(shape.members) == {"TextList", "LanguageCode"}


@pytest.mark.parametrize("event", [None, {"done": "3"}, {"done": -1}, {"done": True}])
def test_should_refuse_an_event_that_the_state_machine_does_not_send(
    event: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "CURATED_TABLE": "a.b",
        "TEXTS_TABLE": "a.t",
        "IDENTIFIER": "parcel",
        "FIELD": "remark",
        "LANGUAGE": "en",
        "KINDS": "sentiment",
        "MOST_TEXTS": "5",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MisconfiguredError, match="number 'done'"):
        enrichment.handler(event, None)
    assert json.loads(capsys.readouterr().out)["error"] == "MisconfiguredError"
