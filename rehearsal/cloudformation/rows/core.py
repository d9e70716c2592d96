"""Rows of the first types: SageMaker, Glue, Lake Formation, scaling, delivery, operations."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from rehearsal.cloudformation.fitting import fitted
from rehearsal.cloudformation.rows.base import (
    Context,
    Properties,
    Row,
    by,
    flag,
    nothing,
    only,
    reached,
    text,
)
from rehearsal.services.engine import service_model

__all__ = ["TABLE"]

# -- SageMaker ----------------------------------------------------------------------------------------------


def _endpoint_settled(params: Properties, found: Properties) -> str | None:
    """An update that SageMaker rolled back leaves the endpoint in service, with the old configuration."""
    state = found["EndpointStatus"]
    if state in ("Failed", "UpdateRollbackFailed", "OutOfService"):
        return str(found.get("FailureReason", f"EndpointStatus is {state}"))
    if state != "InService":
        return None
    wanted = _tail(str(params["EndpointConfigName"]))
    if found["EndpointConfigName"] != wanted:
        reason = found.get("FailureReason", f"the endpoint still serves {found['EndpointConfigName']}")
        return f"Endpoint deployment was rolled back: {reason}"
    return ""


def _tail(name: str) -> str:
    return name.rsplit("/", 1)[-1] if name.startswith("arn:") else name


def _endpoint(p: Properties, context: Context) -> Properties:
    del context
    # Ref of an endpoint configuration is its ARN, and CloudFormation takes either.
    return {**p, "EndpointConfigName": _tail(str(p["EndpointConfigName"]))}


#: What only an update of an endpoint takes.
_ON_UPDATE = ("ExcludeRetainedVariantProperties", "RetainAllVariantProperties", "RetainDeploymentConfig")


def _endpoint_config(p: Properties, context: Context) -> Properties:
    del context
    # Ref of a model is its ARN; a variant takes its name.
    variants: Properties = {
        key: [{**v, **({"ModelName": _tail(v["ModelName"])} if "ModelName" in v else {})} for v in p[key]]
        for key in ("ProductionVariants", "ShadowProductionVariants")
        if key in p
    }
    return {**p, **variants}


def _component_settled(params: Properties, found: Properties) -> str | None:
    """An update that SageMaker rolled back leaves the component in service, with the reason."""
    del params
    state = found["InferenceComponentStatus"]
    if state == "Failed" or (state == "InService" and "FailureReason" in found):
        return str(found.get("FailureReason", f"InferenceComponentStatus is {state}"))
    return "" if state == "InService" else None


def _component(p: Properties, without: tuple[str, ...]) -> Properties:
    out = {key: value for key, value in p.items() if key not in (*without, "EndpointArn")}
    if "Specification" in p and "ModelName" in p["Specification"]:
        model = _tail(str(p["Specification"]["ModelName"]))
        out["Specification"] = {**p["Specification"], "ModelName": model}
    if "RuntimeConfig" in p:
        out["RuntimeConfig"] = only(p["RuntimeConfig"], ("CopyCount",))
    return out


def _pipeline(p: Properties, context: Context) -> Properties:
    definition = p["PipelineDefinition"]
    out = {key: value for key, value in p.items() if key != "PipelineDefinition"}
    if "PipelineDefinitionS3Location" in definition:
        place = definition["PipelineDefinitionS3Location"]
        out["PipelineDefinitionS3Location"] = {
            "Bucket": place["Bucket"],
            "ObjectKey": place["Key"],
            **({"VersionId": place["Version"]} if "Version" in place else {}),
        }
    elif "PipelineDefinitionBody" in definition:
        out["PipelineDefinition"] = definition["PipelineDefinitionBody"]
    else:
        raise ValueError("PipelineDefinition needs PipelineDefinitionBody or PipelineDefinitionS3Location")
    if "ParallelismConfiguration" in p:
        out["ParallelismConfiguration"] = p["ParallelismConfiguration"]
    del context
    return out


def _group_policy(p: Properties, ident: Properties, context: Context) -> None:
    if "ModelPackageGroupPolicy" in p:
        context.client("sagemaker").put_model_package_group_policy(
            ModelPackageGroupName=ident["ModelPackageGroupName"],
            ResourcePolicy=text(p["ModelPackageGroupPolicy"]),
        )


def _sagemaker(noun: str, **given: Any) -> Row:
    name = given.pop("name", f"{noun}Name")
    defaults: dict[str, Any] = {
        "service": "sagemaker",
        "create": f"Create{noun}",
        "read": f"Describe{noun}",
        "delete": f"Delete{noun}",
        "name": name,
        "identify": by(name),
    }
    return Row(**{**defaults, **given})


def _job_definition(kind: str) -> Row:
    return _sagemaker(f"{kind}JobDefinition", name="JobDefinitionName", beside=frozenset({"EndpointName"}))


_SAGEMAKER = {
    "ModelPackageGroup": _sagemaker(
        "ModelPackageGroup", finish=_group_policy, beside=frozenset({"ModelPackageGroupPolicy"})
    ),
    "Model": _sagemaker("Model"),
    "EndpointConfig": _sagemaker("EndpointConfig", convert=_endpoint_config),
    "Endpoint": _sagemaker(
        "Endpoint",
        update="UpdateEndpoint",
        settled=_endpoint_settled,
        convert=lambda p, c: {k: v for k, v in _endpoint(p, c).items() if k not in _ON_UPDATE},
        convert_update=lambda p, c: {k: v for k, v in _endpoint(p, c).items() if k != "Tags"},
    ),
    "InferenceComponent": _sagemaker(
        "InferenceComponent",
        update="UpdateInferenceComponent",
        settled=_component_settled,
        convert=lambda p, c: _component(p, ("DeploymentConfig",)),
        convert_update=lambda p, c: _component(p, ("EndpointName", "VariantName", "Tags")),
    ),
    "Pipeline": _sagemaker(
        "Pipeline",
        update="UpdatePipeline",
        convert=_pipeline,
        convert_update=lambda p, c: {k: v for k, v in _pipeline(p, c).items() if k != "Tags"},
    ),
    "DataQualityJobDefinition": _job_definition("DataQuality"),
    "ModelQualityJobDefinition": _job_definition("ModelQuality"),
    "ModelBiasJobDefinition": _job_definition("ModelBias"),
    "ModelExplainabilityJobDefinition": _job_definition("ModelExplainability"),
    "MonitoringSchedule": _sagemaker(
        "MonitoringSchedule",
        update="UpdateMonitoringSchedule",
        beside=frozenset(
            {"EndpointName", "FailureReason", "LastMonitoringExecutionSummary", "MonitoringScheduleStatus"}
        ),
        settled=reached("MonitoringScheduleStatus", ["Scheduled", "Stopped"], ["Failed"]),
    ),
    "MlflowTrackingServer": _sagemaker(
        "MlflowTrackingServer", name="TrackingServerName", update="UpdateMlflowTrackingServer"
    ),
    "MlflowApp": _sagemaker("MlflowApp", name="Name", identify=by("Arn"), update="UpdateMlflowApp"),
    "ModelCard": _sagemaker(
        "ModelCard",
        update="UpdateModelCard",
        convert=lambda p, c: {**p, "Content": text(p["Content"])},
    ),
    "NotebookInstanceLifecycleConfig": _sagemaker("NotebookInstanceLifecycleConfig"),
    "Image": _sagemaker(
        "Image",
        convert=lambda p, c: {
            ("RoleArn" if k == "ImageRoleArn" else k.replace("ImageD", "D")): v for k, v in p.items()
        },
    ),
    "CodeRepository": _sagemaker("CodeRepository"),
}

# -- Lake Formation -----------------------------------------------------------------------------------------


def _lake_settings(p: Properties, context: Context) -> Properties:
    """APPEND adds administrators to those there are; REPLACE, the default, makes them the only ones."""
    settings = {key: value for key, value in p.items() if key not in ("Admins", "MutationType")}
    admins = list(p.get("Admins", []))
    if p.get("MutationType") == "APPEND":
        there = context.client("lakeformation").get_data_lake_settings()["DataLakeSettings"]
        known = there.get("DataLakeAdmins", [])
        admins = [*known, *(admin for admin in admins if admin not in known)]
    return {"DataLakeSettings": {**settings, "DataLakeAdmins": admins}}


def _grant(p: Properties, context: Context) -> Properties:
    del context
    return {("CatalogId" if key == "Catalog" else key): value for key, value in p.items()}


def _same_params(params: Properties, output: Properties) -> Properties:
    del output
    return {key: value for key, value in params.items() if key != "Tags"}


def _digest(p: Properties) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(p, sort_keys=True, default=str).encode()).hexdigest()[:32]


_LAKE_FORMATION = {
    "DataLakeSettings": Row(
        service="lakeformation",
        create="PutDataLakeSettings",
        update="PutDataLakeSettings",
        identify=nothing,
        convert=_lake_settings,
        convert_update=_lake_settings,
        ref=lambda p, out, found: _digest(p),
    ),
    "Resource": Row(
        service="lakeformation",
        create="RegisterResource",
        update="UpdateResource",
        delete="DeregisterResource",
        identify=by("ResourceArn"),
        convert=lambda p, c: {
            **{k: v for k, v in p.items() if k != "UseServiceLinkedRole"},
            "UseServiceLinkedRole": flag(p["UseServiceLinkedRole"]),
        },
        convert_update=lambda p, c: only(
            p, ("ResourceArn", "RoleArn", "WithFederation", "HybridAccessEnabled")
        ),
        ref=lambda p, out, found: str(p["ResourceArn"]),
    ),
    "PrincipalPermissions": Row(
        service="lakeformation",
        create="GrantPermissions",
        delete="RevokePermissions",
        identify=_same_params,
        convert=_grant,
        as_deployer=True,
        ref=lambda p, out, found: f"{p['Principal']['DataLakePrincipalIdentifier']}|{_digest(p['Resource'])}",
        attributes=lambda p, out, found: {
            "PrincipalIdentifier": p["Principal"]["DataLakePrincipalIdentifier"],
            "ResourceIdentifier": _digest(p["Resource"]),
        },
    ),
}


# -- Glue ---------------------------------------------------------------------------------------------------


def _crawler(p: Properties, context: Context) -> Properties:
    del context
    out = dict(p)
    if "Schedule" in p:
        out["Schedule"] = p["Schedule"].get("ScheduleExpression")
    return out


def _crawler_update(p: Properties, context: Context) -> Properties:
    return {key: value for key, value in _crawler(p, context).items() if key != "Tags"}


def _security_configuration(p: Properties, context: Context) -> Properties:
    del context
    renamed = {"S3Encryptions": "S3Encryption"}
    encryption = {renamed.get(key, key): value for key, value in p["EncryptionConfiguration"].items()}
    return {**p, "EncryptionConfiguration": encryption}


_JOB_UPDATE_OMITS = ("Name", "Tags")

_GLUE = {
    "Job": Row(
        service="glue",
        create="CreateJob",
        read="GetJob",
        update="UpdateJob",
        delete="DeleteJob",
        name="Name",
        identify=lambda p, out: {"JobName": out.get("Name", p.get("Name"))},
        convert_update=lambda p, c: {
            "JobName": p["Name"],
            "JobUpdate": {k: v for k, v in p.items() if k not in _JOB_UPDATE_OMITS},
        },
    ),
    "Crawler": Row(
        service="glue",
        create="CreateCrawler",
        read="GetCrawler",
        update="UpdateCrawler",
        delete="DeleteCrawler",
        name="Name",
        identify=by("Name"),
        convert=_crawler,
        convert_update=_crawler_update,
    ),
    "Workflow": Row(
        service="glue",
        create="CreateWorkflow",
        read="GetWorkflow",
        update="UpdateWorkflow",
        delete="DeleteWorkflow",
        name="Name",
        identify=by("Name"),
        convert_update=lambda p, c: {k: v for k, v in p.items() if k != "Tags"},
    ),
    "Trigger": Row(
        service="glue",
        create="CreateTrigger",
        read="GetTrigger",
        update="UpdateTrigger",
        delete="DeleteTrigger",
        name="Name",
        identify=by("Name"),
        convert_update=lambda p, c: {
            "Name": p["Name"],
            "TriggerUpdate": only(
                p, ("Description", "Schedule", "Actions", "Predicate", "EventBatchingCondition")
            ),
        },
    ),
    "SecurityConfiguration": Row(
        service="glue",
        create="CreateSecurityConfiguration",
        delete="DeleteSecurityConfiguration",
        name="Name",
        identify=by("Name"),
        convert=_security_configuration,
    ),
    "DataQualityRuleset": Row(
        service="glue",
        create="CreateDataQualityRuleset",
        read="GetDataQualityRuleset",
        update="UpdateDataQualityRuleset",
        delete="DeleteDataQualityRuleset",
        name="Name",
        identify=by("Name"),
        convert_update=lambda p, c: only(p, ("Name", "Description", "Ruleset")),
    ),
}

# -- scaling, delivery, operations ---------------------------------------------------------------------------

_SCALABLE = ("ServiceNamespace", "ResourceId", "ScalableDimension")


def _scheduled_actions(p: Properties, ident: Properties, context: Context) -> None:
    """The schedules stand in the target's properties and are calls of their own."""
    client = context.client("application-autoscaling")
    shape = service_model("application-autoscaling").operation_model("PutScheduledAction").input_shape
    wanted = p.get("ScheduledActions") or []
    for action in wanted:
        client.put_scheduled_action(**fitted(shape, {**ident, **action}, "PutScheduledAction"))
    there = client.describe_scheduled_actions(**ident)["ScheduledActions"]
    for name in {one["ScheduledActionName"] for one in there} - {
        str(one["ScheduledActionName"]) for one in wanted
    }:
        client.delete_scheduled_action(ScheduledActionName=name, **ident)


