"""The made-up machines: the same for the same seed, within the contract, and with something to learn."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ml_contract.load import load_workload
from ml_contract.records.codec import RecordCodec, Rejected

HOME = Path(__file__).resolve().parents[2] / "workloads" / "machine_health"


@pytest.fixture(scope="module")
def generate() -> Any:
    """The workload's own generator."""
    spec = importlib.util.spec_from_file_location("machine_health_generate", HOME / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate


def test_should_make_the_same_reading_whatever_comes_after_it(generate: Any) -> None:
    assert generate(40, 3)[:10] == generate(10, 3)
    assert generate(10, 3) != generate(10, 4)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        generate(-1, 3)


def test_should_fit_the_contract_and_know_every_condition(generate: Any) -> None:
    contract = load_workload(HOME).compiled
    codec = RecordCodec(contract)
    readings = generate(800, 7)
    decoded = [codec.decode(json.dumps(reading).encode()) for reading in readings]
    assert [one for one in decoded if isinstance(one, Rejected)] == []
    assert len({reading["reading_id"] for reading in readings}) == 800
    counts = Counter(reading["condition"] for reading in readings)
    assert set(counts) == set(contract.label.values or ())
    # Enough of the rarest for three parts, and no class that is most of them.
    assert min(counts.values()) > 50
    assert max(counts.values()) < 500


def test_should_hide_no_condition_in_one_sensor_alone(generate: Any) -> None:
    """A fault moves its sensors on average; single readings overlap with those of healthy machines."""
    readings = [r for r in generate(3000, 7) if r["high_frequency_g"] is not None]
    by = {
        condition: sorted(r["high_frequency_g"] for r in readings if r["condition"] == condition)
        for condition in ("healthy", "bearing_wear")
    }
    middle = {condition: values[len(values) // 2] for condition, values in by.items()}
    assert middle["bearing_wear"] > 1.5 * middle["healthy"]
    assert by["bearing_wear"][len(by["bearing_wear"]) // 20] < by["healthy"][-1]


def test_should_give_fans_no_coolant(generate: Any) -> None:
    readings = generate(300, 7)
    assert all((r["coolant_l_min"] is None) == (r["kind"] == "fan") for r in readings)
    assert not any(r["condition"] == "overheating" for r in readings if r["kind"] == "fan")
