"""Models that come and go by request: SageMaker's contract for multi-model containers.

Source: SageMaker developer guide, "Custom Containers Contract for Multi-Model Endpoints". SageMaker unpacks
an archive, says where, and decides which model has to go when another one does not fit.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
from dataclasses import dataclass, field
from typing import Any

import msgspec
from ml_runtime.job import BadInputError, base_folder
from ml_runtime.model import Model

from ml_serving.predictor import JSON_HEADER, Answer, Predictor, RefusedError, failure

__all__ = ["ModelShelf"]

log = logging.getLogger("ml_serving")

#: A model in memory takes about so many times its files: ONNX Runtime keeps the graph and its own form of it.
_MEMORY_PER_BYTE = 3
#: What a request may take beside the models.
_MEMORY_RESERVE = 128 << 20
_MODELS = "/models"
_INVOKE = "/invoke"
#: How a caller of the endpoint names the model; a name of SageMaker's own stands in the path.
TARGET_HEADER = b"x-amzn-sagemaker-target-model"

_encode = msgspec.json.Encoder().encode


class _Load(msgspec.Struct, forbid_unknown_fields=False):
    model_name: str
    url: str


_LOAD = msgspec.json.Decoder(_Load)


@dataclass
class _Shelved:
    model: Model
    url: str
    #: One predictor per name that answers give the model.
    predictors: dict[str | None, Predictor] = field(default_factory=dict)


class ModelShelf:
    """The models of a multi-model container.

    Args:
        group: model package group of the models; answers then name ``<group>/<file name of the target>``.
        threshold: decision threshold of all models; each contract's when not given.
    """

    def __init__(self, *, group: str | None = None, threshold: float | None = None) -> None:
        self._group = group
        self._threshold = threshold
        self._models: dict[str, _Shelved] = {}
        self._loading = asyncio.Lock()
        self._root = (base_folder() / "models").resolve()

    def predictor(self, path: str, target: str | None) -> Predictor | None:
        """Return the predictor that ``/models/<name>/invoke`` means, or None."""
        shelved = self._models.get(path[len(_MODELS) + 1 : -len(_INVOKE)])
        if shelved is None:
            return None
        served_as = None if self._group is None or target is None else self._served_as(target)
        if served_as not in shelved.predictors:
            shelved.predictors[served_as] = Predictor(
                shelved.model, served_as=served_as, threshold=self._threshold
            )
        return shelved.predictors[served_as]

    def _served_as(self, target: str) -> str:
        return f"{self._group}/{target.rpartition('/')[2].removesuffix('.tar.gz')}"

    @staticmethod
    def is_invocation(path: str) -> bool:
        """Whether a path is ``/models/<name>/invoke``."""
        inner = path[len(_MODELS) + 1 : -len(_INVOKE)]
        return path.startswith(f"{_MODELS}/") and path.endswith(_INVOKE) and bool(inner) and "/" not in inner

    async def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer a request of SageMaker's that loads, lists, describes or unloads."""
        try:
            if path == _MODELS:
                _require_method(method, path, "GET", "POST")
                done = self._listed() if method == "GET" else await self._load(body)
            else:
                done = self._one(method, path)
        except RefusedError as error:
            return failure(error.status, str(error))
        return Answer(200, JSON_HEADER, _encode(done))

    def _listed(self) -> dict[str, Any]:
        return {"models": [self._described(name, shelved) for name, shelved in self._models.items()]}

    def _one(self, method: str, path: str) -> dict[str, Any]:
        name = path[len(_MODELS) + 1 :]
        if "/" in name or not name:
            raise RefusedError(
                404, f"the paths are {_MODELS}, {_MODELS}/<name> and {_MODELS}/<name>{_INVOKE}"
            )
        _require_method(method, path, "GET", "DELETE")
        if name not in self._models:
            raise RefusedError(404, f"no model {name} is loaded")
        if method == "GET":
            return self._described(name, self._models[name])
        del self._models[name]
        log.info("model %s is unloaded", name)
        return {}

    @staticmethod
    def _described(name: str, shelved: _Shelved) -> dict[str, Any]:
        return {"modelName": name, "modelUrl": shelved.url}

    async def _load(self, body: bytes) -> dict[str, Any]:
        wanted = _wanted(body)
        folder = pathlib.Path(wanted.url).resolve()
        if self._root not in folder.parents:
            raise RefusedError(400, f"url must be a folder below {self._root}, got {wanted.url!r}")
        async with self._loading:
            if wanted.model_name in self._models:
                raise RefusedError(409, f"model {wanted.model_name} is loaded already")
            needed, free = _MEMORY_RESERVE + _MEMORY_PER_BYTE * _size(folder), _free_memory()
            if needed > free:
                raise RefusedError(507, f"model {wanted.model_name} needs {needed} bytes, {free} are free")
            try:
                model = await asyncio.to_thread(Model.load, folder)
            except BadInputError as error:
                raise RefusedError(400, str(error)) from error
            except MemoryError as error:
                raise RefusedError(507, f"model {wanted.model_name} does not fit into memory") from error
            except Exception as error:
                log.exception("model %s cannot be loaded", wanted.model_name)
                why = "the model cannot be loaded; the log of the endpoint has the reason"
                raise RefusedError(500, why) from error
            self._models[wanted.model_name] = _Shelved(model, wanted.url)
        log.info("model %s is loaded", wanted.model_name)
        return {}


def _wanted(body: bytes) -> _Load:
    try:
        wanted = _LOAD.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, f"the body must be {{model_name, url}}: {error}") from error
    if not wanted.model_name or "/" in wanted.model_name:
        raise RefusedError(400, f"model_name must be a name without slashes, got {wanted.model_name!r}")
    return wanted


def _require_method(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        raise RefusedError(405, f"{path} takes {' and '.join(allowed)}, got {method}")


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _free_memory() -> int:
    """Bytes that are free, for the machine and for the container."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    free = kib * 1024
    # cgroup v2; a container without a limit has no such file, or "max" in it.
    control = pathlib.Path("/sys/fs/cgroup")
    try:
        limit = (control / "memory.max").read_text().strip()
        used = int((control / "memory.current").read_text())
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - used)