def _scaling_policy(p: Properties, context: Context) -> Properties:
    del context
    out = {key: value for key, value in p.items() if key != "ScalingTargetId"}
    if "ScalingTargetId" in p:
        parts = str(p["ScalingTargetId"]).split("|")
        if len(parts) != 3:
            raise ValueError(
                f"ScalingTargetId must be the Ref of a scalable target, got {p['ScalingTargetId']!r}"
            )
        out.update(zip(("ResourceId", "ScalableDimension", "ServiceNamespace"), parts, strict=True))
    return out


def _security_group_rule(peer: str) -> Callable[[Properties, Context], Properties]:
    def convert(p: Properties, context: Context) -> Properties:
        del context
        rule: Properties = {"IpProtocol": str(p["IpProtocol"])}
        rule.update({key: int(p[key]) for key in ("FromPort", "ToPort") if key in p})
        described = {"Description": p["Description"]} if "Description" in p else {}
        if "CidrIp" in p:
            rule["IpRanges"] = [{"CidrIp": p["CidrIp"], **described}]
        if "CidrIpv6" in p:
            rule["Ipv6Ranges"] = [{"CidrIpv6": p["CidrIpv6"], **described}]
        if f"{peer}SecurityGroupId" in p:
            rule["UserIdGroupPairs"] = [{"GroupId": p[f"{peer}SecurityGroupId"], **described}]
        if f"{peer}PrefixListId" in p:
            rule["PrefixListIds"] = [{"PrefixListId": p[f"{peer}PrefixListId"], **described}]
        return {"GroupId": p["GroupId"], "IpPermissions": [rule]}

    return convert


