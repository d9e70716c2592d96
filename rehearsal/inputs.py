"""The records of a rehearsal: made up, or divided from a data file.

Four sets:

- ``initial``: sent to the stream first; the first model is trained on them;
- ``live``: labelled records like them that no model is trained on; asked of the endpoint as usual traffic;
- ``changed``: labelled records after the world has changed; sent to the stream, the second model learns from
  them. New records, unless the identifier's field has no room for new ones: then they replace what they were;
- ``changed_live``: records of the same change that no model is trained on; asked of the endpoint as changed
  traffic.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_contract.made_up.synthetic import Drift, drift_records
from ml_contract.made_up.synthetic import generate as make_up
from ml_contract.records.codec import RecordCodec, Rejected
from ml_contract.records.tables import TableError, read_table

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract
    from ml_contract.load import LoadedWorkload

__all__ = ["FEWEST_RECORDS", "InputError", "Inputs", "load_inputs"]

Raw = dict[str, Any]

#: Fewer do not fill a training, a validation and a test split of any use.
FEWEST_RECORDS = 200
#: Share of a data file's rows that is kept from training, for traffic and for judging.
HELD_OUT = 0.3
#: Made-up live records: enough that the distribution of a field with twenty values is well known.
FEWEST_LIVE, MOST_LIVE = 400, 1_000
#: Made-up changed records are more than the first ones, and never few: the second model has to learn a second
#: world beside the first.
CHANGED_SHARE, FEWEST_CHANGED = 1.5, 1_500
#: Every field means something else afterwards, and is measured elsewhere in its range. More covariate drift
#: would take away what the second model is to learn from: on the 1,000 real claims a model of both worlds has
#: an AUC of 0.81 to 0.83 with 0.25, of 0.80 to 0.81 with 0.5.
CHANGE = Drift(covariate=0.25, concept=1.0)


class InputError(Exception):
    """The records cannot be used; the text is one line that says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The records of one rehearsal, under their source names."""

    source: str
    initial: list[Raw]
    live: list[Raw]
    changed: list[Raw]
    changed_live: list[Raw]
    #: Rows of a data file that do not fit the contract: sent with the initial ones, they belong into
    #: quarantine.
    unfit: list[Raw] = field(default_factory=list)
    rows: int = 0
    extra_columns: tuple[str, ...] = ()
    change: str = ""

    def summary(self) -> dict[str, Any]:
        """What the report says about the data."""
        return {
            "source": self.source,
            "rows": self.rows,
            "extra_columns_left_out": list(self.extra_columns),
            "divided_into": {
                "initial": len(self.initial),
                "live": len(self.live),
                "changed": len(self.changed),
                "changed_live": len(self.changed_live),
                "not_fitting_the_contract": len(self.unfit),
            },
            "change": self.change,
        }


def load_inputs(loaded: LoadedWorkload, *, data: Path | None, records: int, seed: int) -> Inputs:
    """Read or make the records.

    Args:
        data: CSV or Parquet with the workload's columns; ``None`` makes records up, by the workload's
            ``generate.py`` if it has one.
        records: how many are sent at first; of a data file, how many rows are used at most.

    Raises:
        InputError: the file or the generator cannot be used, or there are too few records.
    """
    if records < FEWEST_RECORDS:
        raise InputError(f"records must be at least {FEWEST_RECORDS}, got {records}")
    if data is not None:
        return _from_table(loaded, data, records, seed)
    generator = loaded.path.parent / "generate.py"
    if generator.exists():
        return _generated(
            loaded, _own_generator(generator), f"{generator.parent.name}/generate.py", records, seed
        )
    contract = loaded.compiled

    def generic(n: int, seed: int) -> list[Raw]:
        return make_up(contract, n, seed)

    return _generated(loaded, generic, "made up from the contract", records, seed)


def _own_generator(path: Path) -> Callable[[int, int], list[Raw]]:
    """The function ``generate(n, seed)`` of a workload's ``generate.py``."""
    name = f"_rehearsal_generate_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, "generate", None)
    if not callable(function) or list(inspect.signature(function).parameters)[:2] != ["n", "seed"]:
        raise InputError(f"{path} must define generate(n, seed) that returns a list of records")
    generate: Callable[[int, int], list[Raw]] = function
    return generate


