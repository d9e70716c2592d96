"""What every check gets: the assembly, the code that it deploys, and what was released last."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.assembly import Assembly, Resource
from verify.code.deployed import Deployed, programs

__all__ = ["ROOT", "Context"]

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """The input of a check."""

    assembly: Assembly
    #: Digest of what held data in the last release; None where nothing was released.
    release: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, folder: Path, *, release: Path | None = None) -> Context:
        """Read an assembly and the digest of the last release.

        Raises:
            AssemblyError: the folder holds no assembly.
        """
        digest = None if release is None or not release.exists() else json.loads(release.read_bytes())
        return cls(assembly=Assembly(folder), release=digest)

    @functools.cached_property
    def deployed(self) -> tuple[Deployed, ...]:
        """Every program that the assembly deploys, with the role and the variables it runs with."""
        return tuple(programs(self.assembly))

    def roles(self) -> Mapping[Resource, Resource]:
        """Role of each resource that runs a program of ours."""
        return {item.resource: item.role for item in self.deployed if item.role is not None}
