"""The function's environment and its two files, typed and checked before the first batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_contract.compiled import CompiledContract
from ml_contract.records.landing import LandingSpec

from batch_landing.errors import MisconfiguredError

__all__ = ["Settings"]

#: Beside the packages, where the image has them.
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template and the image tell the function."""

    contract: CompiledContract
    sources: Mapping[str, LandingSpec]
    drop_bucket: str
    drop_prefix: str
    raw_bucket: str
    data_prefix: str
    quarantine_prefix: str
    batches_prefix: str
    deletions_prefix: str
    largest_file_bytes: int
    environment: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], root: Path = ROOT) -> Settings:
        """Read the variables and files; every problem is reported at once."""
        problems: list[str] = []
        places = {}
        for name in ("DROP_URI", "DATA_URI", "QUARANTINE_URI", "BATCHES_URI", "DELETIONS_URI"):
            uri = environment.get(name, "").strip()
            bucket, _, prefix = uri.removeprefix("s3://").partition("/")
            if not uri.startswith("s3://") or not bucket or not prefix.endswith("/"):
                problems.append(f"{name} must be s3://bucket/prefix/, got {uri!r}")
            places[name] = (bucket, prefix)
        size = environment.get("LARGEST_FILE_BYTES", "")
        if not size.isdigit() or int(size) < 1:
            problems.append(f"LARGEST_FILE_BYTES must be a whole number above 0, got {size!r}")
        texts = {}
        for name in ("contract.json", "sources.json"):
            try:
                texts[name] = (root / name).read_bytes()
            except OSError as error:
                problems.append(f"{root / name} cannot be read ({error.strerror}); build the image")
        buckets = {places[name][0] for name in places if name != "DROP_URI"}
        if len(buckets) != 1:
            problems.append(
                f"rows, quarantine and records of batches share one bucket, got {sorted(buckets)}"
            )
        if problems:
            raise MisconfiguredError("; ".join(problems))
        try:
            contract = CompiledContract.from_json(texts["contract.json"])
            sources = {s["name"]: LandingSpec.from_json(s) for s in json.loads(texts["sources.json"])}
        except (ValueError, KeyError, TypeError) as error:
            raise MisconfiguredError(f"contract.json or sources.json is not ours: {error!r}") from error
        return cls(
            contract=contract,
            sources=sources,
            drop_bucket=places["DROP_URI"][0],
            drop_prefix=places["DROP_URI"][1],
            raw_bucket=places["DATA_URI"][0],
            data_prefix=places["DATA_URI"][1],
            quarantine_prefix=places["QUARANTINE_URI"][1],
            batches_prefix=places["BATCHES_URI"][1],
            deletions_prefix=places["DELETIONS_URI"][1],
            largest_file_bytes=int(size),
            environment=environment.get("ENVIRONMENT_NAME", ""),
        )
