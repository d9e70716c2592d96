"""A VPC without a way to the internet, and the doors to AWS's APIs in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.foundation.logs import log_group
from ml_lifecycle.pseudo import service_principal

#: The APIs that jobs inside the VPC call: construct id -> service name of the interface endpoint.
INTERFACE_ENDPOINTS: dict[str, str] = {
    "Logs": "logs",
    "Monitoring": "monitoring",
    "Kms": "kms",
    "Sts": "sts",
    "Glue": "glue",
    "SageMakerApi": "sagemaker.api",
    "SageMakerRuntime": "sagemaker.runtime",
    "FeatureStore": "sagemaker.featurestore-runtime",
    "Ssm": "ssm",
    "EcrApi": "ecr.api",
    "EcrDocker": "ecr.dkr",
}


class Network(Construct):
    """Define a VPC with isolated subnets, endpoints, flow logs and a security group for jobs.

    Default: two zones, gateway endpoints for S3 and DynamoDB (free), interface endpoints for what jobs call
    (about 0.01 USD per hour and zone each), no NAT and no internet gateway. ``job_security_group`` lets
    members talk to each other (Spark) and out on 443; in isolated subnets 443 leads to the endpoints and
    nowhere else. ``pollers`` adds Lambda's endpoint, which a ``KafkaSource`` needs.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        log_key: kms.IKey,
        cidr: str = "10.0.0.0/16",
        max_azs: int = 2,
        interface_endpoints: bool = True,
        log_retention_days: int = 90,
        availability_zones: Sequence[str] | None = None,
        pollers: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        if not 1 <= max_azs <= 3:
            raise ValueError(
                f"max_azs must be between 1 and 3, got {max_azs}; give availability_zones to name them"
            )
        if availability_zones is None:
            # Not stack.availability_zones: in a stack with an account and a region it asks AWS, and
            # synthesis asks nobody.
            zones = cdk.Fn.get_azs()
            availability_zones = [cdk.Fn.select(index, zones) for index in range(max_azs)]
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(cidr),
            availability_zones=list(availability_zones),
            nat_gateways=0,
            # Emptying the default group takes a custom resource; nothing here uses that group.
            restrict_default_security_group=False,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24
                )
            ]
            if int(cidr.rpartition("/")[2]) <= 20
            else [ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)],
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3),
                "DynamoDb": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.DYNAMODB),
            },
        )
        self.subnets = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        self.flow_log_group = log_group(self, "FlowLogs", key=log_key, retention_days=log_retention_days)
        self._flow_logs()
        self.job_security_group = ec2.SecurityGroup(
            self,
            "JobSecurityGroup",
            vpc=self.vpc,
            description="Jobs: each other, and HTTPS to the endpoints",
            allow_all_outbound=False,
        )
        self.job_security_group.add_ingress_rule(
            self.job_security_group, ec2.Port.all_tcp(), "Between the nodes of a job"
        )
        self.job_security_group.add_egress_rule(
            self.job_security_group, ec2.Port.all_tcp(), "Between the nodes of a job"
        )
        self.job_security_group.add_egress_rule(
            ec2.Peer.any_ipv4(),
            ec2.Port.tcp(443),
            "S3's gateway endpoint has public addresses; no route leads beyond",
        )
        if interface_endpoints:
            # Lambda's pollers of a Kafka cluster call Lambda itself; nothing else in the VPC does.
            more = {"Lambda": "lambda"} if pollers else {}
            self._interface_endpoints({**INTERFACE_ENDPOINTS, **more})

    def _flow_logs(self) -> None:
        role = iam.Role(
            self,
            "FlowLogRole",
            assumed_by=service_principal("vpc-flow-logs", own_account=True),
        )
        # The group's ARN ends in ":*" (every stream of it), which is how CloudWatch Logs names the group in
        # policies.
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
            resource_arns=[self.flow_log_group.log_group_arn],
        )
        flow_log = ec2.CfnFlowLog(
            self,
            "FlowLog",
            resource_id=self.vpc.vpc_id,
            resource_type="VPC",
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_group_name=self.flow_log_group.log_group_name,
            deliver_logs_permission_arn=role.role_arn,
        )
        flow_log.node.add_dependency(role)

    def _interface_endpoints(self, services: Mapping[str, str]) -> None:
        group = ec2.SecurityGroup(
            self,
            "EndpointSecurityGroup",
            vpc=self.vpc,
            description="Interface endpoints: HTTPS from jobs",
            allow_all_outbound=False,
        )
        group.add_ingress_rule(self.job_security_group, ec2.Port.tcp(443), "Jobs")
        for construct_id, service in services.items():
            ec2.InterfaceVpcEndpoint(
                self,
                construct_id,
                vpc=self.vpc,
                service=ec2.InterfaceVpcEndpointAwsService(service),
                subnets=self.subnets,
                security_groups=[group],
                private_dns_enabled=True,
                open=False,
            )
