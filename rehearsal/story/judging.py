"""How good models are: by their own evaluation, and by labels that came later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rehearsal.story.telling import Evidence, Step, require

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract

    from rehearsal.story.tale import Tale
    from rehearsal.story.traffic import Answer

__all__ = ["CHALLENGER", "LESS_IS_BETTER", "STEPS", "area_under_roc", "judge", "metric_of", "truth"]

#: The metric of each task that the story compares models by.
METRICS = {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}
LESS_IS_BETTER = frozenset({"rmse"})


def metric_of(contract: CompiledContract) -> str:
    """Name of the metric that models of this contract are compared by."""
    return METRICS[contract.label.task]


def truth(record: Mapping[str, Any], contract: CompiledContract) -> str | float:
    """The label of a raw record, as the contract's label values are written."""
    field = contract.label.field
    value = record[next(c.source for c in contract.columns if c.name == field)]
    if contract.label.task == "regression":
        return float(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def judge(
    records: Sequence[Mapping[str, Any]], answers: Sequence[Answer], contract: CompiledContract
) -> dict[str, float]:
    """Metrics of the answers given to labelled records, in the order of the records."""
    truths = [truth(record, contract) for record in records]
    label = contract.label
    if label.task == "regression":
        errors = [float(t) - _score(a) for t, a in zip(truths, answers, strict=True)]
        return {"rmse": math.sqrt(sum(e * e for e in errors) / len(errors))}
    accuracy = sum(a.label == t for t, a in zip(truths, answers, strict=True)) / len(truths)
    if label.task == "multiclass" or label.values is None:
        return {"accuracy": accuracy}
    positive = label.values[1]
    area = area_under_roc([t == positive for t in truths], [_score(a) for a in answers])
    return {"auc": area, "accuracy": accuracy}


def _score(answer: Answer) -> float:
    if answer.score is None:
        raise ValueError(f"request {answer.index} failed and cannot be judged: {answer.error}")
    return answer.score


def area_under_roc(positive: Sequence[bool], scores: Sequence[float]) -> float:
    """Share of pairs of a positive and a negative that the scores put in order; ties count half.

    0.5 when there is no pair.
    """
    ordered = sorted(zip(scores, positive, strict=True))
    ranks = 0.0
    start = 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        middle = (start + 1 + end) / 2
        ranks += middle * sum(is_positive for _, is_positive in ordered[start:end])
        start = end
    ones = sum(positive)
    pairs = ones * (len(ordered) - ones)
    return 0.5 if pairs == 0 else (ranks - ones * (ones + 1) / 2) / pairs


# --- what the pipeline's own evaluation says ---


def _file(package: Mapping[str, Any], name: str) -> str:
    """URI of a file beside a version's evaluation."""
    uri: str = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    return f"{uri.rsplit('/', 1)[0]}/{name}"


def _keep_page(tale: Tale, package: Mapping[str, Any]) -> str:
    """Copy a version's page into the output folder; return its name there."""
    name = f"evaluation-{package['ModelPackageVersion']}.html"
    (tale.out / name).write_bytes(tale.cloud.objects.read(_file(package, "evaluation.html")))
    return name


def _ranges(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {
        name: f"{one['value']:.3f} ({one['interval'][0]:.3f} to {one['interval'][1]:.3f})"
        for name, one in metrics.items()
    }


def _judged(tale: Tale, evidence: Evidence) -> None:
    package = tale.known["package"]
    report = tale.cloud.objects.read_json(_file(package, "evaluation.json"))
    evidence |= {
        "verdict": report["acceptance"]["verdict"],
        "confidence": report["confidence"],
        "metrics": _ranges(report["metrics"]),
        "page": _keep_page(tale, package),
    }
    wanted = tale.workload.evaluation
    metric = tale.workload.acceptance.metric
    for name, one in report["metrics"].items():
        low, high = one["interval"]
        require(
            low - 1e-9 <= one["value"] <= high + 1e-9,
            f"{name} {one['value']} lies outside its interval {low} to {high}",
        )
    if wanted.subgroups:
        evidence["subgroups"] = {
            f"{one['field']} {one['value']} ({one['rows']} rows)": one["metrics"][metric]["value"]
            if one["metrics"]
            else one["why"]
            for one in report["subgroups"]
        }
        require(
            {one["field"] for one in report["subgroups"]} == set(wanted.subgroups), "a subgroup is missing"
        )
    if wanted.bias is not None:
        _bias(tale, report, package, evidence)
    if wanted.explain is not None:
        evidence["goes_by"] = {
            name: round(size, 3) for name, size in list(report["explain"]["importance"].items())[:6]
        }
        require(
            package["ModelMetrics"]["Explainability"]["Report"]["S3Uri"]
            == _file(package, "explainability.json"),
            "the version names no explainability report",
        )
    if wanted.costs is not None:
        costs = report["costs"]
        evidence["costs"] = {name: value for name, value in costs.items() if name != "curve"}
        environment = package["InferenceSpecification"]["Containers"][0]["Environment"]
        require(
            float(environment["DECISION_THRESHOLD"]) == costs["threshold"],
            f"the version serves with {environment}, the costs say {costs['threshold']}",
        )


def _bias(tale: Tale, report: Mapping[str, Any], package: Mapping[str, Any], evidence: Evidence) -> None:
    """What was measured of each facet, and that no facet that is protected was learned from."""
    facets = report["bias"]["facets"]
    evidence["bias"] = {
        f"{name}: {one['group']}": {
            metric: None if value is None else round(value, 3)
            for metric, value in (one["before_training"] | one["after_training"]).items()
        }
        for name, one in facets.items()
    }
    evidence["warnings"] = report["acceptance"]["warnings"]
    require(
        all(one["before_training"] for one in facets.values()),
        "nothing was measured of the labels that the model learned from",
    )
    lineage = tale.cloud.objects.read_json(package["CustomerMetadataProperties"]["Lineage"])
    learned = {feature.name for feature in tale.contract.features}
    never = [feature.name for feature in tale.contract.audit]
    evidence["judged_by_and_never_learned_from"] = never
    require(not learned & set(never), f"the model learned from {sorted(learned & set(never))}")
    require(set(never) <= set(lineage["features"]["columns"]), "the features table lacks what is judged by")
    analysis = tale.cloud.objects.read_json(package["ModelMetrics"]["Bias"]["Report"]["S3Uri"])
    require(
        set(analysis["post_training_bias_metrics"]["facets"]) == set(facets),
        "the version's bias report has other facets",
    )


def _card(tale: Tale, evidence: Evidence) -> None:
    package = tale.known["package"]
    card = json.loads(package["ModelCard"]["ModelCardContent"])
    evidence |= {
        "status": package["ModelCard"]["ModelCardStatus"],
        "owner": card["model_overview"]["model_owner"],
        "intended_uses": card["intended_uses"],
        "hyperparameters": len(card["training_details"]["training_job_details"]["hyper_parameters"]),
        "evaluations": [details["name"] for details in card["evaluation_details"]],
    }
    require(card["model_overview"]["model_owner"] == tale.workload.owner, "the card names another owner")
    metrics = {one["name"] for one in card["evaluation_details"][0]["metric_groups"][0]["metric_data"]}
    require(
        tale.workload.acceptance.metric in metrics, "the card lacks the metric that models are accepted by"
    )


def _challenger(tale: Tale, evidence: Evidence) -> None:
    package = tale.known["better package"]
    report = tale.cloud.objects.read_json(_file(package, "evaluation.json"))
    found = report["champion"]
    require(found is not None, "the second model was not held against the approved one")
    evidence |= {
        "on_the_new_models_held_out_rows": found["held_out"],
        "on_the_approved_models_own": found["old_data"],
        "checks": [check["text"] for check in report["acceptance"]["checks"]],
        "page": _keep_page(tale, package),
    }
    require(found["held_out"]["compared"], f"not compared: {found['held_out'].get('why')}")


STEPS = (
    Step(
        id="judged",
        title="Intervals, subgroups, bias, what the model goes by, and the threshold that costs least",
        chapter="Train",
        run=_judged,
        capabilities=lambda w: (
            "judge.metrics",
            *(("judge.bias",) if w.evaluation.bias is not None else ()),
            *(("judge.explain",) if w.evaluation.explain is not None else ()),
        ),
    ),
    Step(
        id="card",
        title="A model card goes with the version",
        chapter="Train",
        run=_card,
        capabilities=lambda _: ("registry.cards",),
    ),
)
CHALLENGER = Step(
    id="challenger",
    title="The new model beside the approved one: on the same rows, and on the old ones",
    chapter="Retrain",
    run=_challenger,
    capabilities=lambda _: ("judge.champion",),
    applies=lambda w: w.evaluation.champion is not None,
)