def _flow_log(p: Properties, context: Context) -> Properties:
    del context
    out = {key: value for key, value in p.items() if key not in ("ResourceId", "Tags")}
    if "Tags" in p:
        out["TagSpecifications"] = [{"ResourceType": "vpc-flow-log", "Tags": p["Tags"]}]
    return {**out, "ResourceIds": [p["ResourceId"]]}


def _budget(p: Properties, context: Context) -> Properties:
    out = {**p, "AccountId": context.runtime.account}
    budget = dict(p["Budget"])
    budget.setdefault("BudgetName", f"{context.stack}-{context.logical_id}"[:100])
    out["Budget"] = budget
    if "ResourceTags" in p:
        out["ResourceTags"] = p["ResourceTags"]
    return out


def _tagged(kind: str) -> Callable[[Properties, Context], Properties]:
    def convert(p: Properties, context: Context) -> Properties:
        del context
        out = {key: value for key, value in p.items() if key != "Tags"}
        if "Tags" in p:
            out["TagSpecifications"] = [{"ResourceType": kind, "Tags": p["Tags"]}]
        return out

    return convert


def _codepipeline(p: Properties, context: Context) -> Properties:
    declared = {
        k: v
        for k, v in p.items()
        if k not in ("Tags", "RestartExecutionOnUpdate", "DisableInboundStageTransitions")
    }
    declared.setdefault("Name", f"{context.stack}-{context.logical_id}"[:100])
    return {"pipeline": declared, **({"tags": p["Tags"]} if "Tags" in p else {})}


