"""What a workload's feature groups look like in the accounts: ``features.lock.json`` beside the workload.

A feature group can be given further features where it stands; a feature that goes, another type, another key
or another kind of store can only be had with a new group. Synthesis asks no account what is deployed, so the
lock file says it: each version of the group with the schema and the stores it was made with. It is written by
``python -m ml_contract features`` and checked in.

Features that the contract adds are appended to the newest version. A change that no group can follow is
refused until a new version is asked for; it stands beside the old ones, and which one readers use
(``active``) is a decision of its own. A workload without a lock file has one group whose name changes with
its schema.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ml_contract.problems import Problem

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract
    from ml_contract.spec.feature_store import FeatureStore

__all__ = [
    "LOCK_NAME",
    "FeatureLock",
    "GroupVersion",
    "breaks",
    "group_versions",
    "lock_problems",
    "schema_hash",
]

LOCK_NAME: Final = "features.lock.json"
_FORMAT: Final = 1


def schema_hash(identifier: str, event_time: str, definitions: Sequence[tuple[str, str]]) -> str:
    """Return eight hexadecimal digits that change when, and only when, the schema changes."""
    canonical = json.dumps([identifier, event_time, [list(d) for d in definitions]], separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class GroupVersion:
    """One feature group: what its name ends in, its schema and its stores."""

    number: int
    suffix: str
    identifier: str
    event_time: str
    #: Name and Feature Store type of each feature, in the order in which the group got them.
    definitions: tuple[tuple[str, str], ...]
    offline_format: str = "Glue"
    online: bool = True
    storage: str = "Standard"

    @classmethod
    def of(cls, contract: CompiledContract, store: FeatureStore | None = None, *, number: int = 1) -> Self:
        """The group that the contract asks for, were there none yet."""
        definitions = tuple(contract.feature_definitions())
        stores: dict[str, Any] = {}
        if store is not None:
            stores = {name: getattr(store, name) for name in ("offline_format", "online", "storage")}
        return cls(
            number=number,
            suffix=schema_hash(contract.identifier, contract.event_time, definitions),
            identifier=contract.identifier,
            event_time=contract.event_time,
            definitions=definitions,
            **stores,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(**{**data, "definitions": tuple((name, kind) for name, kind in data["definitions"])})

    def grown(self, wanted: GroupVersion) -> GroupVersion:
        """This group with the features that ``wanted`` has beyond it, appended."""
        known = {name for name, _ in self.definitions}
        added = tuple(d for d in wanted.definitions if d[0] not in known)
        return dataclasses.replace(self, definitions=(*self.definitions, *added))


def breaks(there: GroupVersion, wanted: GroupVersion) -> list[str]:
    """Why ``there`` cannot become ``wanted`` where it stands, a line each; empty when it can."""
    found = [
        f"{what} {getattr(there, name)!r} becomes {getattr(wanted, name)!r}"
        for name, what in (
            ("identifier", "the identifier"),
            ("event_time", "the event time"),
            ("offline_format", "offline_format"),
            ("online", "online"),
            ("storage", "storage"),
        )
        if getattr(there, name) != getattr(wanted, name)
    ]
    kinds = dict(wanted.definitions)
    for name, kind in there.definitions:
        if name not in kinds:
            found.append(f"feature {name} goes")
        elif kinds[name] != kind:
            found.append(f"feature {name} was {kind} and becomes {kinds[name]}")
    return found


@dataclass(frozen=True, kw_only=True)
class FeatureLock:
    """The versions of a workload's feature group, oldest first; ``active`` is the number readers use."""

    active: int
    versions: tuple[GroupVersion, ...]

    @property
    def newest(self) -> GroupVersion:
        """The version that is written."""
        return self.versions[-1]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The lock of a workload's folder; None without one. Raises ValueError when it is not readable."""
        path = folder / LOCK_NAME
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != _FORMAT:
                raise ValueError(f"is of format {data['format']!r}; this reader knows format {_FORMAT}")
            lock = cls(
                active=data["active"], versions=tuple(GroupVersion.from_json(v) for v in data["versions"])
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"cannot be read: {type(error).__name__}: {error}") from error
        numbers = [version.number for version in lock.versions]
        if not numbers or numbers != sorted(set(numbers)) or lock.active not in numbers:
            raise ValueError(
                f"names the versions {numbers} and the active one {lock.active}; numbers must rise "
                "and hold the active one"
            )
        return lock

    def write(self, folder: Path) -> Path:
        """Write it; the same lock gives the same bytes."""
        path = folder / LOCK_NAME
        versions = []
        for version in self.versions:
            head = {k: v for k, v in dataclasses.asdict(version).items() if k != "definitions"}
            rows = ",\n    ".join(json.dumps(list(d)) for d in version.definitions)
            text = json.dumps(head, indent=2)[:-2]
            versions.append(f'{text},\n  "definitions": [\n    {rows}\n  ]\n}}')
        body = ",\n".join(versions)
        path.write_text(
            f'{{"format": {_FORMAT}, "active": {self.active}, "versions": [\n{body}\n]}}\n', encoding="utf-8"
        )
        return path

    def with_contract(self, wanted: GroupVersion) -> FeatureLock:
        """The lock with the contract's further features in its newest version.

        Raises ValueError when the newest version cannot become what the contract asks for.
        """
        found = breaks(self.newest, wanted)
        if found:
            raise ValueError("; ".join(found))
        return dataclasses.replace(self, versions=(*self.versions[:-1], self.newest.grown(wanted)))

    def with_new_version(self, wanted: GroupVersion) -> FeatureLock:
        """The lock with another version beside those that stand; the active one stays."""
        number = self.newest.number + 1
        suffix = f"v{number}-{wanted.suffix}"
        new = dataclasses.replace(wanted, number=number, suffix=suffix)
        return dataclasses.replace(self, versions=(*self.versions, new))

    def activated(self, number: int) -> FeatureLock:
        """The lock with another active version."""
        numbers = [version.number for version in self.versions]
        if number not in numbers:
            raise ValueError(f"there is no version {number}; there are {', '.join(map(str, numbers))}")
        return dataclasses.replace(self, active=number)

    def without(self, number: int) -> FeatureLock:
        """The lock without a version: the next deploy lets go of its group, which stays in the account."""
        if number in (self.active, self.newest.number):
            role = "active" if number == self.active else "newest"
            raise ValueError(f"version {number} is the {role} one; only one that nobody uses can go")
        if number not in [version.number for version in self.versions]:
            raise ValueError(f"there is no version {number}")
        kept = tuple(version for version in self.versions if version.number != number)
        return dataclasses.replace(self, versions=kept)


def lock_problems(folder: Path, contract: CompiledContract, store: FeatureStore) -> list[Problem]:
    """What stands between a workload and its lock file."""
    path = folder / LOCK_NAME

    def wrong(message: str) -> list[Problem]:
        return [Problem(str(path), 1, "", message)]

    try:
        lock = FeatureLock.read(folder)
    except ValueError as error:
        return wrong(f"{error}; bring back the file that was checked in")
    found = [] if lock is None else breaks(lock.newest, GroupVersion.of(contract, store))
    if not found:
        return []
    return wrong(
        f"the feature group cannot follow: {'; '.join(found)}; undo the change, or have a new version of the "
        f"group beside the old one: python -m ml_contract features {folder} --new-version"
    )


def group_versions(
    folder: Path, contract: CompiledContract, store: FeatureStore
) -> tuple[tuple[GroupVersion, ...], int]:
    """The feature groups that a workload has, oldest first, and the number of the active one."""
    wanted = GroupVersion.of(contract, store)
    lock = FeatureLock.read(folder)
    if lock is None:
        return (wanted,), wanted.number
    grown = lock.with_contract(wanted)
    return grown.versions, grown.active
