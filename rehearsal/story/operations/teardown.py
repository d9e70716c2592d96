"""Cells of the tear-down: what stays is said before, deleted with two consents, and nothing else is left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.story.books import close_permissions
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.cost import program, stage_name
from rehearsal.story.telling import Evidence, StoryError, require

if TYPE_CHECKING:
    from rehearsal.story.tale import Cloud, Tale

__all__ = ["CELLS", "ORDER", "inventory"]

#: Nothing can be played after it.
ORDER = 99
CHAPTER = "Tear down"
DESTROY = str(Path("tools") / "destroy.py")
#: What the CDK's bootstrap has made, for every app of the account.
BOOTSTRAP = "cdk-hnb659fds-"

Listing = Callable[[Any], Iterator[str]]


def _pages(operation: str, key: str, name: str | None = None, **given: Any) -> Listing:
    """List a service's resources by their names: ``operation`` page by page, ``key`` of each page."""

    def listing(client: Any) -> Iterator[str]:
        if client.can_paginate(operation):
            pages = client.get_paginator(operation).paginate(**given)
        else:
            pages = [getattr(client, operation)(**given)]
        for page in pages:
            for item in page.get(key, ()):
                yield str(item if name is None else item[name])

    return listing


def _keys(client: Any) -> Iterator[str]:
    """Keys of our own that are not waiting for their deletion."""
    for page in client.get_paginator("list_keys").paginate():
        for item in page["Keys"]:
            found = client.describe_key(KeyId=item["KeyId"])["KeyMetadata"]
            if found["KeyManager"] == "CUSTOMER" and found["KeyState"] != "PendingDeletion":
                yield item["KeyId"]


def _log_groups(client: Any) -> Iterator[str]:
    """Groups; those of jobs are made by their services and announced as such."""
    for page in client.get_paginator("describe_log_groups").paginate():
        for group in page["logGroups"]:
            if not group["logGroupName"].startswith(("/aws/sagemaker/", "/aws-glue/")):
                yield group["logGroupName"]


def _pools(client: Any) -> Iterator[str]:
    for pool in client.list_user_pools(MaxResults=60)["UserPools"]:
        yield pool["Id"]


def _catalog_tables(client: Any) -> Iterator[str]:
    for database in client.get_databases()["DatabaseList"]:
        for table in client.get_tables(DatabaseName=database["Name"])["TableList"]:
            yield f"{database['Name']}.{table['Name']}"


def _secrets(client: Any) -> Iterator[str]:
    for page in client.get_paginator("list_secrets").paginate():
        for secret in page["SecretList"]:
            if "DeletedDate" not in secret:
                yield secret["ARN"]


#: Service -> what of it is billed while it is there -> how it is listed. Applications of Flink are not among
#: them: the emulator does not list any.
BILLED: Mapping[str, Mapping[str, Listing]] = {
    "athena": {"workgroup": _pages("list_work_groups", "WorkGroups", "Name")},
    "cloudtrail": {"trail": _pages("describe_trails", "trailList", "Name")},
    "cloudwatch": {
        "alarm": _pages("describe_alarms", "MetricAlarms", "AlarmName"),
        "dashboard": _pages("list_dashboards", "DashboardEntries", "DashboardName"),
    },
    "cognito-idp": {"user pool": _pools},
    "dynamodb": {"table": _pages("list_tables", "TableNames")},
    "firehose": {"delivery stream": _pages("list_delivery_streams", "DeliveryStreamNames")},
    "glue": {
        "job": _pages("get_jobs", "Jobs", "Name"),
        "crawler": _pages("get_crawlers", "Crawlers", "Name"),
        "table": _catalog_tables,
    },
    "kinesis": {"stream": _pages("list_streams", "StreamNames")},
    "kms": {"key": _keys},
    "lambda": {"function": _pages("list_functions", "Functions", "FunctionName")},
    "logs": {"log group": _log_groups},
    "s3": {"bucket": _pages("list_buckets", "Buckets", "Name")},
    "sagemaker": {
        "endpoint": _pages("list_endpoints", "Endpoints", "EndpointName"),
        "feature group": _pages("list_feature_groups", "FeatureGroupSummaries", "FeatureGroupName"),
        "model package group": _pages(
            "list_model_package_groups", "ModelPackageGroupSummaryList", "ModelPackageGroupName"
        ),
        "pipeline": _pages("list_pipelines", "PipelineSummaries", "PipelineName"),
    },
    "scheduler": {"schedule": _pages("list_schedules", "Schedules", "Name")},
    "secretsmanager": {"secret": _secrets},
    "sns": {"topic": _pages("list_topics", "Topics", "TopicArn")},
    "sqs": {"queue": _pages("list_queues", "QueueUrls")},
    "ssm": {"parameter": _pages("describe_parameters", "Parameters", "Name")},
    "stepfunctions": {"state machine": _pages("list_state_machines", "stateMachines", "stateMachineArn")},
}


