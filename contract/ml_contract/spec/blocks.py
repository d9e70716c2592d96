"""What every block of a ``workload.yaml`` is made of. Blocks of their own modules build on this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Classification", "ColumnName", "Percent", "Slug", "Strict"]

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}[a-z0-9]$")]
ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Percent = Annotated[int, Field(ge=1, le=100)]
Classification = Literal["public", "internal", "confidential", "restricted"]


class Strict(BaseModel):
    """Every block: unknown keys and ill-typed values are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
