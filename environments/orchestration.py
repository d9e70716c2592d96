"""Who starts training pipelines, beside the retraining trigger."""

from __future__ import annotations

import re
from dataclasses import dataclass

from environments.refusal import refuse

__all__ = ["Airflow", "Orchestration"]


@dataclass(frozen=True, kw_only=True)
class Airflow:
    """Managed Airflow with a DAG that starts a training pipeline; see the construct AirflowOrchestration.

    It costs about 0.5 USD an hour for the smallest class, whether something runs or not. Its subnets need the
    interface endpoints of the network.
    """

    version: str = "2.10.3"
    environment_class: str = "mw1.small"
    max_workers: int = 2

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"[23]\.[0-9]{1,2}\.[0-9]{1,2}", self.version):
            problems.append(f"version must look like 2.10.3, got {self.version!r}")
        if not re.fullmatch(r"mw1\.(micro|small|medium|large|xlarge|2xlarge)", self.environment_class):
            problems.append(f"environment_class must look like mw1.small, got {self.environment_class!r}")
        # Amazon MWAA, CreateEnvironment: MaxWorkers 1 to 25 by default.
        if not 1 <= self.max_workers <= 25:
            problems.append(f"max_workers must be between 1 and 25, got {self.max_workers}")
        refuse("airflow", problems)


@dataclass(frozen=True, kw_only=True)
class Orchestration:
    """Ways to start training; none, unless it is named.

    ``step_functions``: a state machine per workload that starts the pipeline and waits for its end.
    """

    step_functions: bool = False
    airflow: Airflow | None = None
