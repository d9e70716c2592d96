"""A story of its own: an app with everything switched on is deployed; what an account alone runs is recorded.

Each step stands for one row of the capabilities. It passes when CloudFormation has made the resources that
the row needs: each was checked against the registry's schema, each request against the service's model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story import deployment
from rehearsal.story.telling import Evidence, Step, require
from rehearsal.story.texts import enrich_texts_alone

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
    "process.spark": (
        "A Glue job waits to land the stream by micro-batches",
        ("AWS::Glue::Job", "AWS::Scheduler::Schedule"),
    ),
    "process.emr": ("EMR Serverless stands ready for large tables", ("AWS::EMRServerless::Application",)),
    "process.comprehend": (
        "A state machine asks Comprehend about texts and keeps the answers as a table",
        ("AWS::StepFunctions::StateMachine", "Custom::IcebergTable"),
    ),
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
    "tune.autopilot": (
        "A state machine runs Autopilot on a prepared table",
        ("AWS::StepFunctions::StateMachine",),
    ),
    "tune.foundation": (
        "A state machine has Bedrock fit a foundation model to the workload's texts",
        ("AWS::StepFunctions::StateMachine",),
    ),
    "train.wrangler": (
        "A state machine runs a Data Wrangler flow and then trains",
        ("AWS::StepFunctions::StateMachine",),
    ),
    "pipeline.stepfunctions": (
        "A state machine runs the training pipeline to its end",
        ("AWS::StepFunctions::StateMachine",),
    ),
    "pipeline.mwaa": ("Managed Airflow has a DAG per training pipeline", ("AWS::MWAA::Environment",)),
    "storage.fsx": (
        "FSx for Lustre, linked to the lake",
        ("AWS::FSx::FileSystem", "AWS::FSx::DataRepositoryAssociation"),
    ),
    "train.distributed": (
        "Trainings on several instances, and a HyperPod cluster that stays",
        ("AWS::SageMaker::Cluster", "AWS::SageMaker::Pipeline"),
    ),
    "track.mlflow": (
        "A managed MLflow tracking server, reached from the VPC",
        ("AWS::SageMaker::MlflowTrackingServer", "AWS::EC2::VPCEndpoint"),
    ),
    "storage.efs": ("EFS with an access point for jobs", ("AWS::EFS::FileSystem", "AWS::EFS::AccessPoint")),
    "secure.audit": (
        "AWS Config, Security Hub, Inspector and GuardDuty look at the account and tell the topic",
        (
            "AWS::Config::ConfigurationRecorder",
            "AWS::Config::DeliveryChannel",
            "AWS::Config::ConfigRule",
            "AWS::SecurityHub::Hub",
            "AWS::SecurityHub::Standard",
            "AWS::ECR::RegistryScanningConfiguration",
            "AWS::GuardDuty::Detector",
        ),
    ),
    "secure.catalog": (
        "A portfolio holds a trial endpoint that data scientists launch within bounds",
        (
            "AWS::ServiceCatalog::Portfolio",
            "AWS::ServiceCatalog::CloudFormationProduct",
            "AWS::ServiceCatalog::LaunchRoleConstraint",
            "AWS::ServiceCatalog::LaunchTemplateConstraint",
            "AWS::ServiceCatalog::PortfolioPrincipalAssociation",
            "AWS::ServiceCatalog::TagOption",
        ),
    ),
    "studio.domain": (
        "A Studio domain inside the VPC has a profile per persona, and stops what nobody uses",
        ("AWS::SageMaker::Domain", "AWS::SageMaker::UserProfile", "AWS::SageMaker::StudioLifecycleConfig"),
    ),
    "label.groundtruth": (
        "A state machine starts Ground Truth jobs",
        ("AWS::StepFunctions::StateMachine",),
    ),
}


Made = Mapping[str, Sequence[str]]


def _msk(tale: Tale, made: Made) -> Evidence:
    """One of the mappings is the cluster's; Lambda has its topic's function."""
    (cluster,) = made["AWS::MSK::ServerlessCluster"]
    state = tale.cloud.client("kafka").describe_cluster_v2(ClusterArn=cluster)["ClusterInfo"]["State"]
    found = [
        mapping
        for uuid in made["AWS::Lambda::EventSourceMapping"]
        if (mapping := tale.cloud.client("lambda").get_event_source_mapping(UUID=uuid))["EventSourceArn"]
        == cluster
    ]
    require(len(found) == 1, f"{len(found)} event source mappings read the cluster, not one")
    return {"cluster_is": state, "function": found[0]["FunctionArn"], "batch_size": found[0]["BatchSize"]}


def _ground_truth(tale: Tale, made: Made) -> Evidence:
    """One of the state machines asks SageMaker for labelling jobs."""
    machines = tale.cloud.client("stepfunctions")
    asking = [
        arn
        for arn in made["AWS::StepFunctions::StateMachine"]
        if "createLabelingJob" in machines.describe_state_machine(stateMachineArn=arn)["definition"]
    ]
    require(len(asking) == 1, f"{len(asking)} state machines create labelling jobs, not one")
    return {"state_machine": asking[0]}


def _open_search(tale: Tale, made: Made) -> Evidence:
    """The collection is there and nobody reaches it but through the endpoint."""
    search = tale.cloud.client("opensearchserverless")
    (collection,) = made["AWS::OpenSearchServerless::Collection"]
    (endpoint,) = made["AWS::OpenSearchServerless::VpcEndpoint"]
    (detail,) = search.batch_get_collection(ids=[collection])["collectionDetails"]
    require(detail["status"] == "ACTIVE", f"the collection is {detail['status']}")
    statements = [
        statement
        for policy in search.list_security_policies(type="network")["securityPolicySummaries"]
        for statement in search.get_security_policy(type="network", name=policy["name"])[
            "securityPolicyDetail"
        ]["policy"]
    ]
    require(bool(statements), "no network policy is there")
    closed = all(
        not s["AllowFromPublic"] and s.get("SourceVPCEs", [endpoint]) == [endpoint] for s in statements
    )
    require(closed, f"the network policies let others in: {statements}")
    return {"collection": detail["name"], "key": detail["kmsKeyArn"], "reached_through": endpoint}


def _files(tale: Tale, made: Made) -> Evidence:
    """The file system is encrypted and has a mount target in each zone."""
    (system,) = made["AWS::EFS::FileSystem"]
    client = tale.cloud.client("efs")
    (detail,) = client.describe_file_systems(FileSystemId=system)["FileSystems"]
    targets = client.describe_mount_targets(FileSystemId=system)["MountTargets"]
    require(detail["Encrypted"], f"{system} is not encrypted")
    require(len(targets) > 1, f"{system} has {len(targets)} mount targets")
    return {"mount_targets": len(targets), "throughput": detail["ThroughputMode"]}


def _texts(tale: Tale, made: Made) -> Evidence:
    """The state machine and the table that the stack gives out are among those made."""
    outputs = tale.outputs("Data")
    machine, table = outputs["TextsStateMachineArn"], outputs["TextsTable"]
    require(machine in made["AWS::StepFunctions::StateMachine"], f"{machine} was not made")
    tables = [name.rpartition(".")[2] for name in made["Custom::IcebergTable"]]
    require(table.rpartition(".")[2] in tables, f"{table} is none of the tables: {', '.join(tables)}")
    return {"state_machine": machine, "table": table}


def _micro_batches(tale: Tale, made: Made) -> Evidence:
    """The job is a streaming one with a checkpoint, and only one run of it goes on at a time."""
    name = tale.outputs("Data")["LiveJobName"]
    require(name in made["AWS::Glue::Job"], f"{name} was not made")
    job = tale.cloud.client("glue").get_job(JobName=name)["Job"]
    kind, runs = job["Command"]["Name"], job["ExecutionProperty"]["MaxConcurrentRuns"]
    require((kind, runs) == ("gluestreaming", 1), f"{name} is {kind}, {runs} runs at a time")
    arguments = job["DefaultArguments"]
    return {
        "job": name,
        "every_seconds": arguments["--window_seconds"],
        "checkpoint": arguments["--checkpoint_uri"],
    }


def _several_instances(tale: Tale, made: Made) -> Evidence:
    """A cluster that stays, and a training job on several instances."""
    told = _training(tale)
    require(told["instances"] > 1, f"training asks for {told['instances']} instance, not for several")
    return {**told, "cluster": made["AWS::SageMaker::Cluster"]}


def _mounted(tale: Tale, made: Made) -> Evidence:
    """Training reads from the file system that was made."""
    told = _training(tale)
    require(
        told["file_systems"] == made["AWS::FSx::FileSystem"],
        f"training reads from {told['file_systems']}, not from {made['AWS::FSx::FileSystem']}",
    )
    return told


def _training(tale: Tale) -> dict[str, Any]:
    """What the deployed pipeline asks for in training, or in each of its trials."""
    text = tale.cloud.client("sagemaker").describe_pipeline(
        PipelineName=tale.outputs("Models")["PipelineName"]
    )
    steps = {step["Name"]: step for step in json.loads(text["PipelineDefinition"])["Steps"]}
    asked = (
        steps["Train"]["Arguments"]
        if "Train" in steps
        else steps["Tune"]["Arguments"]["TrainingJobDefinition"]
    )
    sources = [channel["DataSource"] for channel in asked["InputDataConfig"]]
    return {
        "instances": asked["ResourceConfig"]["InstanceCount"],
        "file_systems": sorted(
            {s["FileSystemDataSource"]["FileSystemId"] for s in sources if "FileSystemDataSource" in s}
        ),
    }


def _calling(action: str) -> Callable[[Tale, Made], Evidence]:
    """At least one of the state machines makes this call of a service."""

    def look(tale: Tale, made: Made) -> Evidence:
        client = tale.cloud.client("stepfunctions")
        found = [
            arn
            for arn in made["AWS::StepFunctions::StateMachine"]
            if f":aws-sdk:{action}" in client.describe_state_machine(stateMachineArn=arn)["definition"]
        ]
        require(bool(found), f"no state machine calls {action}")
        return {"state_machines": found}

    return look


def _airflow(tale: Tale, made: Made) -> Evidence:
    """The environment is private, and its DAG lies where it looks."""
    (name,) = made["AWS::MWAA::Environment"]
    environment = tale.cloud.client("mwaa").get_environment(Name=name)["Environment"]
    bucket, folder = environment["SourceBucketArn"].rpartition(":")[2], environment["DagS3Path"]
    listed = tale.cloud.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{folder}/")
    dags = [item["Key"] for item in listed.get("Contents", ()) if item["Key"].endswith(".py")]
    require(len(dags) == 1, f"{bucket}/{folder} holds {len(dags)} DAG files, not one")
    require(environment["WebserverAccessMode"] == "PRIVATE_ONLY", "the web server is open")
    return {"dag": dags[0], "pipelines": environment["AirflowConfigurationOptions"]["training.pipelines"]}


def _looked_after(tale: Tale, made: Made) -> Evidence:
    """The recorder runs, rules of AWS Config are kept, S3 is protected, findings reach the topic."""
    config, events = tale.cloud.client("config"), tale.cloud.client("events")
    (status,) = config.describe_configuration_recorder_status()["ConfigurationRecordersStatus"]
    require(status["recording"], "the recorder does not run")
    (detector,) = made["AWS::GuardDuty::Detector"]
    features = {
        one["Name"]: one["Status"]
        for one in tale.cloud.client("guardduty").get_detector(DetectorId=detector)["Features"]
    }
    require(features.get("S3_DATA_EVENTS") == "ENABLED", f"GuardDuty does not look at S3: {features}")
    scanning = tale.cloud.client("ecr").get_registry_scanning_configuration()["scanningConfiguration"]
    require(scanning["scanType"] == "ENHANCED", f"images are scanned {scanning['scanType']}")
    told = {}
    for rule in events.list_rules()["Rules"]:
        source = json.loads(rule.get("EventPattern", "{}")).get("source", [""])[0]
        if source in ("aws.config", "aws.securityhub", "aws.guardduty", "aws.inspector2"):
            told[source] = [t["Arn"] for t in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]]
    require({"aws.config", "aws.securityhub"} <= told.keys(), f"only {sorted(told)} is told")
    hub = tale.cloud.client("securityhub").get_enabled_standards()["StandardsSubscriptions"]
    return {
        "config_rules": len(made["AWS::Config::ConfigRule"]),
        "standards": [one["StandardsArn"].partition("standards/")[2] for one in hub],
        "guardduty": features,
        "told": told,
    }


def _shelf(tale: Tale, made: Made) -> Evidence:
    """Each product is launched as a role of its own, on a few instance types, by a persona."""
    client = tale.cloud.client("servicecatalog")
    (portfolio,) = made["AWS::ServiceCatalog::Portfolio"]
    found = client.list_constraints_for_portfolio(PortfolioId=portfolio)["ConstraintDetails"]
    bounds = {
        one["Type"]: json.loads(client.describe_constraint(Id=one["ConstraintId"])["ConstraintParameters"])
        for one in found
    }
    require(bounds.keys() == {"LAUNCH", "TEMPLATE"}, f"the product has the bounds {sorted(bounds)}")
    people = client.list_principals_for_portfolio(PortfolioId=portfolio)["Principals"]
    require(bool(people), "nobody may launch it")
    return {
        "launched_as": bounds["LAUNCH"]["RoleArn"],
        "rules": bounds["TEMPLATE"]["Rules"],
        "for": [one["PrincipalARN"] for one in people],
    }


def _studio(tale: Tale, made: Made) -> Evidence:
    """The domain stays inside the VPC, apps stop when idle, and each profile has a role of its own."""
    client = tale.cloud.client("sagemaker")
    (domain_id,) = made["AWS::SageMaker::Domain"]
    domain = client.describe_domain(DomainId=domain_id)
    access = domain["AppNetworkAccessType"]
    require(access == "VpcOnly", f"apps reach the network by {access}")
    lab = domain["DefaultUserSettings"]["JupyterLabAppSettings"]
    idle = lab["AppLifecycleManagement"]["IdleSettings"]
    require(idle["LifecycleManagement"] == "ENABLED", "apps do not stop")
    roles = {
        name: client.describe_user_profile(DomainId=domain_id, UserProfileName=name)["UserSettings"][
            "ExecutionRole"
        ]
        for name in made["AWS::SageMaker::UserProfile"]
    }
    require(len(set(roles.values())) == len(roles), f"profiles share a role: {roles}")
    return {
        "profiles": roles,
        "stops_after_minutes": idle["IdleTimeoutInMinutes"],
        "home_files": domain.get("HomeEfsFileSystemId", "none"),
    }


#: Row -> what is asked of the services themselves, once the resources are there.
_LOOKS: dict[str, Callable[[Tale, Made], Evidence]] = {
    "stream.msk": _msk,
    "secure.audit": _looked_after,
    "secure.catalog": _shelf,
    "studio.domain": _studio,
    "label.groundtruth": _ground_truth,
    "process.comprehend": _texts,
    "process.spark": _micro_batches,
    "analyse.opensearch": _open_search,
    "storage.efs": _files,
    "tune.autopilot": _calling("sagemaker:createAutoMLJobV2"),
    "tune.foundation": _calling("bedrock:createModelCustomizationJob"),
    "train.wrangler": _calling("sagemaker:createProcessingJob"),
    "pipeline.stepfunctions": _calling("sagemaker:describePipelineExecution"),
    "pipeline.mwaa": _airflow,
    "storage.fsx": _mounted,
    "train.distributed": _several_instances,
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
    if row in _LOOKS:
        evidence |= _LOOKS[row](tale, made)


def _enriched(row: str, types: Sequence[str], tale: Tale, evidence: Evidence) -> None:
    """Our own part runs, on some rows; the service's answers are a stand-in's."""
    _recorded(row, types, tale, evidence)
    enrich_texts_alone(tale, evidence)
    evidence["why_recorded"] = "our own program ran as its role; Comprehend's model is AWS's"


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
            run=partial(_enriched if row == "process.comprehend" else _recorded, row, types),
            capabilities=_rows(row),
            recorded=True,
        )
        for row, (title, types) in sorted(RESOURCES.items())
    ),
)