def _restart_pipeline(p: Properties, ident: Properties, context: Context) -> None:
    """RestartExecutionOnUpdate: CloudFormation itself starts what it has changed."""
    if flag(p.get("RestartExecutionOnUpdate", False)):
        client = context.client("codepipeline")
        # What has never run here has no source here.
        if client.list_pipeline_executions(pipelineName=ident["name"])["pipelineExecutionSummaries"]:
            client.start_pipeline_execution(name=ident["name"])


def _trail(p: Properties, context: Context) -> Properties:
    del context
    renamed = {"TrailName": "Name", "KMSKeyId": "KmsKeyId", "Tags": "TagsList"}
    beside = ("IsLogging", "EventSelectors", "AdvancedEventSelectors", "InsightSelectors")
    return {renamed.get(key, key): value for key, value in p.items() if key not in beside}


def _trail_finish(p: Properties, ident: Properties, context: Context) -> None:
    client = context.client("cloudtrail")
    if flag(p.get("IsLogging", False)):
        client.start_logging(Name=ident["Name"])
    else:
        client.stop_logging(Name=ident["Name"])
    selectors = {key: p[key] for key in ("EventSelectors", "AdvancedEventSelectors") if key in p}
    if selectors:
        client.put_event_selectors(TrailName=ident["Name"], **selectors)


