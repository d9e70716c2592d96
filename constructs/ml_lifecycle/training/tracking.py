"""SageMaker's managed MLflow: a tracking server that training jobs in the VPC log their runs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn, service_principal

__all__ = ["ServerSize", "TrackingServer"]

#: CreateMlflowTrackingServer, API reference: TrackingServerSize.
ServerSize = Literal["Small", "Medium", "Large"]
_SIZES = ("Small", "Medium", "Large")
#: What a training job calls (Service Authorization Reference, "Amazon SageMaker with MLflow"): it finds or
#: makes its experiment, makes a run, logs to it and ends it.
_LOGGING = (
    "sagemaker-mlflow:CreateExperiment",
    "sagemaker-mlflow:CreateRun",
    "sagemaker-mlflow:GetExperiment",
    "sagemaker-mlflow:GetExperimentByName",
    "sagemaker-mlflow:GetRun",
    "sagemaker-mlflow:LogBatch",
    "sagemaker-mlflow:LogMetric",
    "sagemaker-mlflow:UpdateRun",
)


class TrackingServer(Construct):
    """Define an MLflow tracking server, and the way to it for jobs in the VPC.

    A tracked training job runs in the VPC but not in network isolation, which would cut it off: it reaches
    the server through the interface endpoint defined here and, in isolated subnets, nothing that no endpoint
    leads to. ``grant_log`` lets a job's role log runs.

    Defaults: Small (for up to 25 users by SageMaker's guide; it costs by the hour while it runs), no
    automatic registration of MLflow's models: models are registered by the pipeline, when they are accepted.

    Raises:
        ValueError: a name or a size that SageMaker refuses, or no subnet.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        artifacts: Zone,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        clients: ec2.ISecurityGroup,
        prefix: str = "mlflow/",
        size: ServerSize = "Small",
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # CreateMlflowTrackingServer, API reference: TrackingServerName.
        if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,255}", name):
            problems.append(
                f"name must be 1 to 256 letters, digits and inner hyphens and begin with none, got {name!r}"
            )
        if size not in _SIZES:
            problems.append(f"size must be one of {', '.join(_SIZES)}, got {size!r}")
        if not subnets:
            problems.append("subnets must hold at least one, got none")
        if not prefix.endswith("/") or prefix.startswith("/"):
            problems.append(f"prefix must end with '/' and not start with it, got {prefix!r}")
        if problems:
            raise ValueError("tracking server: " + "; ".join(problems))
        self.name = name
        self.role = iam.Role(
            self,
            "Role",
            description=f"MLflow tracking server {name}: its artifacts",
            assumed_by=service_principal("sagemaker", own_account=True),
        )
        artifacts.grant_read(self.role, prefix)
        artifacts.grant_write(self.role, prefix)
        self.server = sagemaker.CfnMlflowTrackingServer(
            self,
            "Server",
            tracking_server_name=name,
            artifact_store_uri=artifacts.uri(prefix).rstrip("/"),
            role_arn=self.role.role_arn,
            tracking_server_size=size,
            automatic_model_registration=False,
        )
        # The server looks at its store when it starts.
        self.server.node.add_dependency(self.role)
        self.security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description="Endpoint of the tracking server: HTTPS from jobs",
            allow_all_outbound=False,
        )
        self.security_group.add_ingress_rule(clients, ec2.Port.tcp(443), "Jobs")
        self.endpoint = ec2.InterfaceVpcEndpoint(
            self,
            "Endpoint",
            vpc=vpc,
            # aws.sagemaker.<region>.experiments: <region>.experiments.sagemaker.aws, where the client calls.
            service=ec2.InterfaceVpcEndpointAwsService.SAGEMAKER_EXPERIMENTS,
            subnets=ec2.SubnetSelection(subnets=list(subnets)),
            security_groups=[self.security_group],
            private_dns_enabled=True,
            open=False,
        )

    @property
    def server_arn(self) -> str:
        """The server's ARN: what a client takes as its tracking URI."""
        return arn("sagemaker", f"mlflow-tracking-server/{self.name}")

    def grant_log(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant making runs and logging to them; nothing of them can be deleted."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=list(_LOGGING), resource_arns=[self.server_arn]
        )
