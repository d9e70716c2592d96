"""Where every record went, and how good the answers were."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from types import SimpleNamespace
from typing import cast

import pytest
from ml_contract.compiled import CompiledContract
from ml_contract.load import load_workload

from rehearsal.preflight import app_folder
from rehearsal.story.ingestion import (
    BYTES_PER_CALL,
    RECORDS_PER_CALL,
    Batch,
    Sent,
    _chunks,
    account_for,
    plain,
    record_id,
)
from rehearsal.story.judging import area_under_roc, judge, truth
from rehearsal.story.tale import Tale
from rehearsal.story.traffic import Answer, Answers, quantile, questions


def ids(*bodies: bytes) -> list[str]:
    return [record_id(b) for b in bodies]


def batch(*messages: tuple[bytes, str]) -> Batch:
    return Batch(messages=[Sent(data=d, kind=k) for d, k in messages])


def test_should_identify_a_record_by_its_bytes_as_delivery_does() -> None:
    assert record_id(b"{}") == blake2b(b"{}", digest_size=16).hexdigest()


def test_should_account_for_records_that_are_where_they_belong() -> None:
    sent = batch((b"a", "clean"), (b"b", "not_json"), (b"a", "duplicate"))

    account = account_for(sent, ids(b"a", b"a"), ids(b"b"))

    assert (account.sent, account.delivered, account.quarantined) == (3, 2, 1)
    assert (account.lost, account.twice, account.misplaced) == (0, 0, ())


def test_should_find_a_lost_record_and_one_that_came_twice() -> None:
    sent = batch((b"a", "clean"), (b"b", "clean"))

    account = account_for(sent, ids(b"a", b"a"), [])

    assert (account.lost, account.twice) == (1, 1)


def test_should_find_a_record_that_is_delivered_and_quarantined() -> None:
    account = account_for(batch((b"a", "clean")), ids(b"a"), ids(b"a"))

    assert account.twice == 1
    assert account.misplaced == (("clean", "quarantine"),)


def test_should_find_a_bad_record_in_the_raw_zone() -> None:
    account = account_for(batch((b"a", "wrong_type")), ids(b"a"), [])

    assert account.misplaced == (("wrong_type", "raw zone"),)


def test_should_not_count_what_another_batch_sent() -> None:
    account = account_for(batch((b"a", "clean")), ids(b"a", b"z"), ids(b"y"))

    assert (account.delivered, account.quarantined) == (1, 0)


def test_should_send_no_more_in_one_call_than_the_stream_takes() -> None:
    small = [Sent(data=b"x", kind="clean")] * (2 * RECORDS_PER_CALL + 1)
    large = [Sent(data=b"x" * (BYTES_PER_CALL // 2), kind="clean")] * 3

    assert [len(c) for c in _chunks(small)] == [RECORDS_PER_CALL, RECORDS_PER_CALL, 1]
    assert [len(c) for c in _chunks(large)] == [2, 1]
    assert list(_chunks([])) == []


def test_should_send_records_as_one_line_of_json() -> None:
    (sent,) = plain([{"a": "é", "b": None}])

    assert (sent.data, sent.kind) == ('{"a":"é","b":null}'.encode(), "clean")


# --- judging ---


@pytest.mark.parametrize(
    ("positive", "scores", "area"),
    [
        ([True, False], [0.9, 0.1], 1.0),
        ([True, False], [0.1, 0.9], 0.0),
        ([True, False], [0.5, 0.5], 0.5),
        ([True, True], [0.1, 0.9], 0.5),
        ([True, False, True, False], [0.9, 0.8, 0.7, 0.1], 0.75),
        ([True, False, False], [0.5, 0.5, 0.1], 0.75),
    ],
)
def test_should_measure_the_area_by_pairs(
    positive: Sequence[bool], scores: Sequence[float], area: float
) -> None:
    assert area_under_roc(positive, scores) == pytest.approx(area)


@pytest.fixture(scope="module")
def claims() -> CompiledContract:
    return load_workload(app_folder(None) / "workloads" / "claims_fraud").compiled


def answer(
    index: int, score: float | None, label: str | None = None, at: float = 0.0, error: str | None = None
) -> Answer:
    return Answer(index=index, at=at, seconds=0.01, score=score, label=label, error=error)


def test_should_judge_a_binary_model_by_scores_and_labels(claims: CompiledContract) -> None:
    records = [{"fraud_reported": "Y"}, {"fraud_reported": "N"}, {"fraud_reported": "N"}]
    answers = [answer(0, 0.9, "Y"), answer(1, 0.8, "Y"), answer(2, 0.1, "N")]

    assert judge(records, answers, claims) == {"auc": 1.0, "accuracy": pytest.approx(2 / 3)}


def test_should_not_judge_a_request_that_failed(claims: CompiledContract) -> None:
    with pytest.raises(ValueError, match="request 0 failed and cannot be judged: refused"):
        judge([{"fraud_reported": "Y"}], [answer(0, None, error="refused")], claims)


def test_should_read_the_truth_as_the_contract_writes_it(claims: CompiledContract) -> None:
    assert truth({"fraud_reported": "Y"}, claims) == "Y"
    assert truth({"fraud_reported": True}, claims) == "true"
    assert truth({"fraud_reported": 0}, claims) == "0"


def test_should_ask_without_the_label(claims: CompiledContract) -> None:
    tale = cast(Tale, SimpleNamespace(contract=claims))
    assert questions(tale, [{"age": 4, "fraud_reported": "Y"}]) == [b'{"age": 4}']


# --- who answered ---


def test_should_tell_the_models_apart_by_their_scores() -> None:
    answers = Answers(
        answers=(
            answer(0, 0.2, at=0.1),
            answer(1, 0.7, at=0.2),
            answer(0, 0.9, at=1.5),
            answer(1, None, at=1.9, error="500"),
        )
    )

    assert answers.series(old=[0.2, 0.7], new=[0.9, 0.1]) == [
        {"at": 0.0, "old": 2.0, "new": 0.0, "failed": 0.0},
        {"at": 1.0, "old": 0.0, "new": 1.0, "failed": 1.0},
    ]
    assert [a.error for a in answers.failed] == ["500"]


def test_should_call_an_unknown_score_another_model_s() -> None:
    answers = Answers(answers=(answer(0, 0.2), answer(0, 0.3)))

    assert [answers.who(a, [0.2], None) for a in answers.answers] == ["old", "new"]


def test_should_summarise_only_what_was_answered() -> None:
    assert Answers(answers=()).summary() == {"requests": 0, "failed": 0, "p50_ms": None, "p99_ms": None}
    assert Answers(answers=(answer(0, 0.5), answer(0, None, error="x"))).summary() == {
        "requests": 2,
        "failed": 1,
        "p50_ms": 10.0,
        "p99_ms": 10.0,
    }


def test_should_find_quantiles() -> None:
    values = [float(x) for x in range(100, 0, -1)]

    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([3.0], 0.99)) == (50.0, 99.0, 3.0)
