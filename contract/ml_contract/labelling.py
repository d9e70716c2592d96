"""The ``labelling`` block: people say what the model is not sure of, and what nobody knows yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ml_contract.blocks import ColumnName, Strict
from ml_contract.problems import Location, closest, short

if TYPE_CHECKING:
    from ml_contract.model import Workload

__all__ = ["Labelling", "check_labelling", "label_rules", "shown_fields"]

#: ARN of a SageMaker work team (CreateLabelingJob, HumanTaskConfig.WorkteamArn).
WORKTEAM = (
    r"^arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]+:[0-9]{12}:workteam/private-crowd/"
    r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$"
)


class Labelling(Strict):
    """Who labels what, and when several people agree."""

    engine: Literal["own", "ground_truth"] = Field(
        default="own",
        description="ground_truth is closed to accounts that did not use it before 2026-07-30.",
    )
    instructions: str = Field(
        min_length=10, max_length=4_000, description="What a labeller reads beside each item."
    )
    titles: dict[str, Annotated[str, Field(min_length=1, max_length=60)]] = Field(
        default_factory=dict, description="What a class is called on the page, by its value in records."
    )
    labellers_per_item: int = Field(default=2, ge=1, le=9, description="People who label each item.")
    labellers_at_most: int | None = Field(
        default=None,
        ge=1,
        le=15,
        description="People asked before an adjudicator decides; the default is one more than per item.",
    )
    agreement: float = Field(
        default=0.66,
        gt=0.5,
        le=1,
        description="Share of the votes that a label needs; above half, so one wins.",
    )
    show: Literal["all"] | tuple[ColumnName, ...] = Field(
        default="all",
        description="Fields that a labeller sees. all leaves out sensitive ones; a list may name them.",
    )
    review_below_confidence: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Predictions less sure than this go to people: 0 cannot tell, 1 is certain.",
    )
    sample_percent: float = Field(
        default=1.0, ge=0, le=100, description="Share of the sure predictions that people label too."
    )
    expires_hours: int = Field(
        default=72, ge=1, le=8_000, description="An item that nobody finished by then is given up."
    )
    lock_minutes: int = Field(
        default=15, ge=1, le=240, description="How long an item stays with who opened it."
    )
    workforce: Annotated[str, Field(pattern=WORKTEAM)] | None = Field(
        default=None, description="ARN of the private work team; engine ground_truth only."
    )

    @property
    def at_most(self) -> int:
        """People asked before an adjudicator decides."""
        return self.labellers_per_item + 1 if self.labellers_at_most is None else self.labellers_at_most

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.at_most < self.labellers_per_item:
            problems.append(
                f"labellers_at_most must be at least labellers_per_item ({self.labellers_per_item}), "
                f"got {self.labellers_at_most}"
            )
        if self.engine == "ground_truth" and self.workforce is None:
            problems.append("engine ground_truth needs workforce, the ARN of a private work team")
        if self.engine == "own" and self.workforce is not None:
            problems.append(
                "workforce goes with engine ground_truth; remove it: own people sign in by Cognito"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


def check_labelling(workload: Workload, wrong: Callable[[Location, str], None]) -> None:
    """What holds between labelling and the other blocks; ``wrong`` hears of each problem."""
    labelling = workload.labelling
    if labelling is None:
        return
    label = workload.label
    if label.task == "regression":
        wrong(
            ("labelling",),
            "got a regression label; people vote on classes, so binary and multiclass labels have labelling; "
            "remove the block",
        )
        return
    values = [_text(value) for value in label.values]
    for value in labelling.titles:
        if value not in values:
            wrong(
                ("labelling", "titles", value),
                f"got {short(value)}, which is no class of the label; classes are {', '.join(values)}",
            )
    titles = [labelling.titles.get(value, value) for value in values]
    if len(set(titles)) != len(titles):
        wrong(
            ("labelling", "titles"), f"gives two classes the same title: {', '.join(titles)}; tell them apart"
        )
    if labelling.show == "all":
        if not shown_fields(workload):
            wrong(("labelling", "show"), "all leaves no field to be seen; name the fields")
        return
    fields = workload.record.fields
    if not labelling.show:
        wrong(("labelling", "show"), "names no field; a labeller must see something, or say all")
    for i, name in enumerate(labelling.show):
        here: Location = ("labelling", "show", i)
        if name not in fields:
            close = closest(name, fields)
            hint = f"did you mean {close}?" if close else "name a field of the record"
            wrong(here, f"got {name!r}, which is no field of the record; {hint}")
        elif name == label.field:
            wrong(here, f"got {name!r}, which is the label; a labeller must not see it")
        elif name in labelling.show[:i]:
            wrong(here, f"got {name!r} twice; keep one")


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
            for text in (_text(value) for value in label.values)
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


def _text(value: str | bool | int) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
