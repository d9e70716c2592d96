"""Incremental training: the model that the new one goes on from, in the channel ``parent``."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile

from ml_contract.compiled import CompiledContract
from ml_runtime import model as files
from ml_runtime.archive import unpack
from ml_runtime.job import BadInputError, say

from ml_trainer.data import Inputs


@dataclasses.dataclass(frozen=True)
class Parent:
    """A parent model whose files belong to this workload and this transform."""

    folder: pathlib.Path
    training_job: str | None

    def read(self, name: str) -> bytes:
        """Return one of its files, such as ``model.ubj``. Raises BadInputError when it has none."""
        path = self.folder / name
        if not path.is_file():
            raise BadInputError(
                f"the parent model has no {name}: another algorithm made it; train without parent once"
            )
        return path.read_bytes()


def read_parent(inputs: Inputs) -> Parent | None:
    """Return the model of the channel ``parent``; None when the channel brings none: a first training.

    The channel holds ``model.tar.gz`` or the files themselves. Raises BadInputError when the model is of
    another label or another transform: its columns would mean something else.
    """
    channel = inputs.channel("parent")
    archives = sorted(channel.rglob("*.tar.gz")) if channel.is_dir() else []
    if len(archives) > 1:
        names = ", ".join(str(path.relative_to(channel)) for path in archives)
        raise BadInputError(f"the parent channel must hold one model, got {names}")
    folder = channel
    if archives:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="parent-"))
        unpack(archives[0], folder)
    if not (folder / files.METADATA_FILE).is_file():
        if archives:
            raise BadInputError(f"the parent model {archives[0].name} was not made by our training images")
        say("no parent model: training from scratch")
        return None
    _check(inputs, folder)
    job = json.loads((folder / files.METADATA_FILE).read_text()).get("training_job")
    say(f"going on from the model of {job or 'an unnamed training'}")
    return Parent(folder, job)


def _check(inputs: Inputs, folder: pathlib.Path) -> None:
    contract = CompiledContract.from_json((folder / files.CONTRACT_FILE).read_bytes())
    problems = []
    if contract.name != inputs.contract.name:
        problems.append(f"it is of the workload {contract.name}")
    if contract.label != inputs.contract.label:
        problems.append(f"it predicts {contract.label}, this training {inputs.contract.label}")
    if json.loads((folder / files.FITTED_FILE).read_text()) != json.loads(inputs.fitted_text):
        problems.append(
            "its columns were fitted otherwise (bins, imputed values, encodings): what it learned of a column"
            " is not true of the one that this training has; hand the parent's fitted.json to the transform"
            " channel, or train without parent"
        )
    if problems:
        raise BadInputError("the parent model does not fit: " + "; ".join(problems))
