"""Lambda entry point: ``idle_resources.handler.handler``; ``{"action": "look" | "start" | "stop"}``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from function_log import log
from lifecycle_notice import Notice, publish

from idle_resources.logic import Stack, State, handle
from idle_resources.settings import Settings

__all__ = ["AwsCloud", "handler"]

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
HOUR = 3_600


class AwsCloud:
    """``idle_resources.logic.Cloud`` on AWS."""

    def __init__(self, settings: Settings, clients: Mapping[str, Any]) -> None:
        self._settings = settings
        self._clients = clients

    def state(self) -> State:
        """What the parameter says."""
        found = self._clients["ssm"].get_parameter(Name=self._settings.state_parameter)["Parameter"]
        return State(value=found["Value"], since=found["LastModifiedDate"])

    def set_state(self, value: str, why: str) -> None:
        """Write it; ``why`` stands in its history."""
        self._clients["ssm"].put_parameter(
            Name=self._settings.state_parameter, Value=value, Type="String", Overwrite=True, Description=why
        )

    def stack(self, name: str) -> Stack | None:
        """The stack, or ``None`` when there is no such stack."""
        try:
            found = self._clients["cloudformation"].describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        runs = {
            p["ParameterValue"]: p["ResolvedValue"]
            for p in found.get("Parameters", ())
            if "ResolvedValue" in p
        }
        return Stack(
            name=name,
            status=found["StackStatus"],
            runs=runs[self._settings.state_parameter],
            changed=found.get("LastUpdatedTime", found["CreationTime"]),
        )

    def update(self, name: str) -> bool:
        """Let CloudFormation read the parameters of the stack anew; whether there was something to change."""
        client = self._clients["cloudformation"]
        found = client.describe_stacks(StackName=name)["Stacks"][0]
        try:
            client.update_stack(
                StackName=name,
                UsePreviousTemplate=True,
                Parameters=[
                    {"ParameterKey": p["ParameterKey"], "UsePreviousValue": True}
                    for p in found.get("Parameters", ())
                ],
                Capabilities=CAPABILITIES,
            )
        except ClientError as error:
            # Nothing of the stack stands under the condition, as before a first approval.
            if "No updates are to be performed" in str(error):
                return False
            raise
        return True

    def endpoint_changed(self, name: str) -> datetime | None:
        """When the endpoint was last changed; ``None`` when there is none."""
        try:
            found = self._clients["sagemaker"].describe_endpoint(EndpointName=name)
        except ClientError as error:
            # SageMaker answers a missing endpoint with a ValidationException.
            if error.response["Error"]["Code"] == "ValidationException":
                return None
            raise
        changed: datetime = found["LastModifiedTime"]
        return changed

    def requests(self, name: str, since: datetime, until: datetime) -> float:
        """Requests to the endpoint's production variant."""
        return self._sum(
            "AWS/SageMaker",
            "Invocations",
            {"EndpointName": name, "VariantName": "AllTraffic"},
            since,
            until,
        )

    def records(self, stream: str, since: datetime, until: datetime) -> float:
        """Records that were put into a stream."""
        return self._sum("AWS/Kinesis", "IncomingRecords", {"StreamName": stream}, since, until)

    def tell(self, why: str, numbers: Mapping[str, object]) -> None:
        """Tell the stakeholders that it was stopped."""
        settings, region = self._settings, self._clients["sns"].meta.region_name
        stacks = f"https://{region}.console.aws.amazon.com/cloudformation/home?region={region}#/stacks"
        notice = Notice(
            kind="serving.stopped",
            workload=settings.workload,
            environment=settings.environment,
            title="What served the model is stopped: nobody has used it",
            why=why,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            correlation_id=settings.state_parameter,
            numbers=numbers,
            links={name: f"{stacks}?filteringText={name}" for name in settings.stacks},
        )
        publish(self._clients["sns"], settings.topic_arn, notice)

    def _sum(
        self, namespace: str, metric: str, dimensions: Mapping[str, str], since: datetime, until: datetime
    ) -> float:
        points = self._clients["cloudwatch"].get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=since,
            EndTime=until,
            Period=HOUR,
            Statistics=["Sum"],
        )["Datapoints"]
        return float(sum(point["Sum"] for point in points))


@cache
def _cloud(settings: Settings) -> AwsCloud:
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
    return AwsCloud(
        settings,
        {
            "ssm": boto3.client("ssm", config=config),
            "cloudformation": boto3.client("cloudformation", config=config),
            "sagemaker": boto3.client("sagemaker", config=config),
            "cloudwatch": boto3.client("cloudwatch", config=config),
            "sns": boto3.client("sns", config=config),
        },
    )


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Look, start or stop; return what was done. A failure is raised: Lambda and the schedule try again."""
    settings = Settings.from_environment(os.environ)
    action = str(event.get("action", "look"))
    told = event.get("time")
    # The schedule says which hour it stands for; whoever asks by hand means now.
    now = datetime.now(UTC) if told is None else datetime.fromisoformat(str(told).replace("Z", "+00:00"))
    outcome = handle(action, _cloud(settings), settings, now)
    fields = {"workload": settings.workload, "why": outcome.why, "stacks": list(outcome.stacks)}
    log("INFO", outcome.action, request=getattr(context, "aws_request_id", None), **fields)
    return {"action": outcome.action, **fields}
