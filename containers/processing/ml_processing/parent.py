"""A training that goes on from a model takes over how that model's columns were fitted."""

from __future__ import annotations

import json
import pathlib
import tempfile

from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import Fitted
from ml_runtime.archive import unpack
from ml_runtime.job import BadInputError, say
from ml_runtime.model import CONTRACT_FILE, FITTED_FILE

#: Parts of a contract that decide what a column is.
_DECIDING = ("features", "fit", "label")


def parents_transform(folder: pathlib.Path, contract: CompiledContract) -> Fitted | None:
    """Return the fitted transform of the model below ``folder``; None when there is no model.

    Bins, imputed values and encodings fitted anew would give each column another meaning than the one that
    the parent learned. Raises BadInputError when the workload's features are no longer the parent's.
    """
    archives = sorted(folder.rglob("*.tar.gz")) if folder.is_dir() else []
    if not archives:
        return None
    if len(archives) > 1:
        raise BadInputError(f"the input {folder.name} must hold one model, got {len(archives)}")
    with tempfile.TemporaryDirectory() as name:
        model = pathlib.Path(name)
        unpack(archives[0], model)
        missing = [file for file in (CONTRACT_FILE, FITTED_FILE) if not (model / file).is_file()]
        if missing:
            raise BadInputError(f"the parent model lacks {', '.join(missing)}; no training of ours made it")
        before = json.loads((model / CONTRACT_FILE).read_text())
        fitted = Fitted.from_json((model / FITTED_FILE).read_text())
    now = json.loads(contract.to_json())
    changed = [part for part in _DECIDING if before.get(part) != now[part]]
    if changed:
        raise BadInputError(
            f"the parent model was made of another {', '.join(changed)}; train once without training.parent,"
            " approve that model, and go on from it"
        )
    say("columns as they were fitted for the parent model")
    return fitted
