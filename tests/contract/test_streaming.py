"""The stream's block: defaults, what is refused, and features row by row as the batch path has them."""

# ruff: noqa: E501 - a table of cases reads best with one case a line

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zoo  # type: ignore[import-not-found]  # beside this file, where pytest looks
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.features.frame import feature_frame
from ml_contract.features.online import feature_record, store_text
from ml_contract.load import ContractError, LoadedWorkload, load_workload
from ml_contract.records.codec import RecordCodec, Rejected
from ml_contract.spec.streaming import Stream, StreamConsumer

Write = Callable[..., Path]
QUICK: settings = zoo.QUICK
CONTRACT = zoo.contract()
RECORD = feature_record(CONTRACT)
KINDS = dict(CONTRACT.feature_columns())


def typed(texts: dict[str, str]) -> dict[str, Any]:
    """The store's texts as values of the features table."""
    return {
        name: None if name not in texts else float(texts[name]) if KINDS[name] == "double" else texts[name]
        for name in KINDS
    }


@settings(QUICK, max_examples=100)
@given(records=st.lists(zoo.RECORDS, min_size=1, max_size=10))
def test_should_put_online_what_the_batch_path_computes(records: list[dict[str, Any]]) -> None:
    frame = feature_frame(zoo.polars_frame(records), CONTRACT)
    expected = frame.select(list(KINDS)).to_dicts()
    got = [typed(RECORD(record)) for record in records]
    assert zoo.differences(expected, got, list(KINDS)) == []


def test_should_take_the_values_that_the_record_reader_gives(claims: LoadedWorkload) -> None:
    from workloads.claims_fraud.generate import generate

    contract = claims.compiled
    codec, record = RecordCodec(contract), feature_record(contract)
    decoded = codec.decode(json.dumps(generate(1, 5)[0]).encode())
    assert not isinstance(decoded, Rejected)
    texts = record(decoded.values)
    assert set(texts) <= {name for name, _ in contract.feature_columns()}
    assert texts["incident_date"].endswith("T00:00:00Z")
    assert texts["fraud_reported"] in ("N", "Y")
    assert texts["policy_number"] == decoded.values["policy_number"]


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5.0"), (0.1, "0.1"), (-0.0, "-0.0"), (1e300, "1e+300"), ("OH", "OH"), ("", "")]
)
def test_should_write_numbers_so_that_they_read_back_the_same(value: float | str, text: str) -> None:
    assert store_text(value) == text
    if not isinstance(value, str):
        assert math.copysign(1, float(text)) == math.copysign(1, value)


def test_should_default_to_parquet_without_a_consumer() -> None:
    stream = Stream()
    assert (stream.mode, stream.format, stream.partition_by, stream.consumer) == (
        "on_demand",
        "parquet",
        (),
        None,
    )
    assert (stream.max_record_kib, stream.retention_hours) == (1024, 24)
    consumer = StreamConsumer()
    assert (consumer.fan_out, consumer.batch_size, consumer.attempts) == (False, 100, 3)
    assert (consumer.maximum_age_minutes, consumer.parallelization) == (60, 1)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("{partition_by: [flag]}", "stream.partition_by: goes with format: iceberg; remove it or set the format"),
        ("{format: iceberg, partition_by: [flg]}", "stream.partition_by[0]: got 'flg', which is no field of the record; did you mean flag?"),
        ("{format: iceberg, partition_by: [length]}", "stream.partition_by[0]: length is number; a partition takes string, integer, boolean, date"),
        ("{format: iceberg, partition_by: [home]}", "stream.partition_by[0]: home is pii, and a partition's value stands in the names of objects"),
        ("{format: iceberg, partition_by: [hull]}", "stream.partition_by[0]: hull is the identifier"),
        ("{format: iceberg, partition_by: [flag, flag]}", "stream.partition_by: names a field twice"),
        ("{max_record_kib: 20480}", "stream.max_record_kib: got 20480; at most 10240 is allowed"),
        ("{consumer: {attempts: 0}}", "stream.consumer.attempts: got 0; at least 1 is allowed"),
        ("{consumer: {batch_size: 10001}}", "stream.consumer.batch_size: got 10001; at most 10000 is allowed"),
        ("{consumer: {fanout: true}}", "stream.consumer.fanout: "),
    ],
)  # fmt: skip
def test_should_refuse_a_stream_that_cannot_be(workload_file: Write, stream: str, expected: str) -> None:
    with pytest.raises(ContractError) as caught:
        load_workload(workload_file(extra=f"stream: {stream}\n"))
    messages = [f"{problem.path}: {problem.message}" for problem in caught.value.problems]
    assert any(message.startswith(expected) for message in messages), messages


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("stream: {format: iceberg}\nbatch: {scale: medium}\n", "iceberg goes with batch.scale: small or large"),
        ("stream: {consumer: {}}\nfeatures: {store: {online: false}}\n", "puts features into the online store, and features.store.online is false"),
    ],
)  # fmt: skip
def test_should_refuse_what_does_not_go_with_the_stream(
    workload_file: Write, extra: str, expected: str
) -> None:
    with pytest.raises(ContractError) as caught:
        load_workload(workload_file(extra=extra))
    assert any(expected in problem.message for problem in caught.value.problems), caught.value.problems


def test_should_take_an_iceberg_stream_divided_by_values(workload_file: Write) -> None:
    loaded = load_workload(workload_file(extra="stream: {format: iceberg, partition_by: [flag, seen]}\n"))
    assert loaded.workload.stream.partition_by == ("flag", "seen")


@pytest.mark.parametrize("mode", ["File", "FastFile"])
def test_should_take_the_modes_that_training_can_read(workload_file: Write, mode: str) -> None:
    loaded = load_workload(workload_file(extra=f"training: {{input_mode: {mode}}}\n"))
    assert loaded.workload.training.input_mode == mode


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("Pipe", "'Pipe' must be 'File' or 'FastFile': a pipe is read once"),
        ("fastfile", "got 'fastfile'; allowed: File, FastFile"),
    ],
)
def test_should_refuse_modes_that_training_cannot_read(
    workload_file: Write, mode: str, expected: str
) -> None:
    with pytest.raises(ContractError) as caught:
        load_workload(workload_file(extra=f"training: {{input_mode: {mode}}}\n"))
    (problem,) = caught.value.problems
    assert problem.path == "training.input_mode"
    assert expected in problem.message


@pytest.mark.parametrize("topic", ["", "a b", "x" * 250, "ä"])
def test_should_refuse_a_topic_that_kafka_cannot_have(workload_file: Write, topic: str) -> None:
    with pytest.raises(ContractError) as caught:
        load_workload(workload_file(extra=f'stream: {{kafka_topic: "{topic}"}}\n'))
    assert [problem.path for problem in caught.value.problems] == ["stream.kafka_topic"]


def test_should_have_no_topic_and_files_unless_asked(workload_file: Write) -> None:
    spec = load_workload(workload_file()).workload
    assert (spec.stream.kafka_topic, spec.training.input_mode) == (None, "File")
