"""A small app that uses each thing the embedded AWS adds: the tests deploy it, change it and destroy it."""

import json
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import (
    aws_ec2 as ec2,
)
from aws_cdk import (
    aws_ecr_assets as ecr_assets,
)
from aws_cdk import (
    aws_events as events,
)
from aws_cdk import (
    aws_events_targets as targets,
)
from aws_cdk import (
    aws_iam as iam,
)
from aws_cdk import (
    aws_kms as kms,
)
from aws_cdk import (
    aws_lakeformation as lakeformation,
)
from aws_cdk import (
    aws_lambda as lambda_,
)
from aws_cdk import (
    aws_s3 as s3,
)
from aws_cdk import (
    aws_sagemaker as sagemaker,
)
from aws_cdk import (
    aws_sqs as sqs,
)
from aws_cdk import (
    aws_ssm as ssm,
)

from constructs import Construct

HERE = Path(__file__).resolve().parent


class Storage(cdk.Stack):
    """What holds data."""

    def __init__(self, scope: Construct, construct_id: str, **kwargs: object) -> None:
        super().__init__(scope, construct_id, **kwargs)
        key = kms.Key(self, "Key", enable_key_rotation=True)
        logs = s3.Bucket(self, "Logs", removal_policy=cdk.RemovalPolicy.DESTROY)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            versioned=True,
            enforce_ssl=True,
            event_bridge_enabled=None,
            server_access_logs_bucket=logs,
            server_access_logs_prefix="bucket/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    prefix="raw/",
                    transitions=[
                        s3.Transition(
                            storage_class=s3.StorageClass.INFREQUENT_ACCESS,
                            transition_after=cdk.Duration.days(30),
                        )
                    ],
                    noncurrent_version_expiration=cdk.Duration.days(90),
                )
            ],
        )
        l1 = self.bucket.node.default_child
        l1.add_property_override(
            "NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled", True
        )
        vpc = ec2.Vpc(self, "Vpc", max_azs=2, nat_gateways=0, restrict_default_security_group=False)
        vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        vpc.add_flow_log("Flow")
        group = ec2.SecurityGroup(self, "Group", vpc=vpc, allow_all_outbound=False)
        group.add_ingress_rule(group, ec2.Port.tcp(443))
        ssm.StringParameter(self, "Approved", parameter_name="/core/approved", string_value="none")
        cdk.CfnOutput(self, "BucketName", value=self.bucket.bucket_name)
        cdk.CfnOutput(self, "VpcCidr", value=vpc.vpc_cidr_block)


class Work(cdk.Stack):
    """What runs."""

    def __init__(self, scope: Construct, construct_id: str, *, bucket: s3.Bucket, **kwargs: object) -> None:
        super().__init__(scope, construct_id, **kwargs)
        function = lambda_.Function(
            self,
            "Probe",
            runtime=lambda_.Runtime.PYTHON_3_13,
            handler="probe.handler.handler",
            code=lambda_.Code.from_asset(str(HERE / "function")),
            timeout=cdk.Duration.seconds(30),
            environment={"BUCKET": bucket.bucket_name},
        )
        bucket.grant_put(function, "allowed/*")
        function.add_to_role_policy(
            iam.PolicyStatement(actions=["sagemaker:DescribeModelPackageGroup"], resources=["*"])
        )
        queue = sqs.Queue(self, "Queue", enforce_ssl=True)
        events.Rule(
            self,
            "Rule",
            event_pattern=events.EventPattern(
                source=["aws.cloudformation"], detail_type=["CloudFormation Stack Status Change"]
            ),
            targets=[targets.SqsQueue(queue)],
        )
        image = ecr_assets.DockerImageAsset(self, "Image", directory=str(HERE / "image"))
        role = iam.Role(self, "Job", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))
        bucket.grant_read_write(role)
        sagemaker.CfnModelPackageGroup(
            self, "Group", model_package_group_name="core-group", model_package_group_description="a group"
        )
        sagemaker.CfnFeatureGroup(
            self,
            "Features",
            feature_group_name="core-features",
            record_identifier_feature_name="id",
            event_time_feature_name="at",
            feature_definitions=[
                {"featureName": "id", "featureType": "String"},
                {"featureName": "at", "featureType": "String"},
            ],
            role_arn=role.role_arn,
            online_store_config={"EnableOnlineStore": True},
            offline_store_config={"S3StorageConfig": {"S3Uri": bucket.s3_url_for_object("offline")}},
        ).node.add_dependency(role)
        sagemaker.CfnPipeline(
            self,
            "Pipeline",
            pipeline_name="core-pipeline",
            role_arn=role.role_arn,
            pipeline_definition={
                "PipelineDefinitionBody": json.dumps(
                    {
                        "Version": "2020-12-01",
                        "Parameters": [],
                        "Steps": [
                            {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "ends here"}}
                        ],
                    }
                )
            },
        )
        lake_role = iam.Role(
            self,
            "Lake",
            assumed_by=iam.CompositePrincipal(
                iam.ServicePrincipal("lakeformation.amazonaws.com"),
                iam.ServicePrincipal("glue.amazonaws.com"),
            ),
        )
        lakeformation.CfnResource(
            self,
            "Location",
            resource_arn=bucket.bucket_arn,
            use_service_linked_role=False,
            role_arn=lake_role.role_arn,
        )
        for name, value in (
            ("FunctionName", function.function_name),
            ("QueueUrl", queue.queue_url),
            ("ImageUri", image.image_uri),
            ("FunctionRole", function.role.role_arn),
            ("JobRole", role.role_arn),
        ):
            cdk.CfnOutput(self, name, value=value)


class Serving(cdk.Stack):
    """What exists only once a parameter is set."""

    def __init__(self, scope: Construct, construct_id: str, **kwargs: object) -> None:
        super().__init__(scope, construct_id, **kwargs)
        approved = cdk.CfnParameter(
            self, "Approved", type="AWS::SSM::Parameter::Value<String>", default="/core/approved"
        )
        condition = cdk.CfnCondition(
            self,
            "IsApproved",
            expression=cdk.Fn.condition_not(cdk.Fn.condition_equals(approved.value_as_string, "none")),
        )
        topic = sqs.CfnQueue(self, "Conditional")
        topic.cfn_options.condition = condition


app = cdk.App()
storage = Storage(app, "CoreStorage")
Work(app, "CoreWork", bucket=storage.bucket)
Serving(app, "CoreServing").add_dependency(storage)
app.synth()