def _connection(service: str) -> Row:
    return Row(
        service=service,
        create="CreateConnection",
        read="GetConnection",
        delete="DeleteConnection",
        identify=by("ConnectionArn"),
    )


def _arn_of_alarm(p: Properties, out: Properties, found: Properties) -> Properties:
    del out
    alarms = found.get("CompositeAlarms", [])
    return {"Arn": next(alarm["AlarmArn"] for alarm in alarms if alarm["AlarmName"] == p["AlarmName"])}


_REST = {
    "AWS::ApplicationAutoScaling::ScalableTarget": Row(
        service="application-autoscaling",
        create="RegisterScalableTarget",
        update="RegisterScalableTarget",
        delete="DeregisterScalableTarget",
        identify=by(*_SCALABLE),
        ref=lambda p, out, found: "|".join(
            str(p[k]) for k in ("ResourceId", "ScalableDimension", "ServiceNamespace")
        ),
        beside=frozenset({"ScheduledActions"}),
        finish=_scheduled_actions,
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": Row(
        service="application-autoscaling",
        create="PutScalingPolicy",
        update="PutScalingPolicy",
        delete="DeleteScalingPolicy",
        identify=by("PolicyName", *_SCALABLE),
        convert=_scaling_policy,
        convert_update=_scaling_policy,
        ref=lambda p, out, found: str(out["PolicyARN"]),
        attributes=lambda p, out, found: {"Arn": out["PolicyARN"]},
    ),
    "AWS::Budgets::Budget": Row(
        service="budgets",
        create="CreateBudget",
        delete="DeleteBudget",
        convert=_budget,
        identify=lambda p, out: {"AccountId": p["AccountId"], "BudgetName": p["Budget"]["BudgetName"]},
        update="UpdateBudget",
        convert_update=lambda p, c: {"AccountId": c.runtime.account, "NewBudget": _budget(p, c)["Budget"]},
        ref=lambda p, out, found: str(p["Budget"]["BudgetName"]),
    ),
    "AWS::EC2::FlowLog": Row(
        service="ec2",
        create="CreateFlowLogs",
        delete="DeleteFlowLogs",
        convert=_flow_log,
        identify=lambda p, out: {"FlowLogIds": out["FlowLogIds"]},
        ref=lambda p, out, found: str(out["FlowLogIds"][0]),
        attributes=lambda p, out, found: {"Id": out["FlowLogIds"][0]},
    ),
    "AWS::EC2::EIP": Row(
        service="ec2",
        create="AllocateAddress",
        delete="ReleaseAddress",
        convert=_tagged("elastic-ip"),
        identify=by("AllocationId"),
        ref=lambda p, out, found: str(out["PublicIp"]),
        attributes=lambda p, out, found: only(out, ("AllocationId", "PublicIp")),
    ),
    "AWS::EC2::NatGateway": Row(
        service="ec2",
        create="CreateNatGateway",
        delete="DeleteNatGateway",
        convert=_tagged("natgateway"),
        identify=lambda p, out: {"NatGatewayId": out["NatGateway"]["NatGatewayId"]},
        ref=lambda p, out, found: str(out["NatGateway"]["NatGatewayId"]),
        attributes=lambda p, out, found: {"NatGatewayId": out["NatGateway"]["NatGatewayId"]},
    ),
    "AWS::EC2::SecurityGroupIngress": Row(
        service="ec2",
        create="AuthorizeSecurityGroupIngress",
        delete="RevokeSecurityGroupIngress",
        convert=_security_group_rule("Source"),
        identify=by("GroupId", "IpPermissions"),
        ref=lambda p, out, found: _digest(p),
    ),
    "AWS::EC2::SecurityGroupEgress": Row(
        service="ec2",
        create="AuthorizeSecurityGroupEgress",
        delete="RevokeSecurityGroupEgress",
        convert=_security_group_rule("Destination"),
        identify=by("GroupId", "IpPermissions"),
        ref=lambda p, out, found: _digest(p),
    ),
    "AWS::CloudWatch::CompositeAlarm": Row(
        service="cloudwatch",
        create="PutCompositeAlarm",
        update="PutCompositeAlarm",
        read="DescribeAlarms",
        delete="DeleteAlarms",
        name="AlarmName",
        identify=lambda p, out: {"AlarmNames": [p["AlarmName"]]},
        ref=lambda p, out, found: str(p["AlarmName"]),
        attributes=_arn_of_alarm,
    ),
    "AWS::Athena::NamedQuery": Row(
        service="athena",
        create="CreateNamedQuery",
        delete="DeleteNamedQuery",
        name="Name",
        identify=by("NamedQueryId"),
        convert=lambda p, c: p,
    ),
    "AWS::CodePipeline::Pipeline": Row(
        service="codepipeline",
        create="CreatePipeline",
        update="UpdatePipeline",
        delete="DeletePipeline",
        convert=_codepipeline,
        convert_update=lambda p, c: {"pipeline": _codepipeline(p, c)["pipeline"]},
        after_update=_restart_pipeline,
        identify=lambda p, out: {"name": out["pipeline"]["name"]},
        ref=lambda p, out, found: str(out["pipeline"]["name"]),
        attributes=lambda p, out, found: {"Version": str(out["pipeline"].get("version", 1))},
    ),
    "AWS::CodeStarConnections::Connection": _connection("codestar-connections"),
    "AWS::CodeConnections::Connection": _connection("codeconnections"),
    "AWS::CloudTrail::Trail": Row(
        service="cloudtrail",
        create="CreateTrail",
        delete="DeleteTrail",
        name="TrailName",
        convert=_trail,
        update="UpdateTrail",
        convert_update=lambda p, c: {k: v for k, v in _trail(p, c).items() if k != "TagsList"},
        identify=by("Name"),
        finish=_trail_finish,
        ref=lambda p, out, found: str(out["Name"]),
        attributes=lambda p, out, found: {"Arn": out["TrailARN"]},
    ),
    "AWS::Events::Archive": Row(
        service="events",
        create="CreateArchive",
        update="UpdateArchive",
        delete="DeleteArchive",
        name="ArchiveName",
        identify=by("ArchiveName"),
        convert=lambda p, c: _archive(p),
        convert_update=lambda p, c: {k: v for k, v in _archive(p).items() if k != "EventSourceArn"},
        ref=lambda p, out, found: str(p["ArchiveName"]),
        attributes=lambda p, out, found: {"Arn": out["ArchiveArn"]},
    ),
    "AWS::Logs::QueryDefinition": Row(
        service="logs",
        create="PutQueryDefinition",
        update="PutQueryDefinition",
        delete="DeleteQueryDefinition",
        identify=lambda p, out: {"queryDefinitionId": out["queryDefinitionId"]},
        ref=lambda p, out, found: str(out["queryDefinitionId"]),
        attributes=lambda p, out, found: {"QueryDefinitionId": out["queryDefinitionId"]},
    ),
}


def _archive(p: Properties) -> Properties:
    out = {("EventSourceArn" if key == "SourceArn" else key): value for key, value in p.items()}
    if "EventPattern" in out:
        out["EventPattern"] = text(out["EventPattern"])
    return out


#: SageMaker, Lake Formation, Glue and what stands around them.
TABLE: Mapping[str, Row] = {
    **{f"AWS::SageMaker::{noun}": row for noun, row in _SAGEMAKER.items()},
    **{f"AWS::LakeFormation::{noun}": row for noun, row in _LAKE_FORMATION.items()},
    **{f"AWS::Glue::{noun}": row for noun, row in _GLUE.items()},
    **_REST,
}
