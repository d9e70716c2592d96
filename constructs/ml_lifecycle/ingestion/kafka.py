"""Kafka as the source: MSK Serverless, and a function that brings its records onto the workload's stream."""

from __future__ import annotations

import re
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_msk as msk
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.alarms import alarm
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.ingestion.stream import StreamIngestion
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, arn
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["KafkaSource"]

_BATCH = 500


class KafkaSource(Construct):
    """Define an MSK Serverless cluster whose topic feeds a workload's stream.

    Producers write to ``topic`` by IAM authentication over TLS (``grant_produce``); a function puts each
    record onto the Kinesis stream of ``ingestion``, and from there nothing differs: one validation, one
    landing, one quarantine. A batch that the stream does not take is brought again, so a record may come
    twice and none is lost. ``dead_letters`` keeps the place in the topic (partition, offset) of a record that
    is longer than the stream takes, and of a batch that Lambda gives up.

    MSK creates no topic by itself: a producer with the grant does, before the first record. Lambda's pollers
    stand in ``subnets`` and in the brokers' security groups, and call Lambda and STS from there (AWS Lambda
    Developer Guide, "Configuring your Amazon MSK cluster and Amazon VPC network for Lambda"): ``clients`` is
    the group that the VPC's endpoints let in. Its members reach the brokers as well.
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
        clients: ec2.ISecurityGroup,
        message_key: kms.IKey,
        log_key: kms.IKey,
        longest_record_kib: int = 1024,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # Amazon MSK API Reference, CreateClusterV2: clusterName.
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
            problems.append(f"name must be 1 to 64 letters, digits and hyphens, got {name!r}")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
            problems.append(
                f"topic must be 1 to 249 letters, digits, dots, hyphens and underscores, got {topic!r}"
            )
        # Kinesis Data Streams, "Quotas and limits": 1 MiB to 10 MiB, as the stream is set.
        if not 1024 <= longest_record_kib <= 10_240:
            problems.append(f"longest_record_kib must be between 1024 and 10240, got {longest_record_kib}")
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
        for peer in (self.security_group, clients):
            self.security_group.add_ingress_rule(peer, brokers, "Clients and pollers")
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
                    security_groups=[self.security_group.security_group_id, clients.security_group_id],
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
                "DEAD_LETTERS_URL": self.dead_letters.queue.queue_url,
            },
        )
        self.alarm = alarm(
            self,
            "DeadLettersWait",
            what="Records of the topic could not be brought onto the stream",
            runbook="dead-letters",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": self.dead_letters.queue.queue_name},
            statistic="Maximum",
            topic=alarm_topic,
        )
        ingestion.grant_put_records(self.function)
        self._grant_poll(subnets, [self.security_group, clients])
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
        # The last part of the cluster's ARN is a UUID that MSK draws; topics and groups have it in theirs.
        drawn = cdk.Fn.select(2, cdk.Fn.split("/", self.cluster.attr_arn))
        return f"arn:{PARTITION}:kafka:{REGION}:{ACCOUNT}:{kind}/{self.name}/{drawn}/{rest}"

    def _grant_poll(self, subnets: Sequence[ec2.ISubnet], groups: Sequence[ec2.ISecurityGroup]) -> None:
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
        topic, group = self._arn("topic", self.topic), self._arn("group", f"{self.name}-bridge")
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
        # Network interfaces of the pollers (Lambda Developer Guide, "Configuring permissions for an Amazon
        # MSK event source mapping").
        interfaces = arn("ec2", "network-interface/*")
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["ec2:CreateNetworkInterface"],
            resource_arns=[
                interfaces,
                *(arn("ec2", f"subnet/{subnet.subnet_id}") for subnet in subnets),
                *(arn("ec2", f"security-group/{group.security_group_id}") for group in groups),
            ],
        )
        iam.Grant.add_to_principal(
            grantee=function, actions=["ec2:DeleteNetworkInterface"], resource_arns=[interfaces]
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
                "Lambda's pollers make network interfaces, whose ids nobody knows before, in these subnets "
                "and groups only; what they describe EC2 lists by account, without a resource.",
                resources=[interfaces, "*"],
            )

    def grant_produce(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant connecting, making the topic and writing to it."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            # Idempotent writes are what producers do by default since Kafka 3.0.
            actions=["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"],
            resource_arns=[self.cluster.attr_arn],
        )
        return grant.combine(
            iam.Grant.add_to_principal(
                grantee=grantee,
                actions=[
                    "kafka-cluster:CreateTopic",
                    "kafka-cluster:DescribeTopic",
                    "kafka-cluster:WriteData",
                ],
                resource_arns=[self._arn("topic", self.topic)],
            )
        )
