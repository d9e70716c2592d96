"""A ``DynamicFrame`` that holds a ``DataFrame``: enough to hand frames to and from Glue's transforms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


class DynamicFrame:
    """A frame of one fixed schema."""

    def __init__(self, frame: DataFrame, glue_ctx: Any, name: str = "") -> None:
        self._frame = frame
        self.glue_ctx = glue_ctx
        self.name = name

    @classmethod
    def fromDF(cls, dataframe: DataFrame, glue_ctx: Any, name: str) -> DynamicFrame:  # noqa: N802 - Glue's name
        """Wrap a ``DataFrame``."""
        return cls(dataframe, glue_ctx, name)

    def toDF(self) -> DataFrame:  # noqa: N802 - Glue's name
        """Return the ``DataFrame``."""
        return self._frame

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._frame.count())

    def schema(self) -> StructType:
        """Return the schema."""
        return self._frame.schema

    def show(self, num_rows: int = 20) -> None:
        """Print rows."""
        self._frame.show(num_rows)

    def printSchema(self) -> None:  # noqa: N802 - Glue's name
        """Print the schema."""
        self._frame.printSchema()


class DynamicFrameCollection:
    """Frames by name."""

    def __init__(self, dynamic_frames: Mapping[str, DynamicFrame], glue_ctx: Any) -> None:
        self._frames = dict(dynamic_frames)
        self.glue_ctx = glue_ctx

    def select(self, key: str) -> DynamicFrame:
        """Return one frame."""
        return self._frames[key]

    __getitem__ = select

    def keys(self) -> Iterator[str]:
        """Return the names."""
        return iter(self._frames)
