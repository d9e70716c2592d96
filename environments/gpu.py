"""A queue for jobs that want a GPU."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GpuQueue"]


@dataclass(frozen=True, kw_only=True)
class GpuQueue:
    """AWS Batch on GPU instances, for preprocessing of images and the like; see the construct GpuBatchQueue.

    ``image`` is an image URI of ECR in the environment's account and Region. Jobs read and write below
    ``prefix`` of the raw and the curated zone. An idle queue costs nothing but its endpoints.
    """

    image: str
    prefix: str
    instance_types: tuple[str, ...] = ("g5", "g4dn")
    max_vcpu: int = 32
    spot: bool = False

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/") or self.prefix.startswith("/"):
            raise ValueError(f"gpu.prefix must end with '/' and not start with it, got {self.prefix!r}")
