"""Managed Airflow (MWAA) that starts training pipelines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_mwaa as mwaa
from aws_cdk import aws_s3_assets as s3_assets

from constructs import Construct
from ml_lifecycle import code
from ml_lifecycle.pseudo import PARTITION, REGION, arn, service_principal
from ml_lifecycle.training.pipeline import TrainingPipeline
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["AirflowOrchestration", "dag_folder"]

#: Amazon MWAA User Guide, "Creating the required VPC service endpoints in an Amazon VPC with private
#: routing", beyond those that jobs use.
_ENDPOINTS = {"Queues": "sqs", "AirflowApi": "airflow.api", "AirflowEnvironment": "airflow.env"}


def _dag() -> Path:
    return code.code_root("dags") / "train_models.py"


def dag_folder() -> str:
    """Return the folder of the DAG in the bucket of assets: another DAG lies in another folder.

    A stack with an ``AirflowOrchestration`` takes it as its synthesizer's ``bucket_prefix``: Airflow reads a
    folder, and assets of one stack can be given one.
    """
    return f"airflow/{hashlib.sha256(_dag().read_bytes()).hexdigest()[:16]}/"


class AirflowOrchestration(Construct):
    """Define an MWAA environment with a DAG per pipeline, in private subnets, its web server too.

    The DAG file is an asset of the stack, which must be made with ``DefaultStackSynthesizer(
    bucket_prefix=dag_folder())``. Default: the smallest class but one, two workers at most, all five logs.
    Airflow's role may start the pipelines given and see how they go on, and nothing else of SageMaker.

    Raises:
        ValueError: no pipeline, less than two subnets.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        pipelines: Sequence[TrainingPipeline],
        key: kms.IKey,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        version: str = "2.10.3",
        environment_class: str = "mw1.small",
        max_workers: int = 2,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if not pipelines:
            problems.append("pipelines must hold at least one, got none")
        # CreateEnvironment, NetworkConfiguration: two subnets in different zones.
        if len(subnets) < 2:
            problems.append(f"subnets must be at least 2, got {len(subnets)}")
        if problems:
            raise ValueError("airflow: " + "; ".join(problems))
        self.name = name
        self.dag = s3_assets.Asset(self, "Dag", path=str(_dag()))
        group = self._network(vpc, subnets)
        self.role = self._role(pipelines, key)
        module = mwaa.CfnEnvironment.ModuleLoggingConfigurationProperty(enabled=True, log_level="INFO")
        self.environment = mwaa.CfnEnvironment(
            self,
            "Environment",
            name=name,
            airflow_version=version,
            environment_class=environment_class,
            max_workers=max_workers,
            min_workers=1,
            execution_role_arn=self.role.role_arn,
            kms_key=key.key_arn,
            source_bucket_arn=self.dag.bucket.bucket_arn,
            dag_s3_path=dag_folder().rstrip("/"),
            webserver_access_mode="PRIVATE_ONLY",
            airflow_configuration_options={
                "training.pipelines": json.dumps([pipeline.pipeline_name for pipeline in pipelines])
            },
            network_configuration=mwaa.CfnEnvironment.NetworkConfigurationProperty(
                # Exactly two.
                subnet_ids=[subnet.subnet_id for subnet in subnets[:2]],
                security_group_ids=[group.security_group_id],
            ),
            logging_configuration=mwaa.CfnEnvironment.LoggingConfigurationProperty(
                dag_processing_logs=module,
                scheduler_logs=module,
                task_logs=module,
                webserver_logs=module,
                worker_logs=module,
            ),
        )
        self.environment.node.add_dependency(self.role)

    def _network(self, vpc: ec2.IVpc, subnets: Sequence[ec2.ISubnet]) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            "Group",
            vpc=vpc,
            description="Airflow: itself and HTTPS to the endpoints",
            allow_all_outbound=False,
        )
        group.add_ingress_rule(group, ec2.Port.all_tcp(), "Between scheduler, workers and database")
        group.add_egress_rule(group, ec2.Port.all_tcp(), "Between scheduler, workers and database")
        group.add_egress_rule(
            ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "S3's gateway endpoint has public addresses"
        )
        for endpoint_id, service in _ENDPOINTS.items():
            ec2.InterfaceVpcEndpoint(
                self,
                endpoint_id,
                vpc=vpc,
                service=ec2.InterfaceVpcEndpointAwsService(service),
                subnets=ec2.SubnetSelection(subnets=list(subnets)),
                security_groups=[group],
                private_dns_enabled=True,
                open=False,
            )
        return group

    def _role(self, pipelines: Sequence[TrainingPipeline], key: kms.IKey) -> iam.Role:
        """Amazon MWAA User Guide, "Amazon MWAA execution role"."""
        role = iam.Role(
            self,
            "Role",
            description=f"Airflow {self.name}: starts training pipelines",
            assumed_by=iam.CompositePrincipal(
                service_principal("airflow", own_account=True),
                service_principal("airflow-env", own_account=True),
            ),
        )
        for pipeline in pipelines:
            pipeline.grant_start(role)
        executions = [arn("sagemaker", f"pipeline/{p.pipeline_name}/execution/*") for p in pipelines]
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["sagemaker:DescribePipelineExecution", "sagemaker:StopPipelineExecution"],
            resource_arns=executions,
        )
        folder = self.dag.bucket.arn_for_objects(f"{dag_folder()}*")
        iam.Grant.add_to_principal(
            grantee=role, actions=["s3:GetObject", "s3:GetObjectVersion"], resource_arns=[folder]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            # Airflow lists its bucket and asks for its public access block before it reads.
            actions=["s3:GetBucketPublicAccessBlock", "s3:GetBucketVersioning", "s3:ListBucket"],
            resource_arns=[self.dag.bucket.bucket_arn],
        )
        logs = arn("logs", f"log-group:airflow-{self.name}-*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:GetLogEvents",
                "logs:GetLogGroupFields",
                "logs:GetLogRecord",
                "logs:GetQueryResults",
                "logs:PutLogEvents",
            ],
            resource_arns=[logs],
        )
        environment = arn("airflow", f"environment/{self.name}")
        iam.Grant.add_to_principal(
            grantee=role, actions=["airflow:PublishMetrics"], resource_arns=[environment]
        )
        # The queue of tasks is in an account of the service's own.
        queues = f"arn:{PARTITION}:sqs:{REGION}:*:airflow-celery-*"
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "sqs:ChangeMessageVisibility",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
                "sqs:ReceiveMessage",
                "sqs:SendMessage",
            ],
            resource_arns=[queues],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"],
            resource_arns=[key.key_arn],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            # Neither knows resources (Service Authorization Reference).
            actions=["cloudwatch:PutMetricData", "logs:DescribeLogGroups"],
            resource_arns=["*"],
        )
        acknowledge_wildcards(
            role,
            "Executions and log groups are named by their services below fixed prefixes, the queues lie "
            "in an account of MWAA; the rest of the wildcards are of actions without resources.",
            resources=[*executions, folder, logs, queues, "*"],
        )
        return role
