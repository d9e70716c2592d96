"""Where an environment's approved model has its training data, and its endpoint the captured traffic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_contract.compiled import CompiledContract

from tools.start import stack_name

__all__ = ["NothingThereError", "baseline_of", "capture_of"]

#: The statistics of the baseline, beside the folders of the parts that they were made with.
_STATISTICS = "/baseline/statistics.json"


class NothingThereError(Exception):
    """The environment has not what is asked for; the text says what."""


def baseline_of(client: Callable[[str], Any], environment: str, contract: CompiledContract) -> str:
    """S3 folder of the rows that the approved model learned from.

    Where training balanced its classes those rows are no picture of the traffic: the validation part then,
    which the same split made.
    """
    outputs = _outputs(client, environment, contract.name, "Models")
    parameter = outputs["ApprovedModelParameter"]
    package = client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    if not package.startswith("arn:"):
        raise NothingThereError(f"{environment} has approved no model of {contract.name} ({parameter})")
    described = client("sagemaker").describe_model_package(ModelPackageName=package)
    quality = described.get("DriftCheckBaselines", {}).get("ModelDataQuality", {})
    statistics = quality.get("Statistics", {}).get("S3Uri", "")
    if not statistics.endswith(_STATISTICS):
        raise NothingThereError(f"{package} brings no baseline of its data (DriftCheckBaselines)")
    part = "train" if contract.training.get("balance", "none") == "none" else "validation"
    return f"{statistics.removesuffix(_STATISTICS)}/{part}/"


def capture_of(client: Callable[[str], Any], environment: str, contract: CompiledContract) -> str:
    """S3 folder of the endpoint's captured traffic."""
    outputs = _outputs(client, environment, contract.name, "Serving")
    if "EndpointName" not in outputs:
        raise NothingThereError(f"{contract.name} has no endpoint that captures its traffic; name a window")
    name = outputs["EndpointName"]
    capture = client("sagemaker").describe_endpoint(EndpointName=name).get("DataCaptureConfig")
    if capture is None:
        raise NothingThereError(f"the endpoint {name} captures nothing")
    return f"{capture['DestinationS3Uri'].rstrip('/')}/{name}/"


def _outputs(client: Callable[[str], Any], environment: str, workload: str, part: str) -> dict[str, str]:
    name = f"{stack_name(environment, workload).removesuffix('Operations')}{part}"
    stack = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}
