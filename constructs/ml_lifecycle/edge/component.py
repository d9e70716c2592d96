"""The approved model as a component of AWS IoT Greengrass."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_greengrassv2 as greengrass
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import code
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn
from ml_lifecycle.serving.approved import Approved
from ml_lifecycle.serving.shelf import ModelShelf
from ml_lifecycle.training.job_role import grant_asset
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["EdgeComponent"]

_PROGRAM = "ml_serving"
#: Installing ONNX Runtime and the rest over a slow line.
_INSTALL_SECONDS = 1_800


class EdgeComponent(Construct):
    """Define the approved model as a Greengrass component: the serving program beside its model, on a device.

    A device runs the very program of the endpoint, listening on 127.0.0.1 only: whoever has a record there
    posts it to ``/invocations`` as it would to the endpoint, and gets the same answer with no line to AWS.
    ONNX is the model's form anyway, so nothing is converted.

    A component version is immutable. Each approval makes version ``1.0.<number of the model package>``; the
    ones before stay, because devices may run them, also when the stack goes. Devices get a version by a
    deployment, which is yours to make (``aws greengrassv2 create-deployment``), and read artifacts as their
    token exchange role: ``grant_device``. They need Python 3.11 or later with ``venv``, and pip's index or a
    mirror of it.

    Example::

        EdgeComponent(
            self, "Edge",
            workload=workload, component_name="dev.claims-fraud", approved=served.approved,
            model_package_group_name=registry.group_name, artifacts=lake.artifacts, log_key=keys.logs,
        )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        component_name: str,
        approved: Approved,
        model_package_group_name: str,
        artifacts: Zone,
        log_key: kms.IKey,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        edge = spec.serving.edge
        if edge is None:
            raise ValueError(f"{spec.name} has no serving.edge; add it to its workload.yaml")
        self.component_name = component_name
        self.shelf = ModelShelf(
            self,
            "Shelf",
            slug=spec.slug,
            folder="edge",
            model_package_group_name=model_package_group_name,
            approved=approved,
            artifacts=artifacts,
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        self.program = s3_assets.Asset(self, "Program", path=str(code.image_context("serving")))
        # arn:{partition}:sagemaker:{region}:{account}:model-package/{group}/{version}
        version = cdk.Fn.select(2, cdk.Fn.split("/", approved.package))
        self.component = greengrass.CfnComponentVersion(
            self,
            "Component",
            inline_recipe=cdk.Stack.of(self).to_json_string(
                {
                    "RecipeFormatVersion": "2020-01-25",
                    "ComponentName": component_name,
                    "ComponentVersion": f"1.0.{version}",
                    "ComponentDescription": spec.title,
                    "ComponentPublisher": spec.owner,
                    "ComponentConfiguration": {"DefaultConfiguration": {"port": edge.port}},
                    "Manifests": [
                        {
                            "Platform": {"os": "linux", "architecture": edge.architecture},
                            "Lifecycle": self._lifecycle(approved),
                            "Artifacts": [
                                {"URI": self.shelf.uri},
                                {"URI": self.program.s3_object_url, "Unarchive": "ZIP"},
                            ],
                        }
                    ],
                }
            ),
        )
        # Greengrass reads the artifacts when the version is made, to note their digests.
        self.component.node.add_dependency(self.shelf)
        self.component.cfn_options.condition = approved.condition
        self.component.apply_removal_policy(cdk.RemovalPolicy.RETAIN)

    def grant_device(self, role: iam.Role) -> iam.Grant:
        """Grant a device's token exchange role reading the component and its artifacts."""
        grant_asset(self.program, role)
        self.shelf.grant_read(role)
        versions = arn("greengrass", f"components:{self.component_name}:versions:*")
        acknowledge_wildcards(
            role,
            "A version's number is not known before it is approved; the component is one.",
            resources=[versions],
        )
        return iam.Grant.add_to_principal(
            grantee=role,
            actions=["greengrass:GetComponent", "greengrass:GetComponentVersionArtifact"],
            resource_arns=[versions],
        )

    @property
    def outputs(self) -> dict[str, str]:
        """Names under which an operator finds the component."""
        return {"EdgeComponentName": self.component_name}

    def _lifecycle(self, approved: Approved) -> dict[str, object]:
        # Recipe variables in braces are Greengrass's ("AWS IoT Greengrass component recipe reference").
        program = f"{{artifacts:decompressedPath}}/{cdk.Fn.select(0, cdk.Fn.split('.', self._file))}"
        python = "{work:path}/venv/bin/python"
        return {
            "install": {
                "Script": f"python3 -m venv {{work:path}}/venv && {python} -m pip install --requirement "
                f"{program}/requirements.txt",
                "Timeout": _INSTALL_SECONDS,
            },
            "run": {
                "Script": f"exec {python} -m {_PROGRAM} serve",
                "Setenv": {
                    "PYTHONPATH": program,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "SERVING_HOST": "127.0.0.1",
                    "SAGEMAKER_BIND_TO_PORT": "{configuration:/port}",
                    "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
                    "MODEL_DATA_URL": f"file://{{artifacts:path}}/{self.shelf.target}",
                    "MODEL_PACKAGE": approved.package,
                },
            },
        }

    @property
    def _file(self) -> str:
        """Name of the program's archive; Greengrass unpacks it into a folder of that name without its end."""
        return self.program.s3_object_key
