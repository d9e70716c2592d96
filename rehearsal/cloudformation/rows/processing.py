"""Rows of types for processing: EMR Serverless, AWS Batch, DataBrew."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by, only

__all__ = ["TABLE"]


def _compute_environment(p: Properties, context: Context) -> Properties:
    """Whether an update takes the newest machine image is nothing that a new environment is told."""
    del context
    compute = {key: v for key, v in p["ComputeResources"].items() if key != "UpdateToLatestImageVersion"}
    return {**p, "ComputeResources": compute}


def _profile_job(p: Properties, context: Context) -> Properties:
    """CreateProfileJob has no type, and its own name for how a profile is configured."""
    del context
    if p.get("Type") != "PROFILE":
        raise ValueError(f"only jobs of Type PROFILE are made here, got {p.get('Type')!r}")
    given = {key: value for key, value in p.items() if key not in ("Type", "ProfileConfiguration")}
    if "ProfileConfiguration" in p:
        given["Configuration"] = p["ProfileConfiguration"]
    return given


def _ruleset(p: Properties, context: Context) -> Properties:
    """CloudFormation lists what the API maps."""
    del context
    rules = [
        {
            **rule,
            "SubstitutionMap": {one["ValueReference"]: one["Value"] for one in rule["SubstitutionMap"]},
        }
        if "SubstitutionMap" in rule
        else rule
        for rule in p["Rules"]
    ]
    return {**p, "Rules": rules}


def _brew(
    noun: str,
    updated: tuple[str, ...],
    *,
    create: str | None = None,
    update: str | None = None,
    convert: Callable[[Properties, Context], Properties] | None = None,
    delete: str | None = None,
    identify: Callable[[Properties, Properties], Properties] | None = None,
) -> Row:
    def changed(p: Properties, context: Context) -> Properties:
        return only(p if convert is None else convert(p, context), ("Name", *updated))

    return Row(
        service="databrew",
        create=f"Create{noun}" if create is None else create,
        update=f"Update{noun}" if update is None else update,
        delete=f"Delete{noun}" if delete is None else delete,
        identify=by("Name") if identify is None else identify,
        ref=lambda p, out, found: str(out["Name"]),
        convert=convert,
        convert_update=changed,
    )


def _first_version(p: Properties, out: Properties) -> Properties:
    """A recipe that nobody published has its working version only."""
    return {"Name": out.get("Name", p.get("Name")), "RecipeVersion": "LATEST_WORKING"}


def _arn(member: str) -> Callable[[Any, Any, Any], str]:
    return lambda p, out, found: str(out[member])


TABLE = {
    "AWS::EMRServerless::Application": Row(
        service="emr-serverless",
        create="CreateApplication",
        read="GetApplication",
        update="UpdateApplication",
        delete="DeleteApplication",
        identify=by("applicationId"),
        convert_update=lambda p, c: only(
            p,
            (
                "ReleaseLabel",
                "Architecture",
                "ImageConfiguration",
                "AutoStartConfiguration",
                "AutoStopConfiguration",
                "MaximumCapacity",
                "NetworkConfiguration",
                "InitialCapacity",
                "RuntimeConfiguration",
                "MonitoringConfiguration",
                "WorkerTypeSpecifications",
            ),
        ),
        ref=lambda p, out, found: str(out["applicationId"]),
        attributes=lambda p, out, found: {"ApplicationId": str(out["applicationId"]), "Arn": str(out["arn"])},
    ),
    "AWS::Batch::ComputeEnvironment": Row(
        service="batch",
        create="CreateComputeEnvironment",
        update="UpdateComputeEnvironment",
        delete="DeleteComputeEnvironment",
        name="ComputeEnvironmentName",
        convert=_compute_environment,
        identify=lambda p, out: {"computeEnvironment": out["computeEnvironmentArn"]},
        convert_update=lambda p, c: only(p, ("State", "ComputeResources", "ServiceRole", "UpdatePolicy")),
        ref=_arn("computeEnvironmentArn"),
        attributes=lambda p, out, found: {"ComputeEnvironmentArn": str(out["computeEnvironmentArn"])},
        # How CloudFormation goes about a change, no property of the environment.
        beside=frozenset({"ReplaceComputeEnvironment"}),
    ),
    "AWS::Batch::JobQueue": Row(
        service="batch",
        create="CreateJobQueue",
        update="UpdateJobQueue",
        delete="DeleteJobQueue",
        name="JobQueueName",
        identify=lambda p, out: {"jobQueue": out["jobQueueArn"]},
        convert_update=lambda p, c: only(p, ("State", "Priority", "ComputeEnvironmentOrder")),
        ref=_arn("jobQueueArn"),
        attributes=lambda p, out, found: {"JobQueueArn": str(out["jobQueueArn"])},
    ),
    "AWS::Batch::JobDefinition": Row(
        service="batch",
        create="RegisterJobDefinition",
        delete="DeregisterJobDefinition",
        name="JobDefinitionName",
        identify=lambda p, out: {"jobDefinition": out["jobDefinitionArn"]},
        ref=_arn("jobDefinitionArn"),
        attributes=lambda p, out, found: {"JobDefinitionArn": str(out["jobDefinitionArn"])},
    ),
    "AWS::DataBrew::Dataset": _brew("Dataset", ("Format", "FormatOptions", "Input", "PathOptions")),
    "AWS::DataBrew::Ruleset": _brew("Ruleset", ("Description", "Rules"), convert=_ruleset),
    "AWS::DataBrew::Recipe": _brew(
        "Recipe", ("Description", "Steps"), delete="DeleteRecipeVersion", identify=_first_version
    ),
    "AWS::DataBrew::Project": _brew("Project", ("RoleArn", "Sample")),
    "AWS::DataBrew::Job": _brew(
        "Job",
        (
            "Configuration",
            "EncryptionKeyArn",
            "EncryptionMode",
            "JobSample",
            "LogSubscription",
            "MaxCapacity",
            "MaxRetries",
            "OutputLocation",
            "RoleArn",
            "Timeout",
            "ValidationConfigurations",
        ),
        create="CreateProfileJob",
        update="UpdateProfileJob",
        convert=_profile_job,
    ),
    "AWS::DataBrew::Schedule": _brew("Schedule", ("CronExpression", "JobNames")),
}
