"""What a rule is given and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from cost.assembly import Resource, Stack
from cost.load import Assumptions, Load

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["FREE", "RULES", "Context", "State", "Usage", "priced"]

#: When it is billed: always; once a model is approved and served; with what the workload's load adds.
State = Literal["rest", "serving", "load"]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """``quantity`` units a month of a price. ``price`` is its id; one that no table has is not priced."""

    price: str
    quantity: float
    why: str
    state: State = "rest"


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a resource stands. ``load`` and ``workload`` are None in stacks that all workloads share."""

    stack: Stack
    load: Load | None
    workload: Workload | None
    assumptions: Assumptions
    #: Of every workload, for what is shared.
    loads: Mapping[str, Load]

    @property
    def records(self) -> float:
        """Records a month."""
        return 0 if self.load is None else self.load.records

    @property
    def predictions(self) -> float:
        """Predictions a month."""
        return 0 if self.load is None else self.load.predictions

    @property
    def gb(self) -> float:
        """GB of records a month."""
        return 0 if self.load is None else self.load.gb


Rule = Callable[[Resource, Context], Iterator[Usage]]

#: Type of resource -> its rule.
RULES: Final[dict[str, Rule]] = {}


def priced(*types: str) -> Callable[[Rule], Rule]:
    """Register the rule of a type."""

    def register(rule: Rule) -> Rule:
        for kind in types:
            RULES[kind] = rule
        return rule

    return register


_SETTING = "a setting; what it allows or starts is billed where it runs"
#: Type of resource (or the beginning of types that ends with a star) -> why it costs nothing by itself.
FREE: Final[Mapping[str, str]] = {
    "AWS::IAM::*": "IAM is free",
    "AWS::LakeFormation::*": "permissions are free",
    "AWS::ApplicationAutoScaling::*": "scaling is free; what it starts is billed",
    "AWS::S3::BucketPolicy": _SETTING,
    "AWS::SQS::QueuePolicy": _SETTING,
    "AWS::SNS::TopicPolicy": _SETTING,
    "AWS::SNS::Subscription": "notices by mail are some; beyond 1,000 they cost",
    "AWS::Logs::LogStream": _SETTING,
    "AWS::Logs::ResourcePolicy": _SETTING,
    "AWS::Logs::QueryDefinition": "a saved query; what it scans is billed when somebody runs it",
    "AWS::Logs::MetricFilter": "the metric is billed as a custom metric",
    "AWS::Logs::SubscriptionFilter": "what it hands over is billed as calls of the function that takes it",
    "AWS::Lambda::Permission": _SETTING,
    "AWS::Lambda::EventSourceMapping": "polling a stream or queue in the same account is part of its price",
    "AWS::Lambda::Version": _SETTING,
    "AWS::Lambda::Alias": _SETTING,
    "AWS::CodeDeploy::*": "CodeDeploy to Lambda is free",
    "AWS::Events::Rule": "events of AWS services are free",
    "AWS::Events::EventBus*": "events of our own are few",
    "AWS::Glue::Table": "the first million objects of the Data Catalog are free",
    "AWS::Glue::Database": "the first million objects of the Data Catalog are free",
    "AWS::Glue::DataQualityRuleset": "evaluated inside the job that is billed",
    "AWS::Glue::SecurityConfiguration": _SETTING,
    "AWS::Glue::Trigger": _SETTING,
    "AWS::Glue::Workflow": _SETTING,
    "AWS::Glue::Connection": _SETTING,
    "AWS::Athena::*": "what a query scans is billed when somebody runs it",
    "AWS::EC2::VPC": "a VPC is free",
    "AWS::EC2::Subnet": "a VPC is free",
    "AWS::EC2::RouteTable": "a VPC is free",
    "AWS::EC2::SubnetRouteTableAssociation": "a VPC is free",
    "AWS::EC2::SecurityGroup*": "a VPC is free",
    "AWS::EC2::LaunchTemplate": _SETTING,
    "AWS::EC2::FlowLog": "billed as logs: nothing flows at rest, little beside jobs",
    "AWS::SageMaker::Model": "a model is a file; who serves it is billed",
    "AWS::SageMaker::ModelPackageGroup": "the registry is free",
    "AWS::SageMaker::Endpoint": "billed by the instances of its configuration",
    "AWS::SageMaker::MonitoringSchedule": "billed by the instances of its job definition",
    "AWS::Cognito::*": "free up to 10,000 users who sign in a month",
    "AWS::ApiGatewayV2::*": "billed by the requests of its API",
    "AWS::CloudFormation::*": "CloudFormation is free for AWS's types",
    "AWS::SSM::*": "standard parameters are free",
    "AWS::ECS::Cluster": "tasks are billed",
    "AWS::ECS::TaskDefinition": _SETTING,
    "AWS::ElasticLoadBalancingV2::TargetGroup": "billed with its load balancer",
    "AWS::ElasticLoadBalancingV2::Listener*": "billed with its load balancer",
    "AWS::Batch::*": "instances start for jobs that nobody forecasts; none at rest",
    "AWS::EMRServerless::Application": "billed while a job runs; its jobs are not forecast",
    "AWS::DataBrew::*": "billed while a profile runs",
    "AWS::DataSync::*": "billed by what is copied",
    "AWS::DMS::Endpoint": _SETTING,
    "AWS::DMS::ReplicationSubnetGroup": _SETTING,
    "AWS::EFS::AccessPoint": _SETTING,
    "AWS::EFS::MountTarget": _SETTING,
    "AWS::FSx::DataRepositoryAssociation": _SETTING,
    "AWS::OpenSearchServerless::SecurityPolicy": _SETTING,
    "AWS::OpenSearchServerless::AccessPolicy": _SETTING,
    "AWS::RedshiftServerless::Namespace": "its storage is billed when there is any",
    "AWS::KinesisAnalyticsV2::ApplicationCloudWatchLoggingOption": _SETTING,
    "AWS::Kinesis::StreamConsumer": "billed with its stream",
    "AWS::GreengrassV2::*": "components are free; devices that run them cost",
    "AWS::CodeStarConnections::*": "connections are free",
    "AWS::CodeCommit::Repository": "free for five users",
    "AWS::ServiceCatalog::*": "the first 1,000 calls a month are free",
    "AWS::ECR::RegistryScanningConfiguration": "Inspector is billed by the image that comes and its rescans",
    "AWS::Config::ConfigurationRecorder": "billed by the change that it records: none at rest",
    "AWS::Config::DeliveryChannel": "what it delivers is a few files a day",
    "AWS::SecurityHub::*": "billed by the check of what the account has, whoever made it: not forecast",
    "AWS::SageMaker::UserProfile": "a profile is free",
    "AWS::SageMaker::StudioLifecycleConfig": _SETTING,
    "AWS::ECR::Repository": "images are billed by what they hold, a few GB at 0.10 USD",
    "Custom::*": "its function is billed by the millisecond of a deploy",
}
