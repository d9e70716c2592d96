"""Rules that watch a training and stop it, or only note what they see.

They stand in for SageMaker Debugger, which is closed to new customers, and keep its names and defaults
("List of Debugger Built-in Rules"): LossNotDecreasing, Overfit, ClassImbalance, ExplodingTensor.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_runtime.job import BadInputError, say

from ml_trainer.progress import History


class RuleStopError(BadInputError):
    """A rule stops the training; its text is the reason that the job fails with."""


#: What a rule sees: every round so far by ``train-<loss>`` and ``validation-<loss>``, and the gradients' norm
#: by round where the algorithm has one. It returns what is wrong, or None.
_Seen = tuple[list[float], list[float], list[float]]


@dataclasses.dataclass(frozen=True)
class Noted:
    """What a rule saw that does not stop the training."""

    rule: str
    round: int | None
    text: str


def _loss_not_decreasing(seen: _Seen, *, rounds: int = 20, least_percent: float = 0.1) -> str | None:
    """The loss on the training split has not fallen by ``least_percent`` in ``rounds`` rounds."""
    losses = seen[0]
    if len(losses) <= rounds:
        return None
    before, now = min(losses[:-rounds]), min(losses[-rounds:])
    if not now > before - abs(before) * least_percent / 100:
        return None
    return (
        f"the training loss has not fallen by {least_percent:g} % in {rounds} rounds: {before:.6g} before,"
        f" {now:.6g} at best since"
    )


def _overfit(seen: _Seen, *, ratio: float = 0.1, rounds: int = 5) -> str | None:
    """The validation loss was more than ``ratio`` above the training loss, ``rounds`` rounds in a row."""
    train, validation, _ = seen
    if len(train) < rounds or not validation:
        return None
    last = list(zip(train[-rounds:], validation[-rounds:], strict=True))
    if not all(valid - loss > ratio * abs(loss) for loss, valid in last):
        return None
    loss, valid = last[-1]
    return (
        f"the validation loss {valid:.6g} is {(valid - loss) / abs(loss) if loss else math.inf:.0%} above the"
        f" training loss {loss:.6g}, more than {ratio:.0%} for {rounds} rounds"
    )


def _exploding(seen: _Seen, *, largest_gradient: float | None = None) -> str | None:
    """A loss or a gradient is no finite number, or the gradients' norm is beyond ``largest_gradient``."""
    for what, series in zip(("training loss", "validation loss", "gradient norm"), seen, strict=True):
        if series and not math.isfinite(series[-1]):
            return f"the {what} is {series[-1]}"
    norms = seen[2]
    if largest_gradient is not None and norms and norms[-1] > largest_gradient:
        return f"the gradient norm {norms[-1]:.6g} is above {largest_gradient:g}"
    return None


_EACH_ROUND: Mapping[str, Callable[..., str | None]] = {
    "exploding": _exploding,
    "loss_not_decreasing": _loss_not_decreasing,
    "overfit": _overfit,
}


class Rules:
    """The rules of one training.

    Args:
        given: the ``rules`` of a workload's ``training`` block, by name: the rule's own numbers, and
            ``action``: ``stop`` or ``note``.
        loss: the metric that is the loss, such as ``logloss``.
    """

    def __init__(self, given: Mapping[str, Mapping[str, Any] | None] | None, *, loss: str) -> None:
        self._given = {name: dict(rule) for name, rule in (given or {}).items() if rule is not None}
        unknown = sorted(self._given.keys() - _EACH_ROUND.keys() - {"class_imbalance"})
        if unknown:
            known = ", ".join(sorted([*_EACH_ROUND, "class_imbalance"]))
            raise BadInputError(f"rules: {', '.join(unknown)} is no rule; known are {known}")
        self._loss = loss
        self._norms: list[float] = []
        self.noted: list[Noted] = []

    def before(self, counts: Sequence[int]) -> None:
        """Judge the training split by its rows per class. Raises RuleStopError."""
        rule = self._given.get("class_imbalance")
        if rule is None or not counts:
            return
        allowed = rule.get("ratio", 10)
        most, least = max(counts), min(counts)
        if most > allowed * least:
            shown = f"{most / least:.1f}" if least else "infinitely many"
            self._triggered(
                "class_imbalance",
                None,
                f"the largest class has {most} training rows, the smallest {least}: {shown} times as many,"
                f" allowed are {allowed:g}; balance the classes (training.balance) or bring more rows",
            )

    def after(self, history: History, *, gradient_norm: float | None = None) -> None:
        """Judge the training after a round. Raises RuleStopError.

        Args:
            history: all rounds so far.
            gradient_norm: of the round, where the algorithm has gradients.
        """
        if gradient_norm is not None:
            self._norms.append(gradient_norm)
        seen = (
            history.get(f"train-{self._loss}", []),
            history.get(f"validation-{self._loss}", []),
            self._norms,
        )
        already = {one.rule for one in self.noted}
        for name, judge in _EACH_ROUND.items():
            rule = self._given.get(name)
            if rule is None or name in already:
                continue
            numbers = {key: value for key, value in rule.items() if key != "action" and value is not None}
            wrong = judge(seen, **numbers)
            if wrong is not None:
                self._triggered(name, len(seen[0]) - 1, wrong)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the rules."""
        return {"noted": [dataclasses.asdict(one) for one in self.noted], "norms": self._norms}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's ``state``."""
        self.noted = [Noted(**one) for one in state["noted"]]
        self._norms = list(state["norms"])

    def _triggered(self, name: str, number: int | None, text: str) -> None:
        where = "" if number is None else f" after round {number}"
        if self._given[name].get("action", "stop") == "stop":
            raise RuleStopError(f"rule {name}{where}: {text}")
        say(f"rule {name}{where} notes: {text}")
        self.noted.append(Noted(name, number, text))
