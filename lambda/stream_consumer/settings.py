"""The function's environment, typed and checked before the first record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stream_consumer.errors import MisconfiguredError

__all__ = ["Settings"]

#: Beside the packages, where the image has it.
CONTRACT = Path(__file__).resolve().parents[1] / "contract.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template and the image tell the function."""

    feature_group: str
    quarantine_bucket: str
    quarantine_prefix: str
    contract: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        problems = []
        uri = environment.get("QUARANTINE_URI", "").strip()
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not bucket:
            problems.append(f"QUARANTINE_URI must be s3://bucket/prefix/, got {uri!r}")
        group = environment.get("FEATURE_GROUP_NAME", "").strip()
        if not group:
            problems.append("FEATURE_GROUP_NAME must name a feature group, got nothing")
        contract = Path(environment.get("CONTRACT_PATH", str(CONTRACT)))
        if not contract.is_file():
            problems.append(
                f"the compiled contract must stand at {contract}; set CONTRACT_PATH or build the image"
            )
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            feature_group=group,
            quarantine_bucket=bucket,
            quarantine_prefix=prefix if prefix == "" or prefix.endswith("/") else f"{prefix}/",
            contract=contract,
        )
