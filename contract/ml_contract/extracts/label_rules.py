"""What the functions that labellers work with read of a workload."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ml_contract.spec.record import class_text

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["label_rules", "shown_fields"]


def shown_fields(workload: Workload) -> tuple[str, ...]:
    """Fields that a labeller sees, in the order of the block or of the record."""
    labelling = workload.labelling
    if labelling is None:
        return ()
    if labelling.show != "all":
        return labelling.show
    return tuple(
        name
        for name, field in workload.record.fields.items()
        if field.sensitive is None and name != workload.label.field
    )


def label_rules(workload: Workload) -> str:
    """What the functions of the own engine read, as canonical JSON. Raises ValueError without the block."""
    labelling, label = workload.labelling, workload.label
    if labelling is None or label.task == "regression":
        raise ValueError(f"{workload.name} must have labelling with classes, got {labelling!r}")
    fields = workload.record.fields
    source = {name: name if field.source is None else field.source for name, field in fields.items()}
    identifier = workload.record.identifier
    data: dict[str, Any] = {
        "workload": workload.name,
        "title": workload.title,
        "instructions": labelling.instructions,
        "identifier": source[identifier],
        "label_field": label.field,
        "task": label.task,
        "classes": [
            {"value": text, "title": labelling.titles.get(text, text)}
            for text in (class_text(value) for value in label.values)
        ],
        "show": [
            {
                "name": name,
                "source": source[name],
                "title": name.replace("_", " "),
                "personal": fields[name].sensitive is not None,
            }
            for name in shown_fields(workload)
        ],
        "threshold": workload.serving.decision_threshold,
        "review_below_confidence": labelling.review_below_confidence,
        "sample_percent": labelling.sample_percent,
        "labellers_per_item": labelling.labellers_per_item,
        "labellers_at_most": labelling.at_most,
        "agreement": labelling.agreement,
        "expires_hours": labelling.expires_hours,
        "lock_minutes": labelling.lock_minutes,
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
