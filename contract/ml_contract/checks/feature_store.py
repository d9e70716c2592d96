"""What holds between ``features.store`` and the other blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks

__all__ = ["check_feature_store"]


def check_feature_store(checks: Checks) -> None:
    """The point-in-time job runs beside the Glue jobs."""
    workload = checks.workload
    if workload.features.store.point_in_time and workload.batch.scale != "medium":
        checks.wrong(
            ("features", "store", "point_in_time"),
            f"the job runs on Glue, beside those of batch.scale medium, got scale {workload.batch.scale}; "
            "set batch.scale to medium, or join with ml_contract.features.as_of where the labels are",
        )
