"""AWS IoT Greengrass as far as a deploy meets it: component versions are checked and kept, no device runs
one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Service

__all__ = ["install"]

#: Semantic version, as the recipe reference asks.
_VERSION = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]+)?")
_NAME = re.compile(r"[a-zA-Z0-9-_.]+")


@instead("greengrassv2", "CreateComponentVersion")
def _create(service: Service, call: Call) -> dict[str, Any]:
    recipe = _recipe(call)
    name, version = str(recipe.get("ComponentName", "")), str(recipe.get("ComponentVersion", ""))
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise ApiError("ValidationException", f"{name!r} {version!r} is no component name and version")
    for manifest in recipe.get("Manifests", ()):
        for artifact in manifest.get("Artifacts", ()):
            _require_artifact(service, str(artifact.get("URI", artifact.get("Uri", ""))), call.region)
    key = f"{name}:versions:{version}"
    if service.peek("Component", key) is not None:
        raise ApiError("ConflictException", f"Component [{name} : {version}] for account already exists", 409)
    record = service.put("Component", key, {"componentName": name, "recipe": recipe})
    record.arn = f"arn:aws:greengrass:{call.region}:{service.account}:components:{key}"
    service.runtime.ledger.recorded("component", f"{name} {version}", "no device runs it")
    return {
        "arn": record.arn,
        "componentName": name,
        "componentVersion": version,
        "creationTimestamp": record.created,
        "status": {"componentState": "DEPLOYABLE", "message": "", "errors": {}},
    }


@instead("greengrassv2", "DeleteComponent")
def _delete(service: Service, call: Call) -> dict[str, Any]:
    service.remove("Component", _key(call))
    return {}


@instead("greengrassv2", "GetComponent")
def _get(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Component", _key(call))
    return {"recipeOutputFormat": "JSON", "recipe": json.dumps(record.data["recipe"]).encode(), "tags": {}}


def _key(call: Call) -> str:
    return str(call.params["arn"]).partition(":components:")[2]


def _recipe(call: Call) -> dict[str, Any]:
    text = call.params.get("inlineRecipe", b"")
    try:
        recipe = json.loads(text)
    except ValueError as error:
        raise ApiError("ValidationException", f"the recipe is no JSON: {error}") from error
    if not isinstance(recipe, dict) or recipe.get("RecipeFormatVersion") != "2020-01-25":
        raise ApiError("ValidationException", "RecipeFormatVersion must be 2020-01-25")
    return recipe


def _require_artifact(service: Service, uri: str, region: str) -> None:
    parts = urlsplit(uri)
    s3 = service.runtime.client("s3", region=region)
    try:
        s3.head_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
    except Exception as error:
        raise ApiError(
            "ValidationException", f"artifact {uri} cannot be read, got {error}; put it there first"
        ) from error


def install(runtime: Runtime) -> None:
    """Nothing runs beside the calls."""
    del runtime
