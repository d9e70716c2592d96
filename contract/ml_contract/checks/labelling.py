"""What holds between ``labelling`` and the other blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_contract.extracts.label_rules import shown_fields
from ml_contract.problems import Location, closest, short
from ml_contract.spec.record import class_text

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["check_labelling"]


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
    values = [class_text(value) for value in label.values]
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
