"""Kafka as the source: MSK Serverless, and a function that brings its records onto the workload's stream."""

from __future__ import annotations

import re
from collections.abc import Sequence

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_msk as msk

from constructs import Construct
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.ingestion.stream import StreamIngestion
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["KafkaSource"]

_BATCH = 500


class KafkaSource(Construct):
    """Define an MSK Serverless cluster whose topic feeds a workload's stream.

    Producers write to ``topic`` by IAM authentication over TLS (``grant_produce``); a function puts each
    record onto the Kinesis stream of ``ingestion``, and from there nothing differs: one validation, one
    landing, one quarantine. A batch that the stream does not take is brought again, so a record may come
    twice and none is lost; one that fails until it leaves the topic has its place kept in a queue.

    MSK creates no topic by itself: a producer with the grant does, before the first record. Lambda's pollers
    stand in ``subnets`` and need its own, STS's and the cluster's endpoints there (AWS Lambda Developer
    Guide, "Configuring Amazon MSK event sources").
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        topic: str,
        ingestion: StreamIngestion,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        message_key: kms.IKey,
        log_key: kms.IKey,
        longest_record_kib: int = 1024,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
            problems.append(
                f"topic must be 1 to 249 letters, digits, dots, hyphens and underscores, got {topic!r}"
            )
        # Amazon MSK Developer Guide, "MSK Serverless": at least two subnets in different zones.
        if len(subnets) < 2:
            problems.append(f"subnets must stand in two availability zones at least, got {len(subnets)}")
        if problems:
            raise ValueError("kafka source: " + "; ".join(problems))
        self.topic = topic
        self.security_group = ec2.SecurityGroup(
            self, "SecurityGroup", vpc=vpc, description=f"Brokers of {name}", allow_all_outbound=False
        )
        # 9098: brokers with IAM authentication ("Port information").
        brokers = ec2.Port.tcp(9098)
        self.security_group.add_ingress_rule(
            self.security_group, brokers, "Clients, Lambda's pollers among them"
        )
        self.security_group.add_egress_rule(self.security_group, brokers, "Brokers")
        self.security_group.add_egress_rule(
            ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "Endpoints of AWS services"
        )
        props = msk.CfnServerlessCluster
        self.cluster = props(
            self,
            "Cluster",
            cluster_name=name,
            client_authentication=props.ClientAuthenticationProperty(
                sasl=props.SaslProperty(iam=props.IamProperty(enabled=True))
            ),
            vpc_configs=[
                props.VpcConfigProperty(
                    subnet_ids=[subnet.subnet_id for subnet in subnets],
                    security_groups=[self.security_group.security_group_id],
                )
            ],
        )
        self.name = name
        self.dead_letters = DeadLetterQueue(self, "GivenUp", key=message_key)
        self.function = zip_function(
            self,
            "Bridge",
            package="kafka_bridge",
            description=f"Brings records of the topic {topic} onto {ingestion.stream.node.id}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "STREAM_NAME": ingestion.stream_name,
                "LONGEST_RECORD": str(longest_record_kib * 1024),
            },
        )
        ingestion.grant_put_records(self.function)
        self._grant_poll()
        self.dead_letters.grant_send(self.function)
        mapping = lambda_.CfnEventSourceMapping
        self.mapping = mapping(
            self,
            "Mapping",
            function_name=self.function.function_name,
            event_source_arn=self.cluster.attr_arn,
            topics=[topic],
            starting_position="TRIM_HORIZON",
            batch_size=_BATCH,
            amazon_managed_kafka_event_source_config=mapping.AmazonManagedKafkaEventSourceConfigProperty(
                consumer_group_id=f"{name}-bridge"
            ),
            destination_config=mapping.DestinationConfigProperty(
                on_failure=mapping.OnFailureProperty(destination=self.dead_letters.queue.queue_arn)
            ),
        )
        if self.function.role is not None:
            self.mapping.node.add_dependency(self.function.role)

    def _arn(self, kind: str, rest: str) -> str:
        # The last part of the cluster's ARN is a UUID that MSK draws.
        return f"arn:{PARTITION}:kafka:{REGION}:{ACCOUNT}:{kind}/{self.name}/*{rest}"

    def _grant_poll(self) -> None:
        function = self.function
        iam.Grant.add_to_principal(
            grantee=function,
            actions=[
                "kafka:DescribeClusterV2",
                "kafka:GetBootstrapBrokers",
                "kafka-cluster:Connect",
                "kafka-cluster:DescribeClusterDynamicConfiguration",
            ],
            resource_arns=[self.cluster.attr_arn],
        )
        topic, group = self._arn("topic", f"/{self.topic}"), self._arn("group", f"/{self.name}-bridge")
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"],
            resource_arns=[topic],
        )
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup"],
            resource_arns=[group],
        )
        # Network interfaces of the pollers; EC2 knows no resource for these (Lambda Developer Guide, "Amazon
        # MSK: permissions").
        anywhere = f"arn:{PARTITION}:ec2:{REGION}:{ACCOUNT}:*"
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"],
            resource_arns=[anywhere],
        )
        iam.Grant.add_to_principal(
            grantee=function,
            actions=[
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
            resource_arns=["*"],
        )
        if function.role is not None:
            acknowledge_wildcards(
                function.role,
                "The ARNs of topics and groups hold a UUID that MSK draws when the cluster is made, behind the "
                "cluster's own name; Lambda's pollers make network interfaces of ids nobody knows, "
                "and describe what EC2 lists by account only.",
                resources=[topic, group, anywhere, "*"],
            )

    def grant_produce(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant connecting, making the topic and writing to it."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee, actions=["kafka-cluster:Connect"], resource_arns=[self.cluster.attr_arn]
        )
        return grant.combine(
            iam.Grant.add_to_principal(
                grantee=grantee,
                actions=[
                    "kafka-cluster:CreateTopic",
                    "kafka-cluster:DescribeTopic",
                    "kafka-cluster:WriteData",
                ],
                resource_arns=[self._arn("topic", f"/{self.topic}")],
            )
        )
