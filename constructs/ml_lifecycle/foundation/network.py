"""A VPC without a way to the internet, and the doors to AWS's APIs in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge
from ml_lifecycle.foundation.logs import log_group
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, service_principal

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


#: Buckets of AWS that jobs read layers of images from ("Minimum Amazon S3 bucket permissions for Amazon ECR",
#: Amazon ECR User Guide).
_LAYERS = f"arn:{PARTITION}:s3:::prod-{REGION}-starport-layer-bucket/*"


@dataclass(frozen=True, kw_only=True)
class Perimeter:
    """What endpoints let through: calls of own principals on own resources.

    Own are those of the account or, with ``organization_id``, of the organisation. ``more_buckets`` are names
    of foreign buckets whose objects may be read; ECR's bucket of image layers always may.
    """

    organization_id: str | None = None
    more_buckets: tuple[str, ...] = ()

    def _own(self) -> dict[str, str]:
        if self.organization_id is not None:
            return {"aws:PrincipalOrgID": self.organization_id, "aws:ResourceOrgID": self.organization_id}
        return {"aws:PrincipalAccount": ACCOUNT, "aws:ResourceAccount": ACCOUNT}

    def statements(self, *, s3: bool = False) -> list[iam.PolicyStatement]:
        """Return the policy of an endpoint; ``s3`` is that of S3."""
        anyone = iam.AnyPrincipal()
        found = [
            iam.PolicyStatement(
                sid="OwnOnOwn",
                principals=[anyone],
                actions=["*"],
                resources=["*"],
                conditions={"StringEquals": self._own()},
            )
        ]
        if s3:
            found.append(
                iam.PolicyStatement(
                    sid="ReadOthers",
                    principals=[anyone],
                    actions=["s3:GetObject"],
                    resources=[
                        _LAYERS,
                        *(f"arn:{PARTITION}:s3:::{bucket}/*" for bucket in self.more_buckets),
                    ],
                )
            )
            if self.more_buckets:
                found.append(
                    iam.PolicyStatement(
                        sid="ListOthers",
                        principals=[anyone],
                        actions=["s3:GetBucketLocation", "s3:ListBucket"],
                        resources=[f"arn:{PARTITION}:s3:::{bucket}" for bucket in self.more_buckets],
                    )
                )
        return found


@dataclass(frozen=True, kw_only=True)
class ExistingVpc:
    """A VPC that is there, by ids: synthesis asks nobody. One subnet per zone, in the same order."""

    vpc_id: str
    cidr: str
    subnet_ids: tuple[str, ...]
    availability_zones: tuple[str, ...]
    s3_prefix_list_id: str


class Network(Construct):
    """Define a VPC with isolated subnets, endpoints, flow logs and a security group for jobs.

    Default: two zones, gateway endpoints for S3 and DynamoDB (free), interface endpoints for what jobs call
    (about 0.01 USD per hour and zone each), no NAT and no internet gateway. ``job_security_group`` lets
    members talk to each other (Spark) and out on 443; in isolated subnets 443 leads to the endpoints and
    nowhere else. ``pollers`` adds Lambda's endpoint, which a ``KafkaSource`` needs. ``perimeter`` ends what
    endpoints let through; AWS's default is everything.

    With ``existing`` a VPC that is there is used: only ``job_security_group`` is made, which leads out on 443
    to the VPC and to S3's prefix list; endpoints, flow logs and routes are its owner's.
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
        perimeter: Perimeter | None = None,
        existing: ExistingVpc | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        if not 1 <= max_azs <= 3:
            raise ValueError(
                f"max_azs must be between 1 and 3, got {max_azs}; give availability_zones to name them"
            )
        if existing is not None and perimeter is not None:
            raise ValueError("perimeter must be None with existing, got both; its endpoints are its owner's")
        self._perimeter = perimeter
        if existing is not None:
            self.vpc: ec2.IVpc = ec2.Vpc.from_vpc_attributes(
                self,
                "Vpc",
                vpc_id=existing.vpc_id,
                vpc_cidr_block=existing.cidr,
                availability_zones=list(existing.availability_zones),
                isolated_subnet_ids=list(existing.subnet_ids),
            )
            cdk.Validations.of(self).acknowledge(
                cdk.Acknowledgment(
                    id="Annotation::@aws-cdk/aws-ec2:noSubnetRouteTableId",
                    reason="Routes are the owner's; nothing here reads or changes a route table.",
                )
            )
            self.subnets = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
            self.job_security_group = self._job_security_group()
            for peer, why in (
                (ec2.Peer.ipv4(existing.cidr), "Endpoints in the VPC"),
                (ec2.Peer.prefix_list(existing.s3_prefix_list_id), "S3's gateway endpoint"),
            ):
                self.job_security_group.add_egress_rule(peer, ec2.Port.tcp(443), why)
            return
        if availability_zones is None:
            # Not stack.availability_zones: in a stack with an account and a region it asks AWS, and
            # synthesis asks nobody.
            zones = cdk.Fn.get_azs()
            availability_zones = [cdk.Fn.select(index, zones) for index in range(max_azs)]
        vpc = self.vpc = ec2.Vpc(
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
        acknowledge(
            vpc,
            "VPCDefaultSecurityGroupClosed",
            "Nothing is in the default group: jobs and endpoints name their own, and subnets have no exit.",
            packs=COMPLIANCE,
        )
        self._keep_perimeter(vpc)
        self.subnets = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        self.flow_log_group = log_group(self, "FlowLogs", key=log_key, retention_days=log_retention_days)
        self._flow_logs()
        self.job_security_group = self._job_security_group()
        self.job_security_group.add_egress_rule(
            ec2.Peer.any_ipv4(),
            ec2.Port.tcp(443),
            "S3's gateway endpoint has public addresses; no route leads beyond",
        )
        if interface_endpoints:
            # Lambda's pollers of a Kafka cluster call Lambda itself; nothing else in the VPC does.
            more = {"Lambda": "lambda"} if pollers else {}
            self._interface_endpoints({**INTERFACE_ENDPOINTS, **more})

    def _job_security_group(self) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            "JobSecurityGroup",
            vpc=self.vpc,
            description="Jobs: each other, and HTTPS to the endpoints",
            allow_all_outbound=False,
        )
        group.add_ingress_rule(group, ec2.Port.all_tcp(), "Between the nodes of a job")
        group.add_egress_rule(group, ec2.Port.all_tcp(), "Between the nodes of a job")
        return group

    def _keep_perimeter(self, vpc: ec2.Vpc) -> None:
        if self._perimeter is None:
            return
        for name in ("S3", "DynamoDb"):
            endpoint = vpc.node.find_child(name)
            if not isinstance(endpoint, ec2.GatewayVpcEndpoint):
                raise TypeError(f"{endpoint.node.path} must be a gateway endpoint")
            for statement in self._perimeter.statements(s3=name == "S3"):
                endpoint.add_to_policy(statement)

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
            endpoint = ec2.InterfaceVpcEndpoint(
                self,
                construct_id,
                vpc=self.vpc,
                service=ec2.InterfaceVpcEndpointAwsService(service),
                subnets=self.subnets,
                security_groups=[group],
                private_dns_enabled=True,
                open=False,
            )
            if self._perimeter is not None:
                for statement in self._perimeter.statements():
                    endpoint.add_to_policy(statement)
