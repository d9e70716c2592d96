"""A story of its own: an app with everything switched on is deployed; what an account alone runs is recorded.

Each step stands for one row of the capabilities. It passes when CloudFormation has made the resources that
the row needs: each was checked against the registry's schema, each request against the service's model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rehearsal.story import deployment
from rehearsal.story.telling import Evidence, Step, require

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["BREADTH", "RESOURCES"]

CHAPTER = "Recorded: what only an account runs"

#: Row of the capabilities -> its title and the resource types of which there must be one each.
RESOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "batch.dms": ("DMS Serverless copies tables and their changes", ("AWS::DMS::ReplicationConfig",)),
    "batch.datasync": ("DataSync brings files of a server", ("AWS::DataSync::Task",)),
    "batch.jdbc": (
        "A Glue connection and a job read a database",
        ("AWS::Glue::Connection", "AWS::Glue::Job"),
    ),
    "process.databrew": (
        "DataBrew profiles the raw table each week",
        (
            "AWS::DataBrew::Dataset",
            "AWS::DataBrew::Ruleset",
            "AWS::DataBrew::Job",
            "AWS::DataBrew::Schedule",
            "AWS::DataBrew::Recipe",
            "AWS::DataBrew::Project",
        ),
    ),
    "process.emr": ("EMR Serverless stands ready for large tables", ("AWS::EMRServerless::Application",)),
    "process.batch": (
        "AWS Batch queues jobs for GPUs",
        ("AWS::Batch::ComputeEnvironment", "AWS::Batch::JobQueue", "AWS::Batch::JobDefinition"),
    ),
    "stream.flink": (
        "Managed Flink computes windows",
        ("AWS::KinesisAnalyticsV2::Application", "Custom::FlinkApplicationRunning"),
    ),
    "stream.msk": (
        "MSK Serverless feeds the stream",
        ("AWS::MSK::ServerlessCluster", "AWS::Lambda::EventSourceMapping"),
    ),
    "stream.video": ("Pictures of a camera land each minute", ("AWS::KinesisVideo::Stream",)),
    "analyse.redshift": (
        "Redshift Serverless reads the lake by Spectrum",
        ("AWS::RedshiftServerless::Namespace", "AWS::RedshiftServerless::Workgroup"),
    ),
    "analyse.quicksight": (
        "A Quick Sight data set and a dashboard made from the contract",
        ("AWS::QuickSight::DataSource", "AWS::QuickSight::DataSet", "AWS::QuickSight::Dashboard"),
    ),
    "analyse.opensearch": (
        "A collection of OpenSearch Serverless that only the VPC reaches",
        ("AWS::OpenSearchServerless::Collection", "AWS::OpenSearchServerless::VpcEndpoint"),
    ),
    "storage.fsx": (
        "FSx for Lustre, linked to the lake",
        ("AWS::FSx::FileSystem", "AWS::FSx::DataRepositoryAssociation"),
    ),
    "storage.efs": ("EFS with an access point for jobs", ("AWS::EFS::FileSystem", "AWS::EFS::AccessPoint")),
    "label.groundtruth": (
        "A state machine starts Ground Truth jobs",
        ("AWS::StepFunctions::StateMachine",),
    ),
}


def _recorded(row: str, types: Sequence[str], tale: Tale, evidence: Evidence) -> None:
    """The resources of a row were made; a stack that failed has ended the story before."""
    client = tale.cloud.client("cloudformation")
    made: dict[str, list[str]] = {}
    for artifact in tale.stage_stacks:
        pages = client.get_paginator("list_stack_resources").paginate(StackName=artifact.name)
        for resource in (r for page in pages for r in page["StackResourceSummaries"]):
            if resource["ResourceType"] in types and resource["ResourceStatus"] in (
                "CREATE_COMPLETE",
                "UPDATE_COMPLETE",
            ):
                made.setdefault(resource["ResourceType"], []).append(resource["PhysicalResourceId"])
    evidence |= {"made": made, "why_recorded": "the requests are checked and kept; only an account runs them"}
    missing = [kind for kind in types if kind not in made]
    require(not missing, f"{row}: the deployed stacks have no {', '.join(missing)}")


def _rows(row: str) -> Callable[..., Sequence[str]]:
    return lambda _workload: (row,)


#: Deploy the app, then a step per row.
BREADTH: tuple[Step, ...] = (
    *(step for step in deployment.STEPS if step.id in ("synth", "bootstrap", "deploy")),
    *(
        Step(
            id=row.replace(".", "-"),
            title=title,
            chapter=CHAPTER,
            run=partial(_recorded, row, types),
            capabilities=_rows(row),
            recorded=True,
        )
        for row, (title, types) in sorted(RESOURCES.items())
    ),
)
