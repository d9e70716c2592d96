"""Quotas that a template can break, each with its source. Checked on 2026-11-21.

Of quotas that can be raised the value is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CHECKED", "QUOTAS", "Quota"]

CHECKED = "2026-11-21"


@dataclass(frozen=True, kw_only=True)
class Quota:
    """One quota: at most ``most`` of ``what``."""

    most: int
    what: str
    source: str
    #: Whether AWS raises it on request.
    soft: bool = False


_CLOUDFORMATION = "CloudFormation quotas"
_IAM = "IAM and STS quotas"
_CLOUDWATCH = "CloudWatch service quotas; PutDashboard; PutMetricAlarm"
QUOTAS: Mapping[str, Quota] = {
    "resources": Quota(most=500, what="resources in a stack", source=_CLOUDFORMATION),
    "parameters": Quota(most=200, what="parameters in a stack", source=_CLOUDFORMATION),
    "outputs": Quota(most=200, what="outputs in a stack", source=_CLOUDFORMATION),
    "mappings": Quota(most=200, what="mappings in a stack", source=_CLOUDFORMATION),
    "template": Quota(most=1_000_000, what="bytes of a template in S3", source=_CLOUDFORMATION),
    "description": Quota(most=1_024, what="bytes of a template's description", source=_CLOUDFORMATION),
    "stack-name": Quota(most=128, what="characters of a stack's name", source=_CLOUDFORMATION),
    "stacks": Quota(most=2_000, what="stacks of an account and region", source=_CLOUDFORMATION, soft=True),
    "inline": Quota(most=10_240, what="characters of all inline policies of a role", source=_IAM),
    "managed": Quota(most=6_144, what="characters of a managed policy", source=_IAM),
    "attached": Quota(most=10, what="managed policies of a role", source=_IAM, soft=True),
    "trust": Quota(most=2_048, what="characters of a role's trust policy", source=_IAM, soft=True),
    "roles": Quota(most=1_000, what="roles of an account", source=_IAM, soft=True),
    "rules": Quota(most=300, what="rules on an event bus", source="EventBridge quotas", soft=True),
    "targets": Quota(most=5, what="targets of a rule", source="EventBridge quotas"),
    "pattern": Quota(
        most=2_048, what="characters of an event pattern", source="EventBridge quotas", soft=True
    ),
    "variables": Quota(
        most=4_096, what="bytes of a function's environment variables", source="Lambda quotas"
    ),
    "layers": Quota(most=5, what="layers of a function", source="Lambda quotas"),
    "timeout": Quota(most=900, what="seconds of a function", source="Lambda quotas"),
    "widgets": Quota(most=500, what="widgets of a dashboard", source=_CLOUDWATCH),
    "dashboard-metrics": Quota(most=2_500, what="metrics of a dashboard", source=_CLOUDWATCH),
    "widget-metrics": Quota(most=500, what="metrics of a widget", source=_CLOUDWATCH),
    "widget-alarms": Quota(most=100, what="alarms of an alarm widget", source=_CLOUDWATCH),
    "alarm-metrics": Quota(most=10, what="metrics of an alarm's expression", source=_CLOUDWATCH),
    "alarm-actions": Quota(most=5, what="actions of an alarm for one state", source=_CLOUDWATCH),
    "alarm-description": Quota(most=1_024, what="characters of an alarm's description", source=_CLOUDWATCH),
    "alarms": Quota(most=5_000, what="alarms of an account and region", source=_CLOUDWATCH, soft=True),
    "machine": Quota(
        most=1_048_576, what="bytes of a state machine's definition", source="Step Functions quotas"
    ),
    "pipeline": Quota(most=1_048_576, what="bytes of a pipeline's definition", source="CreatePipeline"),
    "pipeline-steps": Quota(most=50, what="steps of a pipeline", source="SageMaker AI quotas", soft=True),
    # Of actions the smallest figure that AWS has published.
    "delivery-stages": Quota(most=50, what="stages of a CodePipeline", source="CodePipeline quotas"),
    "delivery-actions": Quota(most=500, what="actions of a CodePipeline", source="CodePipeline quotas"),
    "delivery-parallel": Quota(most=50, what="actions of a stage", source="CodePipeline quotas"),
    "schedule-input": Quota(most=262_144, what="bytes of a schedule's input", source="Scheduler quotas"),
    "bucket-policy": Quota(most=20_480, what="bytes of a bucket's policy", source="S3: bucket policies"),
    "key-policy": Quota(most=32_768, what="bytes of a key's policy", source="KMS quotas"),
    "queue-policy": Quota(most=8_192, what="bytes of a queue's policy", source="SQS quotas"),
    "log-policies": Quota(
        most=10, what="resource policies of CloudWatch Logs in a region", source="CloudWatch Logs quotas"
    ),
    "saved-queries": Quota(
        most=1_000, what="saved queries of Logs Insights in a region", source="CloudWatch Logs quotas"
    ),
    "tags": Quota(most=50, what="tags of a resource", source="Tagging: quotas"),
    "security-rules": Quota(most=60, what="rules of a security group", source="VPC quotas", soft=True),
    "endpoints": Quota(most=50, what="interface endpoints of a VPC", source="VPC quotas", soft=True),
    "buckets": Quota(most=10_000, what="buckets of an account", source="S3 quotas", soft=True),
    "secret": Quota(most=65_536, what="bytes of a secret", source="Secrets Manager quotas"),
    "parameter": Quota(
        most=4_096, what="characters of a standard parameter", source="Systems Manager quotas"
    ),
    "glue-jobs": Quota(
        most=2_000, what="Glue jobs of an account and region", source="Glue quotas", soft=True
    ),
    "endpoints-sagemaker": Quota(
        most=100, what="SageMaker endpoints of an account and region", source="SageMaker AI quotas", soft=True
    ),
    "feature-groups": Quota(
        most=500, what="feature groups of an account and region", source="SageMaker AI quotas", soft=True
    ),
    "features": Quota(most=2_500, what="features of a feature group", source="SageMaker AI quotas"),
}
