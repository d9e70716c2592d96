"""Hyperparameters: texts from SageMaker, typed and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast

from ml_contract.algorithms.pytorch import ALIASES, DEFAULTS, PARAMETERS
from ml_contract.algorithms.values import Value
from ml_contract.algorithms.xgboost import EARLY_STOPPING, ROUNDS
from ml_runtime.job import BadInputError
from ml_trainer.hyperparameters import job_values, read_all

Distribution = Literal["none", "data_parallel", "fully_sharded"]
_OWN: dict[str, Value] = {**PARAMETERS, "rounds": ROUNDS, "early_stopping_rounds": EARLY_STOPPING}


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What a training was asked for.

    Args:
        values: the network's and the optimiser's, every default filled in; see
            ``ml_contract.algorithms.pytorch``.
        rounds: passes over the training rows at most.
        early_stopping_rounds: passes without a better loss on the validation split before it stops; none for
            never.
        distribution: how several processes share the work.
        processes_per_instance: none for one per GPU, or one on a machine without.
    """

    values: dict[str, Any]
    rounds: int
    early_stopping_rounds: int | None
    distribution: Distribution
    processes_per_instance: int | None

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def as_metadata(self) -> dict[str, Any]:
        """Plain values, as the model's metadata has them."""
        return {
            **self.values,
            "rounds": self.rounds,
            "early_stopping_rounds": self.early_stopping_rounds,
            "distribution": self.distribution,
        }


def read_hyperparameters(given: Mapping[str, object]) -> Hyperparameters:
    """Return typed hyperparameters. Raises BadInputError naming every wrong one."""
    read = read_all(given, _OWN, ALIASES)
    job = job_values(given)
    values: dict[str, Any] = {**DEFAULTS, **read}
    if values["device"] == "cpu" and values["table_in_memory"] == "device":
        raise BadInputError(
            "hyperparameters: table_in_memory device needs a GPU, and device is cpu; say host"
        )
    return Hyperparameters(
        rounds=int(values.pop("rounds", 100)),
        early_stopping_rounds=values.pop("early_stopping_rounds", None),
        values=values,
        distribution=cast(Distribution, job.get("distribution", "none")),
        processes_per_instance=job.get("processes_per_instance"),
    )