def inventory(cloud: Cloud) -> dict[str, list[str]]:
    """What the account holds that somebody pays for, by ``service kind``; the CDK's bootstrap left out."""
    found: dict[str, list[str]] = {}
    for service, kinds in BILLED.items():
        for kind, listing in kinds.items():
            names = [name for name in listing(cloud.client(service)) if not _of_bootstrap(name)]
            if names:
                found[f"{service} {kind}"] = sorted(names)
    return found


def _of_bootstrap(name: str) -> bool:
    return BOOTSTRAP in name or name.startswith("/cdk-bootstrap/") or name == "primary"


def _announced(tale: Tale) -> dict[str, Any]:
    asked = (DESTROY, stage_name(tale), "--assembly", str(tale.assembly), "--list", "--json")
    said: dict[str, Any] = json.loads(program(tale, *asked))
    return said


def _physical(tale: Tale) -> dict[tuple[str, str], str]:
    """Name of every deployed resource by its stack and logical id."""
    client = tale.cloud.client("cloudformation")
    found = {}
    for stack in tale.stage_stacks:
        for page in client.get_paginator("list_stack_resources").paginate(StackName=stack.name):
            for one in page["StackResourceSummaries"]:
                if one.get("PhysicalResourceId"):
                    found[stack.name, one["LogicalResourceId"]] = one["PhysicalResourceId"]
    return found


def _announce(tale: Tale, evidence: Evidence) -> None:
    said = _announced(tale)
    deployed = _physical(tale)
    stays = [s for s in said["stays"] if (s["stack_name"], s["logical_id"]) in deployed]
    tale.known["inventory before"] = inventory(tale.cloud)
    tale.known["stays"] = {
        deployed[s["stack_name"], s["logical_id"]]: f"{s['type']} {s['stack']}/{s['logical_id']}"
        for s in stays
    }
    evidence |= {
        "goes": sum(said["goes"].values()),
        "stays": dict(Counter(s["type"] for s in stays)),
        "why": {s["type"]: s["why"] for s in stays},
        "usd_a_month_before": round(said["before"], 2),
        "usd_a_month_after_without_consent": round(said["after"], 2),
        "beside": said["beside"],
        "resources_that_cost": {key: len(names) for key, names in tale.known["inventory before"].items()},
    }
    require(said["consented"], "the environment gives its first consent and the tool does not see it")
    require(stays, "nothing is announced to stay, although buckets hold data")
    for wrong, why in ((("--data", "prod"), "must be the environment's name"), (("--data", ""), "must be")):
        refused = _refused(tale, *wrong)
        require(why in refused, f"a wrong second consent is not refused: {refused}")
    evidence["a_wrong_second_consent"] = refused


def _refused(tale: Tale, *arguments: str) -> str:
    try:
        program(tale, DESTROY, stage_name(tale), "--assembly", str(tale.assembly), *arguments, "--yes")
    except StoryError as error:
        return str(error)
    return ""


def _destroyed(tale: Tale, evidence: Evidence) -> None:
    close_permissions(tale)
    environment = tale.cdk.environment()
    name = stage_name(tale)
    said = program(
        tale,
        DESTROY,
        name,
        *("--assembly", str(tale.assembly), "--data", name, "--yes"),
        environment=environment,
    )
    tale.cloud.idle()
    deleted = [line for line in said.splitlines() if line.startswith("deleted: ")]
    evidence["deleted_with_two_consents"] = dict(Counter(line.split()[1] for line in deleted))
    names = {stack.name for stack in tale.stage_stacks}
    left = [
        s["StackName"]
        for s in tale.cloud.client("cloudformation").describe_stacks()["Stacks"]
        if s["StackName"] in names
    ]
    require(not left, f"stacks are left: {', '.join(left)}")
    after = inventory(tale.cloud)
    evidence["left"] = after
    stays: dict[str, str] = tale.known.get("stays", {})
    announced = [n for names in after.values() for n in names if any(n in key for key in stays)]
    require(not announced, f"consented twice and still there: {', '.join(announced)}")
    require(not after, f"somebody goes on paying for: {'; '.join(f'{k} {v}' for k, v in after.items())}")


CELLS = (
    Cell(
        id="teardown.announced",
        title="What a destroy leaves, why, and what that costs is said before",
        chapter=CHAPTER,
        run=_announce,
        ground="deployed",
        capabilities=("data.repository", "cost.forecast"),
    ),
    Cell(
        id="teardown.consented",
        title="Consented twice: everything is destroyed, and nobody goes on paying",
        chapter=CHAPTER,
        run=_destroyed,
        ground="deployed",
        capabilities=("data.repository",),
    ),
)
