"""Judges a trained model on the held-out split, through the same files that the serving image loads."""

from __future__ import annotations

import json
import pathlib
import tempfile
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_judging import bias, explain, quality
from ml_judging.measures import Measures, measures_of
from ml_judging.resampling import Bootstrap, strata_of, with_intervals
from ml_runtime.archive import unpack
from ml_runtime.job import BadInputError, base_folder, only_file, say
from ml_runtime.model import METADATA_FILE, Matrix, Model

from ml_processing.judging import rows
from ml_processing.judging.acceptance import accept
from ml_processing.judging.card import model_card
from ml_processing.judging.champion import Contender, Duel, incomparable, read_champion
from ml_processing.judging.curves import curves
from ml_processing.judging.report.page import page
from ml_processing.judging.threshold import Chosen, cheapest, cost_per_row

__all__ = ["Case", "evaluate", "judged"]

#: What the registration reads: the card as one text, the threshold as the text of an environment variable.
REGISTER_FILE: Final = "register.json"
VERSION: Final = 2
#: What live quality is held against later.
QUALITY_STATISTICS: Final = "model_quality_statistics.json"
QUALITY_CONSTRAINTS: Final = "model_quality_constraints.json"
#: Of the constraints of a workload that watches no quality: its own default.
DEFAULT_TOLERANCE: Final = 0.1


