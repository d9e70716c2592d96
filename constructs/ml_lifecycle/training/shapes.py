"""Which shape of the pipeline a workload asks for."""

from __future__ import annotations

from typing import Any

from ml_contract.checks.training import OUR_IMAGES
from ml_contract.spec.workload import Workload

from ml_lifecycle.training import definition

__all__ = ["shape_of"]


def shape_of(spec: Workload, *, in_vpc: bool = True) -> dict[str, Any]:
    """Return what the pipeline's program is given for a workload; see ``definition.CHOICES``."""
    training = spec.training
    return definition.shape(
        algorithm="ours" if training.algorithm in OUR_IMAGES else training.algorithm,
        bias=spec.evaluation.bias is not None,
        cached=training.cache_hours is not None,
        champion=spec.evaluation.champion is not None,
        explain=spec.evaluation.explain is not None,
        file_system=training.file_system is not None,
        higher_is_better=spec.acceptance.at_most is None,
        in_vpc=in_vpc,
        parent=training.parent is not None,
        spot=training.spot,
        tracked=training.track != "none",
        tuning=_tuning(spec),
        workers=in_vpc and training.instance_count > 1,
    )


def _tuning(spec: Workload) -> str | None:
    if spec.tuning is None:
        return None
    return "cold" if spec.tuning.warm_start is None else "warm"
