"""Models and endpoint configurations: what SageMaker checks before it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rehearsal.executors import registry
from rehearsal.executors.serving.programs import model_containers
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

__all__ = ["create_config", "create_model", "is_asynchronous", "is_serverless"]

_SHADOW_EXCLUDES = "shadow variants take neither serverless nor asynchronous nor multi-model variants"


def _refuse(message: str) -> ApiError:
    return ApiError("ValidationException", message)


@instead("sagemaker", "CreateModel")
def create_model(service: Service, call: Call) -> dict[str, Any]:
    """Keep a model; a package it is made from must be approved."""
    params = call.params
    given = model_containers(params)
    if not given:
        raise _refuse("a model needs PrimaryContainer or Containers")
    if "PrimaryContainer" in params and "Containers" in params:
        raise _refuse("give PrimaryContainer or Containers, not both")
    if "ExecutionRoleArn" not in params:
        raise _refuse("ExecutionRoleArn is required to run the containers of a model")
    for container in given:
        if ("ModelPackageName" in container) == ("Image" in container):
            raise _refuse("a container takes exactly one of Image and ModelPackageName")
        if "ModelPackageName" in container:
            registry.approved_containers(service, container["ModelPackageName"])
        if container.get("Mode") == "MultiModel":
            if "ModelDataUrl" not in container or container["ModelDataUrl"].endswith(".tar.gz"):
                raise _refuse(
                    "a MultiModel container takes the S3 prefix of its archives as ModelDataUrl, got "
                    f"{container.get('ModelDataUrl')}"
                )
        elif "MultiModelConfig" in container:
            raise _refuse("MultiModelConfig needs Mode MultiModel")
    return service.generic(call)


def is_serverless(config: Mapping[str, Any]) -> bool:
    """Whether an endpoint configuration is serverless."""
    return any("ServerlessConfig" in variant for variant in config["ProductionVariants"])


def is_asynchronous(config: Mapping[str, Any]) -> bool:
    """Whether an endpoint configuration is asynchronous."""
    return bool(config.get("AsyncInferenceConfig"))


@instead("sagemaker", "CreateEndpointConfig")
def create_config(service: Service, call: Call) -> dict[str, Any]:
    """Keep a configuration whose models exist."""
    params = call.params
    production = params["ProductionVariants"]
    variants = [*production, *params.get("ShadowProductionVariants", ())]
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) != len(names):
        raise _refuse(f"Variant names must be unique, got {', '.join(names)}")
    for variant in variants:
        _check_variant(service, params, variant)
    if is_serverless(params):
        _check_serverless(service, params)
    if params.get("ShadowProductionVariants"):
        _check_shadow(service, params)
    if is_asynchronous(params):
        _check_asynchronous(params)
    if params.get("ExplainerConfig"):
        service.runtime.ledger.recorded(
            "endpoint-config", params["EndpointConfigName"], "ExplainerConfig was kept, but is not acted upon"
        )
    return service.generic(call)


def _check_variant(service: Service, params: Mapping[str, Any], variant: Mapping[str, Any]) -> None:
    name = variant["VariantName"]
    if ("ServerlessConfig" in variant) == ("InstanceType" in variant or "InstancePools" in variant):
        raise _refuse(f"variant {name} takes exactly one of InstanceType and ServerlessConfig")
    if "InstancePools" in variant:
        raise _refuse(f"variant {name}: the rehearsal serves one InstanceType, not InstancePools")
    if "ModelName" not in variant:
        # Inference components bring the models (developer guide, "Deploy models with inference components").
        if "ServerlessConfig" in variant:
            raise _refuse(f"variant {name} needs ModelName")
        if "ExecutionRoleArn" not in params:
            raise _refuse(f"variant {name} has no ModelName: ExecutionRoleArn of the configuration is needed")
        return
    if service.peek("Model", variant["ModelName"]) is None:
        raise _refuse(f'Could not find model "{variant["ModelName"]}".')
    if "InstanceType" in variant and "InitialInstanceCount" not in variant:
        raise _refuse(f"variant {name} needs InitialInstanceCount")
    if "ManagedInstanceScaling" in variant:
        raise _refuse(f"variant {name}: ManagedInstanceScaling is for variants without ModelName")


def _check_serverless(service: Service, params: Mapping[str, Any]) -> None:
    """Developer guide, "Deploy models with Amazon SageMaker Serverless Inference", feature exclusions."""
    given = params["ProductionVariants"]
    if len(given) > 1:
        raise _refuse(f"a serverless endpoint has one production variant, got {len(given)}")
    for key in ("DataCaptureConfig", "AsyncInferenceConfig", "ShadowProductionVariants", "VpcConfig"):
        if params.get(key):
            raise _refuse(f"serverless endpoints take no {key}")
    serverless = given[0]["ServerlessConfig"]
    memory = serverless["MemorySizeInMB"]
    if memory % 1024:
        raise _refuse(f"MemorySizeInMB must be 1024, 2048, 3072, 4096, 5120 or 6144, got {memory}")
    if serverless.get("ProvisionedConcurrency", 0) > serverless["MaxConcurrency"]:
        raise _refuse(
            f"ProvisionedConcurrency {serverless['ProvisionedConcurrency']} must not exceed MaxConcurrency "
            f"{serverless['MaxConcurrency']}"
        )
    model = service.get("Model", given[0]["ModelName"])
    if model.data.get("VpcConfig"):
        raise _refuse(f"serverless endpoints take no model in a VPC: {model.name} has VpcConfig")
    if model.data.get("EnableNetworkIsolation"):
        raise _refuse(f"serverless endpoints take no isolated model: {model.name} has EnableNetworkIsolation")
    if _multi_model(model) or len(model_containers(model.data)) > 1:
        raise _refuse(f"serverless endpoints take models of one container, {model.name} is none")


def _check_shadow(service: Service, params: Mapping[str, Any]) -> None:
    """CreateEndpointConfig, ShadowProductionVariants; developer guide, "Shadow tests"."""
    counts = len(params["ProductionVariants"]), len(params["ShadowProductionVariants"])
    if counts != (1, 1):
        raise _refuse(
            "with ShadowProductionVariants there is one production variant and one shadow variant, got "
            f"{counts[0]} and {counts[1]}"
        )
    for variant in (*params["ProductionVariants"], *params["ShadowProductionVariants"]):
        if is_asynchronous(params) or "ServerlessConfig" in variant or "ModelName" not in variant:
            raise _refuse(_SHADOW_EXCLUDES)
        if _multi_model(service.get("Model", variant["ModelName"])):
            raise _refuse(_SHADOW_EXCLUDES)


def _check_asynchronous(params: Mapping[str, Any]) -> None:
    config = params["AsyncInferenceConfig"]
    if len(params["ProductionVariants"]) > 1:
        raise _refuse("an asynchronous endpoint has one production variant")
    if "ModelName" not in params["ProductionVariants"][0]:
        raise _refuse("an asynchronous endpoint takes no inference components")
    for key in ("S3OutputPath", "S3FailurePath"):
        if not config["OutputConfig"].get(key, "s3://").startswith("s3://"):
            raise _refuse(f"{key} must be an S3 URI, got {config['OutputConfig'][key]}")


def _multi_model(model: Record) -> bool:
    return any(container.get("Mode") == "MultiModel" for container in model_containers(model.data))