def evaluate() -> None:
    """Judge the model and write ``evaluation.json``, the page, the card and Clarify's two reports."""
    folder = base_folder() / "processing"
    contract = CompiledContract.from_json(only_file(folder / "input" / "contract", ".json").read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = pathlib.Path(scratch) / "model"
        unpacked.mkdir()
        unpack(only_file(folder / "input" / "model", ".tar.gz"), unpacked)
        model = Model.load(unpacked)
        if model.contract.to_json() != contract.to_json():
            raise BadInputError(
                "the model was trained by another contract than the one given; run the pipeline as a whole"
            )
        file = unpacked / METADATA_FILE
        metadata: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        case = Case(contract, model, unpacked, folder / "input")
        report = judged(case, pathlib.Path(scratch) / "champion")
        baseline = model_quality(case, report)
    _write(folder / "output" / "evaluation", contract, report, metadata, baseline)
    found = ", ".join(
        f"{name} {one['value']:.4f} ± {one['standard_deviation']:.4f}"
        for name, one in report["metrics"].items()
    )
    say(f"evaluated {report['rows']} rows: {found}")
    say(f"{report['acceptance']['verdict']}: {report['acceptance']['why']}")


@dataclass(frozen=True)
class Case:
    """A model and the rows that it is judged by.

    Args:
        contract: the workload's.
        model: the model that is judged.
        folder: its unpacked folder.
        inputs: of the job: ``test``, and where they are given ``validation``, ``champion`` and
            ``champion_test``.
    """

    contract: CompiledContract
    model: Model
    folder: pathlib.Path
    inputs: pathlib.Path

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The held-out rows."""
        found = rows.read_rows(self.inputs / "test", self.contract, "test")
        if found.height < 2:
            raise BadInputError(f"{found.height} test rows cannot judge a model")
        return found

    @cached_property
    def labels(self) -> npt.NDArray[Any]:
        """What was: positions of classes, or numbers."""
        return rows.labels_of(self.frame, self.contract)

    @cached_property
    def matrix(self) -> Matrix:
        """The held-out rows as the model takes them."""
        matrix: Matrix = self.model.fitted.matrix(self.frame)
        return matrix

    @cached_property
    def scores(self) -> npt.NDArray[Any]:
        """What the model says."""
        return self.model.scores(self.matrix)

    @cached_property
    def how(self) -> Bootstrap:
        """How rows are drawn anew."""
        block = self.contract.evaluation
        return Bootstrap(block.get("confidence", 0.95), block.get("resamples", 1_000))

    @cached_property
    def cheapest(self) -> Chosen | None:
        """The threshold that costs least on the validation rows; None where nothing has a cost."""
        return self._cheapest_of(self.model)

    @property
    def decided(self) -> npt.NDArray[Any]:
        """What it decides: positions of classes, or numbers."""
        if self.contract.label.task == "binary":
            return (self.scores >= self.threshold).astype(np.int64)
        return self.scores if self.contract.label.values is None else self.scores.argmax(axis=1)

    @property
    def threshold(self) -> float:
        """The score from which the model decides positive."""
        return self.contract.decision_threshold if self.cheapest is None else self.cheapest.threshold

    def _cheapest_of(self, model: Model) -> Chosen | None:
        costs = self.contract.evaluation.get("costs")
        if costs is None:
            return None
        frame = rows.read_rows(self.inputs / "validation", self.contract, "validation")
        return cheapest(rows.labels_of(frame, self.contract), model.scores(model.fitted.matrix(frame)), costs)

    def measures(self) -> Measures:
        """Of all held-out rows."""
        return measures_of(
            self.contract.label.task,
            self.labels,
            self.scores,
            threshold=self.threshold,
            columns=self.matrix.shape[1],
        )

    def subgroups(self, measures: Measures) -> list[dict[str, Any]]:
        """The measures of the rows with each value of each field."""
        block, label = self.contract.evaluation, self.contract.label
        least = block.get("minimum_subgroup_rows", 30)
        found = []
        for field in block.get("subgroups", ()):
            texts = self.frame[field].cast(pl.String).fill_null("(none)").to_numpy()
            for value in sorted(set(texts)):
                chosen = np.flatnonzero(texts == value)
                labels = self.labels[chosen]
                one: dict[str, Any] = {"field": field, "value": value, "rows": len(chosen), "metrics": None}
                if label.values is not None:
                    one["classes"] = {name: int((labels == c).sum()) for c, name in enumerate(label.values)}
                if len(chosen) < least:
                    one["why"] = f"fewer than {least} rows"
                elif label.task == "binary" and 0 in one["classes"].values():
                    one["why"] = "rows of one class only"
                else:
                    one["metrics"] = with_intervals(
                        measures.take(chosen), strata_of(label.task, labels), self.how
                    )
                found.append(one)
        return found

    def bias(self) -> dict[str, Any] | None:
        """Clarify's metrics by facet, of the labels learned from and of the model on the held-out rows."""
        block, values = self.contract.evaluation.get("bias"), self.contract.label.values
        if block is None:
            return None
        earlier = rows.before_training(self.inputs / "test")
        later = bias.after_training(self.frame, self.labels, self.decided, self.matrix, self.contract)
        good = [f"above {block['favourable_above']:g}"] if values is None else block["favourable"]
        return {
            "favourable": ", ".join(map(str, good or [(values or ("",))[-1]])),
            "facets": {
                name: {
                    "group": one["group"],
                    "rows": one["rows"],
                    "disadvantaged_rows": one["disadvantaged_rows"],
                    "before_training": earlier.get(name, {}).get("metrics", {}),
                    "after_training": one["metrics"],
                }
                for name, one in later.items()
            },
        }

    def champion(self, scratch: pathlib.Path) -> dict[str, Any] | None:
        """The model beside the approved one; None where there is none, or nobody asks for it."""
        rules = self.contract.evaluation.get("champion")
        model = None if rules is None else read_champion(self.inputs / "champion", scratch)
        if rules is None or model is None:
            return None
        # Each decides by the threshold that is cheapest for it, on the same rows.
        chosen = None if incomparable(model.contract, self.contract) else self._cheapest_of(model)
        threshold = self.contract.decision_threshold if chosen is None else chosen.threshold
        duel = Duel(
            Contender(self.model, self.threshold),
            Contender(model, threshold),
            self.contract.acceptance["metric"],
            self.how,
        )
        of_old = self.inputs / "champion_test"
        return {
            "held_out": duel.on_held_out(self.frame, of_old),
            "old_data": None
            if rules["forgetting"] is None
            else duel.on_old_data(of_old, rows.seen(self.inputs / "test")),
        }

    def explained(self) -> dict[str, Any] | None:
        """What the model goes by; None where nobody asks for it."""
        wanted = self.contract.evaluation.get("explain")
        if wanted is None:
            return None
        return explain.explain(
            self.folder,
            self.model,
            self.frame,
            self.matrix,
            rows=wanted["shap_rows"],
            curves=wanted["partial_dependence"],
        )

    def costs(self) -> dict[str, Any] | None:
        """What wrong decisions cost; None where nothing has a cost."""
        costs, chosen = self.contract.evaluation.get("costs"), self.cheapest
        if costs is None or chosen is None:
            return None
        configured = self.contract.decision_threshold
        return {
            **costs,
            "threshold": chosen.threshold,
            "validation_cost_per_row": chosen.cost_per_row,
            "cost_per_row": cost_per_row(self.labels, self.scores, chosen.threshold, costs),
            "configured_threshold": configured,
            "configured_cost_per_row": cost_per_row(self.labels, self.scores, configured, costs),
            "curve": chosen.curve,
        }


def judged(case: Case, scratch: pathlib.Path) -> dict[str, Any]:
    """Everything that ``evaluation.json`` says; ``scratch`` is a folder for the approved model's files."""
    contract, task = case.contract, case.contract.label.task
    measures = case.measures()
    report: dict[str, Any] = {
        "version": VERSION,
        "workload": contract.name,
        "task": task,
        "rows": case.frame.height,
        "confidence": case.how.confidence,
        "decision_threshold": case.threshold if task == "binary" else None,
        "metrics": with_intervals(measures, strata_of(task, case.labels), case.how),
        **curves(task, case.labels, np.asarray(case.scores, dtype=np.float64), case.threshold),
        "subgroups": case.subgroups(measures),
        "bias": case.bias(),
        "explain": case.explained(),
        "champion": case.champion(scratch),
        "costs": case.costs(),
    }
    return report | {"acceptance": accept(contract, report)}


def model_quality(case: Case, report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What live quality is later held against, as Model Monitor's two documents by file name."""
    contract = case.contract
    found = quality.statistics(
        contract.label.task,
        case.labels,
        case.scores,
        case.decided,
        report["metrics"],
        classes=contract.label.values,
        # The adjusted R² of live predictions needs them.
        about={"columns": case.matrix.shape[1]},
    )
    watched = contract.monitoring.get("quality") or {}
    tolerance = watched.get("tolerance")
    thresholds = {
        name: quality.threshold_of(name, one["value"], DEFAULT_TOLERANCE if tolerance is None else tolerance)
        for name, one in report["metrics"].items()
        if name in {contract.acceptance["metric"], *watched.get("limits", ())}
    }
    return {
        QUALITY_STATISTICS: found,
        QUALITY_CONSTRAINTS: quality.constraints(contract.label.task, thresholds),
    }


def _write(
    target: pathlib.Path,
    contract: CompiledContract,
    report: dict[str, Any],
    metadata: dict[str, Any],
    baseline: dict[str, dict[str, Any]],
) -> None:
    target.mkdir(parents=True, exist_ok=True)

    def write(name: str, document: dict[str, Any]) -> None:
        (target / name).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")

    card = model_card(contract, report, metadata)
    facets = (report["bias"] or {"facets": {}})["facets"]
    write("evaluation.json", report)
    write(
        "bias.json",
        bias.clarify_report(
            contract.label.field,
            {name: {"group": f["group"], "metrics": f["before_training"]} for name, f in facets.items()},
            {name: {"group": f["group"], "metrics": f["after_training"]} for name, f in facets.items()},
        ),
    )
    for name, document in baseline.items():
        write(name, document)
    write("explainability.json", explain.clarify_report(report["explain"], contract.label.field))
    write("model_card.json", json.loads(card))
    threshold = report["decision_threshold"]
    write(
        REGISTER_FILE,
        {"model_card": card, "decision_threshold": "none" if threshold is None else str(threshold)},
    )
    (target / "evaluation.html").write_text(page(contract, report, metadata))