def _generated(
    loaded: LoadedWorkload, generate: Callable[[int, int], list[Raw]], source: str, records: int, seed: int
) -> Inputs:
    contract = loaded.compiled
    held_out = min(max(FEWEST_LIVE, records // 2), MOST_LIVE)
    changes = max(FEWEST_CHANGED, round(CHANGED_SHARE * records))
    try:
        # One draw per set would repeat identifiers; one draw for all cannot.
        drawn = generate(records + changes + 2 * held_out, seed)
    except ValueError as error:
        raise InputError(f"no records can be made up for workload {loaded.name}: {error}") from error
    fit, unfit = _divide_by_contract(drawn, contract)
    if unfit:
        raise InputError(
            f"{source}: {len(unfit)} of {len(drawn)} records do not fit the contract, the first: "
            f"{_why(unfit[0], contract)}"
        )
    ordinary, later = fit[: records + held_out], fit[records + held_out :]
    changed, how = _changed(later, contract, seed)
    return Inputs(
        source=source,
        rows=records,
        initial=ordinary[:records],
        live=ordinary[records:],
        changed=changed[:changes],
        changed_live=changed[changes:],
        change=f"{_describe(CHANGE)}; {how}",
    )


def _from_table(loaded: LoadedWorkload, data: Path, records: int, seed: int) -> Inputs:
    contract = loaded.compiled
    try:
        iterator, found = read_table(data, contract)
        rows = list(iterator)
    except TableError as error:
        raise InputError(str(error)) from error
    if not rows:
        raise InputError(f"{data}: holds no row")
    random.Random(seed).shuffle(rows)  # noqa: S311 - a division of data, not a secret
    used = rows[:records]
    fit, unfit = _divide_by_contract(used, contract)
    label = contract.label_column.source
    labelled = [row for row in fit if row.get(label) is not None]
    if len(labelled) < FEWEST_RECORDS:
        why = f"; the first that does not fit: {_why(unfit[0], contract)}" if unfit else ""
        raise InputError(
            f"{data}: {len(labelled)} of {len(used)} rows fit the contract and have a label, needed are "
            f"{FEWEST_RECORDS}{why}"
        )
    held_out = round(HELD_OUT * len(labelled))
    live, initial = labelled[:held_out], labelled[held_out:]
    changed, how = _changed([*initial, *live], contract, seed)
    return Inputs(
        source=data.name,
        rows=len(used),
        extra_columns=found.extra_columns,
        initial=[*initial, *(row for row in fit if row.get(label) is None)],
        live=live,
        # Made from the same division: no changed record that is judged stems from a row that was trained on.
        changed=changed[: len(initial)],
        changed_live=changed[len(initial) :],
        unfit=unfit,
        change=f"{_describe(CHANGE)}; {how}",
    )


def _changed(records: Sequence[Raw], contract: CompiledContract, seed: int) -> tuple[list[Raw], str]:
    """The records after the change, and how they are told apart from what they were.

    One call for all: the change is drawn from what it is given.
    """
    try:
        return drift_records(records, contract, CHANGE, seed, new_identifiers=True), "under new identifiers"
    except ValueError as error:
        changed = drift_records(records, contract, CHANGE, seed, new_identifiers=False)
        return changed, f"in place of what they were ({error})"


def _describe(drift: Drift) -> str:
    return (
        f"covariate drift {drift.covariate:g}, concept drift {drift.concept:g}: "
        "numbers are mirrored in their range and moved, texts change places"
    )


def _divide_by_contract(records: Sequence[Raw], contract: CompiledContract) -> tuple[list[Raw], list[Raw]]:
    codec = RecordCodec(contract)
    fit: list[Raw] = []
    unfit: list[Raw] = []
    for record in records:
        body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        (unfit if isinstance(codec.decode(body), Rejected) else fit).append(record)
    return fit, unfit


def _why(record: Raw, contract: CompiledContract) -> str:
    body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    decoded = RecordCodec(contract).decode(body)
    return decoded.reasons[0].message if isinstance(decoded, Rejected) else "it fits"
