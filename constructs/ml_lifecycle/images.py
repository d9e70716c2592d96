"""Images that SageMaker runs."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import aws_ecr_assets as ecr_assets

from constructs import Construct
from ml_lifecycle import code

__all__ = ["sagemaker_image"]


def sagemaker_image(
    scope: Construct,
    construct_id: str,
    *,
    image: str,
    platform: ecr_assets.Platform,
    build_args: Mapping[str, str] | None = None,
) -> ecr_assets.DockerImageAsset:
    """Define the image ``containers/<image>``, in the only format that every part of SageMaker takes.

    A builder that keeps its images with containerd, as new Docker installations do, pushes OCI manifests, and
    CreateModel refuses those: "Unsupported manifest media type application/vnd.oci.image.manifest.v1+json"
    (aws/amazon-sagemaker-feedback#180). The output type ``docker`` writes Docker's own. It needs BuildKit.
    ``build_args`` are the Dockerfile's own.
    """
    return ecr_assets.DockerImageAsset(
        scope,
        construct_id,
        directory=str(code.image_context(image)),
        platform=platform,
        outputs=["type=docker"],
        build_args=build_args,
    )
