"""The model card, in SageMaker's schema of a model package's card.

Amazon SageMaker Developer Guide, "Model package model card schema". A package's card leaves out what the
package itself says (image, artifact, approval).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ml_contract.compiled import CompiledContract

__all__ = ["LIMIT", "model_card"]

#: CreateModelPackage: ModelCardContent is at most 100,000 characters.
LIMIT: Final = 100_000
#: Longest texts of the schema.
_LONG: Final = 2_048
_NOTE: Final = 1_024
_NAME: Final = 63
_PROBLEMS: Final = {
    "binary": "Binary Classification",
    "multiclass": "Multiclass Classification",
    "regression": "Regression",
}


def model_card(contract: CompiledContract, report: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """The card's content as a text. ``metadata`` is the model folder's ``metadata.json``."""
    about = contract.evaluation.get("about", {})
    registry = about.get("registry") or {}
    rating = registry.get("risk_rating") or "Unknown"
    card: dict[str, Any] = {
        "model_overview": {
            "model_description": about.get("title", contract.name)[:_NOTE],
            "model_owner": about.get("owner", "")[:_NOTE],
            "problem_type": _PROBLEMS[contract.label.task],
            "algorithm_type": str(contract.training.get("algorithm", ""))[:_NOTE],
        },
        "intended_uses": {
            "purpose_of_model": f"Predicts {contract.label.field} of {contract.name}.",
            "intended_uses": (registry.get("intended_use") or "Not said: registry.intended_use.")[:_LONG],
            "risk_rating": rating,
            **(
                {"factors_affecting_model_efficiency": f"Not for: {registry['out_of_scope']}"[:_LONG]}
                if registry.get("out_of_scope")
                else {}
            ),
            "explanations_for_risk_rating": f"As {about.get('owner', 'its owner')} rates it."[:_LONG],
        },
        "training_details": {
            "objective_function": {
                "function": "Minimize",
                "condition": str(metadata.get("hyperparameters", {}).get("objective", ""))[:_NAME],
            },
            "training_observations": _observations(contract, metadata)[:_NOTE],
            "training_job_details": {
                "training_metrics": [
                    {"name": name, "value": value} for name, value in metadata.get("metrics", {}).items()
                ],
                "hyper_parameters": [
                    {"name": name, "value": _short(value)}
                    for name, value in metadata.get("hyperparameters", {}).items()
                ],
            },
        },
        "evaluation_details": _details(report),
        "additional_information": {
            "ethical_considerations": _ethics(report)[:_LONG],
            "caveats_and_recommendations": "; ".join(report["acceptance"]["warnings"])[:_LONG] or "None.",
            "custom_details": {
                "classification": about.get("classification", ""),
                "verdict": report["acceptance"]["why"][:_NOTE],
            },
        },
    }
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    if len(text) > LIMIT:
        # Subgroups are what grows; the report has them all.
        card["evaluation_details"] = card["evaluation_details"][:1]
        text = json.dumps(card, sort_keys=True, allow_nan=False)
    return text


def _short(value: object) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:255]


def _observations(contract: CompiledContract, metadata: Mapping[str, Any]) -> str:
    rows = metadata.get("rows", {})
    said = f"{rows.get('train', '?')} rows trained on, {rows.get('validation', '?')} to validate; "
    return said + f"split {contract.split['strategy']}, balance {metadata.get('balance', 'none')}"


def _number(name: str, value: float, notes: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "type": "number", "value": value}
    return found if notes is None else found | {"notes": notes[:_NOTE]}


def _measured(metrics: Mapping[str, Mapping[str, Any]], confidence: float) -> list[dict[str, Any]]:
    return [
        _number(
            name,
            one["value"],
            f"{confidence:.1%} interval {one['interval'][0]:.4f} to {one['interval'][1]:.4f}",
        )
        for name, one in metrics.items()
    ]


def _details(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    confidence = report["confidence"]
    groups = [{"name": "held-out rows", "metric_data": _measured(report["metrics"], confidence)}]
    groups += [
        {
            "name": f"bias of {facet}"[:_NAME],
            "metric_data": [
                _number(name, value)
                for name, value in (one["before_training"] | one["after_training"]).items()
                if value is not None
            ],
        }
        for facet, one in (report["bias"] or {"facets": {}})["facets"].items()
    ]
    details = [
        {
            "name": "Held-out part",
            "evaluation_observation": f"{report['rows']} rows; {report['acceptance']['why']}"[:2_096],
            "metric_groups": [group for group in groups if group["metric_data"]],
        }
    ]
    judged = [one for one in report["subgroups"] if one["metrics"] is not None]
    if judged:
        details.append(
            {
                "name": "Subgroups",
                "metric_groups": [
                    {
                        "name": f"{one['field']}: {one['value']}"[:_NAME],
                        "metric_data": _measured(one["metrics"], confidence),
                    }
                    for one in judged
                ],
            }
        )
    return details


def _ethics(report: Mapping[str, Any]) -> str:
    if not report["bias"]:
        return "No facet was named; bias was not measured."
    facets = ", ".join(f"{name} ({one['group']})" for name, one in report["bias"]["facets"].items())
    return f"Bias was measured of {facets}; the figures stand with the evaluation."
