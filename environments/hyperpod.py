"""A cluster for trainings of weeks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from environments.refusal import refuse

__all__ = ["HyperPod"]


@dataclass(frozen=True, kw_only=True)
class HyperPod:
    """A HyperPod cluster with Slurm; see the construct HyperPodCluster. Its nodes cost from the first minute.

    Nodes read and write below ``prefix`` of the artifacts zone. ``lifecycle_uri`` is a folder in S3 whose
    ``on_create.sh`` every node runs when it starts; ``None``: SageMaker's own setup alone.
    """

    instance_type: str
    prefix: str
    instance_count: int = 2
    controller_instance_type: str = "ml.c5.xlarge"
    volume_gb: int = 500
    lifecycle_uri: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if not self.prefix.endswith("/") or self.prefix.startswith("/"):
            problems.append(f"prefix must end with '/' and not start with it, got {self.prefix!r}")
        if self.lifecycle_uri is not None and not re.fullmatch(r"s3://[^/]+/.+", self.lifecycle_uri):
            problems.append(f"lifecycle_uri must look like s3://bucket/folder, got {self.lifecycle_uri!r}")
        refuse("hyperpod", problems)
