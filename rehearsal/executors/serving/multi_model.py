"""Multi-model endpoints: models below a prefix, each brought into the container when it is asked for.

Source: "Build your own container for SageMaker AI multi-model endpoints" and "multi-model endpoint metrics",
developer guide. A model is named to the container by a hash of where it came from, as SageMaker does; a full
container (507) forgets what was used least recently.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import urllib3

from rehearsal.executors import transfer
from rehearsal.executors.serving import measures, programs
from rehearsal.executors.serving.fleet import Place
from rehearsal.executors.serving.invocations import READY, Sent
from rehearsal.executors.serving.programs import Instance
from rehearsal.services.engine import ApiError

__all__ = ["load"]

_FULL, _THERE = 507, 409
#: What SageMaker waits for a model to load is the invocation's own limit.
_LOAD_SECONDS = programs.INVOCATION_SECONDS


def load(place: Place, params: Mapping[str, Any], sent: Sent) -> Sent:
    """Bring the target model into the instance, if it is not there; the request then goes to it.

    :raises ApiError: there is no such model, or the container does not take it
    """
    program = place.instance.program
    if not program.multi_model:
        return sent
    target = str(params["TargetModel"])
    if target.startswith("/") or ".." in PurePosixPath(target).parts:
        raise ApiError("ValidationError", f"TargetModel is a path below the endpoint's prefix, got {target}")
    instance = place.instance
    name = hashlib.sha256(f"{program.data}|{target}".encode()).hexdigest()[:32]
    waited = time.perf_counter()
    with instance.loading:
        there = name in instance.models
        values: dict[str, tuple[float, str]] = {}
        if there and not program.cached and instance.running == 1:
            # ModelCacheSetting Disabled: no model outlives its invocation.
            values, there = _forget(instance, name), False
        values["ModelCacheHit"] = (float(there), "None")
        if not there:
            values |= _bring(place, instance, target, name)
            values["ModelLoadingWaitTime"] = ((time.perf_counter() - waited) * 1e6, "Microseconds")
        # Used last, so the last to go.
        instance.models[name] = instance.models.pop(name, target)
        values["LoadedModelCount"] = (len(instance.models), "None")
    dimensions = {"EndpointName": place.endpoint.record.name, "VariantName": place.variant.name}
    measures.publish(place.endpoint.service, dimensions, values)
    return replace(sent, path=f"/models/{name}/invoke")


def _bring(place: Place, instance: Instance, target: str, name: str) -> dict[str, tuple[float, str]]:
    """Download a model and have the container load it; the metrics of that."""
    service, program = place.endpoint.service, instance.program
    data = f"{str(program.data).rstrip('/')}/{target}"
    folder = instance.folder.base / "models" / name / "model"
    began = time.perf_counter()
    try:
        programs.fetch_model(service, program, data, folder)
    except transfer.TransferError as error:
        bucket, key = transfer.split_uri(data)
        raise ApiError(
            "ValidationError",
            f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is an "
            "object located at the URL and that the role passed to CreateModel has permissions to download "
            f"the model. {error}",
        ) from error
    loaded = time.perf_counter()
    body = json.dumps({"model_name": name, "url": str(folder)}).encode()
    values = {"ModelDownloadingTime": ((loaded - began) * 1e6, "Microseconds")}
    while True:
        try:
            answer = instance.pool.request(
                "POST",
                "/models",
                body=body,
                headers={"Content-Type": "application/json"},
                timeout=_LOAD_SECONDS,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(
                "ModelNotReadyException", f"the container did not load {target}: {error}", 429
            ) from error
        if answer.status in (200, _THERE):
            break
        if answer.status != _FULL or not instance.models:
            text = answer.data.decode("utf-8", "replace")
            raise ApiError(
                "ModelError",
                f'Received error ({answer.status}) while loading {target} with message "{text}".',
                424,
                members={"OriginalStatusCode": answer.status, "OriginalMessage": text},
            )
        values |= _forget(instance, next(iter(instance.models)))
    values["ModelLoadingTime"] = ((time.perf_counter() - loaded) * 1e6, "Microseconds")
    service.runtime.ledger.ran("model-loaded", place.endpoint.record.name, model=target)
    return values


def _forget(instance: Instance, name: str) -> dict[str, tuple[float, str]]:
    """Have the container unload a model."""
    began = time.perf_counter()
    try:
        instance.pool.request("DELETE", f"/models/{name}", timeout=_LOAD_SECONDS)
    except urllib3.exceptions.HTTPError as error:
        raise ApiError(
            "ModelNotReadyException", f"the container did not unload a model: {error}", 429
        ) from error
    instance.models.pop(name)
    shutil.rmtree(instance.folder.base / "models" / name, ignore_errors=True)
    return {"ModelUnloadingTime": ((time.perf_counter() - began) * 1e6, "Microseconds")}


def _not_ready(text: str) -> ApiError:
    return ApiError("ModelNotReadyException", text, 429)


READY.append(load)
