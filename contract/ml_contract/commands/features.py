"""``python -m ml_contract features WORKLOAD``: records what the feature groups look like."""

from __future__ import annotations

import sys
from pathlib import Path

from ml_contract.evolution.feature_lock import FeatureLock, GroupVersion
from ml_contract.load import YAML_NAME, load_workload
from ml_contract.problems import ContractError

__all__ = ["record_features"]


def record_features(
    path: Path, *, new_version: bool = False, activate: int | None = None, remove: int | None = None
) -> int:
    """Bring a workload's lock file up to date; exit status 0, or 1 with what stands against it."""
    folder = path.parent if path.name == YAML_NAME else path
    try:
        loaded = load_workload(folder, locked=False)
    except ContractError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    wanted = GroupVersion.of(loaded.compiled, loaded.workload.features.store)
    try:
        lock = FeatureLock.read(folder)
        if lock is None:
            lock = FeatureLock(active=wanted.number, versions=(wanted,))
        elif new_version:
            lock = lock.with_new_version(wanted)
        else:
            lock = lock.with_contract(wanted)
        if activate is not None:
            lock = lock.activated(activate)
        if remove is not None:
            lock = lock.without(remove)
    except ValueError as error:
        sys.stderr.write(
            f"{folder}: {error}; undo the change, or say --new-version for another group beside the old one\n"
        )
        return 1
    written = lock.write(folder)
    for version in lock.versions:
        roles = [
            name
            for name, number in (("active", lock.active), ("written", lock.newest.number))
            if number == version.number
        ]
        sys.stdout.write(
            f"{written}: version {version.number} (...-{version.suffix}): {len(version.definitions)} columns"
            f"{', ' + ' and '.join(roles) if roles else ''}\n"
        )
    return 0
