"""From the features zone to training data: split, fitted transform, baseline of what the model saw."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import CategoryFit, Fitted, NumberFit, fit
from ml_judging.bias import before_training
from ml_runtime.job import BadInputError, base_folder, only_file, say
from ml_runtime.model import FITTED_FILE
from ml_runtime.tables import read_table, write_table
from ml_statistics.baseline import baseline

from ml_processing.balance import balanced
from ml_processing.judging.rows import labels_of, write_beside
from ml_processing.lineage import require_whole, write_lineage
from ml_processing.matrix import write_matrices
from ml_processing.parent import parents_transform
from ml_processing.split import split_rows


def _labelled(frame: pl.DataFrame, contract: CompiledContract) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the rows that can be learned from, and how many were left out and why."""
    label = pl.col(contract.label.field)
    if contract.label.values is None:
        known = label.is_not_null() & label.is_finite()
    else:
        known = label.is_in(list(contract.label.values))
    kept = frame.filter(known.fill_null(False))
    unlabelled = frame[contract.label.field].null_count()
    return kept, {"unlabelled": unlabelled, "unknown_label": frame.height - kept.height - unlabelled}


def _write(path: Any, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _balance(before: pl.DataFrame, after: pl.DataFrame, contract: CompiledContract) -> dict[str, Any]:
    """Return how many rows of each class the training part has, as split and as written."""
    how = contract.training.get("balance", "none")
    if contract.label.values is None:
        return {"kind": how}

    def counted(frame: pl.DataFrame) -> dict[str, int]:
        counts = Counter(frame[contract.label.field])
        return {value: counts[value] for value in contract.label.values or ()}

    return {"kind": how, "before": counted(before), "after": counted(after)}


def _features(
    parts: dict[str, pl.DataFrame], fitted: Fitted, contract: CompiledContract
) -> dict[str, dict[str, Any]]:
    """Return what was fitted for each feature and why, and the rows of each part that it touches."""
    counts = {name: fitted.counts(part) for name, part in parts.items()}
    report: dict[str, dict[str, Any]] = {}
    for one in fitted.fits:
        told: dict[str, Any] = {"columns": len(one.columns)}
        if isinstance(one, NumberFit):
            told |= {"type": "number", "filled_with": one.fill}
            if one.name in contract.fit.outliers:
                told["limits"] = {"kind": one.beyond, "lower": one.low, "upper": one.high}
            if one.scaled:
                told["scale"] = {"center": one.center, "width": one.width}
            if one.edges is not None:
                told["intervals"] = list(one.edges)
        elif isinstance(one, CategoryFit):
            told |= {"type": "category", "filled_with": one.fill, "encoding": one.encoding}
            told["values"] = len(one.values)
        reasons = {
            block: given[one.name]["reason"]
            for block, given in (("impute", contract.fit.impute), ("outliers", contract.fit.outliers))
            if one.name in given
        }
        if reasons:
            told["reasons"] = reasons
        told["rows"] = {name: counts[name][one.name] for name in parts}
        report[one.name] = told
    return report


def prepare() -> None:
    """Read the features, write the three splits, the fitted transform and the baseline."""
    folder = base_folder() / "processing"
    contract = CompiledContract.from_json(only_file(folder / "input" / "contract", ".json").read_bytes())
    source = folder / "input" / "features"
    frame, skipped = read_table(source, contract.feature_columns())
    for file in skipped:
        say(f"skipped {file.file}: {file.reason}")
    if not frame.height:
        damaged = [f"{file.file}: {file.reason}" for file in skipped]
        unread = f"; {len(damaged)} files could not be read, the first is {damaged[0]}" if damaged else ""
        raise BadInputError(f"the features under {source} hold no rows{unread}")
    if not skipped:
        require_whole(source, frame.height)
    labelled, left_out = _labelled(frame, contract)
    if not labelled.height:
        allowed = contract.label.values
        wanted = f"one of {', '.join(allowed)}" if allowed is not None else "a number"
        raise BadInputError(
            f"none of {frame.height} rows has a label: {contract.label.field} must be {wanted}"
            f" ({left_out['unlabelled']} have none, {left_out['unknown_label']} another value)"
        )
    parts = split_rows(labelled, contract)
    earlier = before_training(parts["train"], labels_of(parts["train"], contract), contract)
    statistics, constraints = baseline(parts["train"], contract)
    # What models are judged by and never see ends with the held-out rows.
    unseen = [feature.name for feature in contract.audit]
    parts |= {name: parts[name].drop(unseen) for name in ("train", "validation")}
    parents = parents_transform(folder / "input" / "parent", contract)
    fitted = fit(parts["train"], contract) if parents is None else parents

    output = folder / "output"
    written = parts | {"train": balanced(parts["train"], contract)}
    for name, part in written.items():
        write_table(part, output / name / "data.parquet")
    write_beside(output / "test", pl.concat([parts["train"], parts["validation"]]), earlier, contract)
    write_matrices(written, fitted, contract, output)
    (output / "transform").mkdir(parents=True, exist_ok=True)
    (output / "transform" / FITTED_FILE).write_text(fitted.to_json())
    _write(output / "baseline" / "statistics.json", statistics)
    _write(output / "baseline" / "constraints.json", constraints)
    write_lineage(
        parts, contract, features=source, config=base_folder() / "config", target=output / "lineage"
    )
    report = {
        "rows_read": frame.height,
        **left_out,
        "rows": {name: part.height for name, part in parts.items()},
        "balance": _balance(parts["train"], written["train"], contract),
        "columns": len(fitted.output_names),
        **({} if parents is None else {"fitted_by": "the parent model"}),
        "features": _features(parts, fitted, contract),
        "split": contract.split,
        "files_skipped": [dataclasses.asdict(file) for file in skipped],
    }
    _write(output / "transform" / "preparation.json", report)
    shown = {name: value for name, value in report.items() if name != "features"}
    say(f"prepared {json.dumps(shown, sort_keys=True)}")
