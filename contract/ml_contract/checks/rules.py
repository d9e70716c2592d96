"""What must hold for rules, tracking and folds: that the image which trains has what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks

__all__ = ["check_rules"]

_IMAGES = ("xgboost", "pytorch")


def check_rules(checks: Checks) -> None:
    """Rules and tracking go with our images, a rule with what it can see."""
    training = checks.workload.training
    ours = training.algorithm in _IMAGES
    for name, given in (("rules", training.rules is not None), ("track", training.track != "none")):
        if given and not ours:
            checks.wrong(
                ("training", name),
                f"is built into the images of {' and '.join(_IMAGES)}, got algorithm {training.algorithm}; "
                "remove it, or let the program do it itself",
            )
    rules = training.rules
    if rules is not None:
        if rules.class_imbalance is not None and checks.workload.label.task == "regression":
            checks.wrong(("training", "rules", "class_imbalance"), "a number has no classes; remove the rule")
        norm = rules.exploding is not None and rules.exploding.largest_gradient is not None
        if norm and training.algorithm == "xgboost":
            checks.wrong(
                ("training", "rules", "exploding", "largest_gradient"),
                "trees have no gradient of weights; remove it (values that are no numbers are still seen)",
            )
    if training.k_folds is not None:
        if training.balance in ("oversample", "smote"):
            checks.wrong(
                ("training", "k_folds"),
                f"balance {training.balance} repeats rows or makes some up, which would stand in several "
                "folds and be judged by their copies; use balance class_weight or none",
            )
        if training.instance_count > 1:
            checks.wrong(
                ("training", "k_folds"),
                f"is for tables that one instance holds, got instance_count {training.instance_count}",
            )
