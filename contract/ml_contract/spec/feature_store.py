"""The block ``features.store``: how a workload's features stand in the Feature Store."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Strict

__all__ = ["FeatureStore", "Throughput"]


class Throughput(Strict):
    """What the online store takes and gives per second. On demand is paid by request."""

    mode: Literal["on_demand", "provisioned"] = "on_demand"
    read_units: int | None = Field(
        default=None, ge=1, description="Provisioned only: reads of 4 KB per second."
    )
    write_units: int | None = Field(
        default=None, ge=1, description="Provisioned only: writes of 1 KB per second."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = self.read_units is not None, self.write_units is not None
        if self.mode == "provisioned" and given != (True, True):
            raise ValueError("mode provisioned needs read_units and write_units")
        if self.mode == "on_demand" and any(given):
            raise ValueError("read_units and write_units go with mode provisioned; on_demand has none")
        return self


class FeatureStore(Strict):
    """Stores of the workload's feature group.

    ``offline_format``, ``online`` and ``storage`` cannot be changed on a group that stands: another value
    needs a new version of it (``python -m ml_contract features``).
    """

    offline_format: Literal["Glue", "Iceberg"] = Field(
        default="Glue", description="Table format of the offline store."
    )
    online: bool = Field(default=True, description="Whether records can be read one by one as they are now.")
    storage: Literal["Standard", "InMemory"] = Field(
        default="Standard", description="Tier of the online store; InMemory answers faster and costs more."
    )
    ttl_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days after its event time at which the online store drops a record; null keeps it.",
    )
    throughput: Throughput = Throughput()
    point_in_time: bool = Field(
        default=False,
        description="Also deploy the job that joins labels with features as they were known at a moment.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if not self.online:
            if self.ttl_days is not None:
                problems.append("ttl_days goes with online: true; the offline store keeps everything")
            if self.storage != "Standard":
                problems.append(f"storage {self.storage} goes with online: true")
            if self.throughput.mode != "on_demand":
                problems.append("throughput goes with online: true")
        elif self.storage == "InMemory" and self.throughput.mode != "on_demand":
            problems.append("storage InMemory is on demand only; provisioned goes with Standard")
        if problems:
            raise ValueError("; ".join(problems))
        return self
