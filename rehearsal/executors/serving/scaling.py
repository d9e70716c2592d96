"""Application Auto Scaling's API for SageMaker and ECS: what scales, by which policies and schedules."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rehearsal.executors import containers
from rehearsal.executors.serving import components, endpoints, fleet
from rehearsal.executors.serving.hosts import HostVariant
from rehearsal.executors.serving.models import is_asynchronous
from rehearsal.executors.serving.scaling_rules import steps_problem
from rehearsal.executors.serving.serverless import ServerlessVariant
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

__all__ = ["DIMENSIONS", "SCALED", "Dimension", "change", "current", "put_policy", "register", "target_of"]

_KEYS = ("ServiceNamespace", "ResourceId", "ScalableDimension")
_VARIANT = re.compile(r"endpoint/([^/]+)/variant/([^/]+)")
_SERVICE = re.compile(r"service/([^/]+)/([^/]+)")
_COMPONENT = re.compile(r"inference-component/([^/]+)")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One thing that scales: how it is named, what it has, and how it gets another count."""

    pattern: re.Pattern[str]
    form: str
    read: Callable[[Service, re.Match[str]], int]
    write: Callable[[Service, re.Match[str], int], object]
    least: Callable[[Service, re.Match[str]], int]


def _least_instances(sagemaker: Service, match: re.Match[str]) -> int:
    endpoint = fleet.ENDPOINTS.get(sagemaker.get("Endpoint", match[1]).arn)
    config = {"ProductionVariants": []} if endpoint is None or endpoint.blue is None else endpoint.blue.config
    # Zero is for asynchronous endpoints and for instances that only hold components.
    variant = None if endpoint is None else fleet.variant_of(endpoint, match[2])
    return 0 if is_asynchronous(config) or isinstance(variant, HostVariant) else 1


def _provisioned(sagemaker: Service, match: re.Match[str]) -> int:
    endpoint = fleet.endpoint_of(sagemaker.get("Endpoint", match[1]))
    variant = fleet.variant_of(endpoint, match[2])
    if not isinstance(variant, ServerlessVariant):
        raise ApiError("ValidationException", f"variant {variant.name} has no provisioned concurrency")
    return variant.desired


def _tasks(sagemaker: Service, match: re.Match[str]) -> int:
    client = sagemaker.runtime.client("ecs", region=sagemaker.region)
    found = client.describe_services(cluster=match[1], services=[match[2]])["services"]
    if not found or found[0]["status"] != "ACTIVE":
        raise ApiError("ValidationException", f"there is no ECS service {match[2]} in cluster {match[1]}")
    return int(found[0]["desiredCount"])


def _set_tasks(sagemaker: Service, match: re.Match[str], count: int) -> None:
    client = sagemaker.runtime.client("ecs", region=sagemaker.region)
    client.update_service(cluster=match[1], service=match[2], desiredCount=count)


#: The namespaces that are scaled here.
SCALED = frozenset({"sagemaker", "ecs"})

DIMENSIONS: Mapping[str, Dimension] = {
    "sagemaker:variant:DesiredInstanceCount": Dimension(
        pattern=_VARIANT,
        form="endpoint/NAME/variant/NAME",
        read=lambda s, m: endpoints.desired_instances(s, m[1], m[2]),
        write=lambda s, m, count: endpoints.set_desired_instances(s, m[1], m[2], count),
        least=_least_instances,
    ),
    "sagemaker:variant:DesiredProvisionedConcurrency": Dimension(
        pattern=_VARIANT,
        form="endpoint/NAME/variant/NAME",
        read=_provisioned,
        write=lambda s, m, count: endpoints.set_desired_instances(s, m[1], m[2], count),
        least=lambda _s, _m: 1,
    ),
    "sagemaker:inference-component:DesiredCopyCount": Dimension(
        pattern=_COMPONENT,
        form="inference-component/NAME",
        read=lambda s, m: components.desired_copies(s, m[1]),
        write=lambda s, m, count: components.set_desired_copies(s, m[1], count),
        least=lambda _s, _m: 0,
    ),
    "ecs:service:DesiredCount": Dimension(
        pattern=_SERVICE,
        form="service/CLUSTER/NAME",
        read=_tasks,
        write=_set_tasks,
        least=lambda _s, _m: 0,
    ),
}


def target_of(params: Mapping[str, Any]) -> str:
    """The name under which a scalable target is kept."""
    return "/".join(params[key] for key in _KEYS)


def _resource(params: Mapping[str, Any]) -> tuple[Dimension, re.Match[str]]:
    dimension = DIMENSIONS.get(params["ScalableDimension"])
    if dimension is None:
        raise ApiError(
            "ValidationException",
            f"ScalableDimension must be one of {', '.join(DIMENSIONS)}, got {params['ScalableDimension']}",
        )
    match = dimension.pattern.fullmatch(params["ResourceId"])
    if match is None:
        raise ApiError(
            "ValidationException", f"ResourceId is written {dimension.form}, got {params['ResourceId']}"
        )
    return dimension, match


def current(service: Service, target: Mapping[str, Any]) -> int:
    """What a target has now.

    :raises ApiError: it is gone
    """
    dimension, match = _resource(target)
    return dimension.read(service.runtime.service("sagemaker", service.region), match)


@instead("application-autoscaling", "RegisterScalableTarget")
def register(service: Service, call: Call) -> dict[str, Any]:
    """Register what exists, with sane bounds."""
    params = call.params
    least = 0
    if params["ServiceNamespace"] in SCALED:
        dimension, match = _resource(params)
        sagemaker = service.runtime.service("sagemaker", service.region)
        try:
            dimension.read(sagemaker, match)
            least = dimension.least(sagemaker, match)
        except (ApiError, KeyError) as error:
            raise ApiError(
                "ValidationException", f"{params['ResourceId']} does not exist; {_there(sagemaker, match)}"
            ) from error
    else:
        service.runtime.ledger.recorded(
            "scalable-target",
            params["ResourceId"],
            f"{params['ServiceNamespace']} is not scaled in the rehearsal",
        )
    known = service.peek("ScalableTarget", target_of(params))
    bounds = {**({} if known is None else known.data), **params}
    if "MinCapacity" not in bounds or "MaxCapacity" not in bounds:
        raise ApiError(
            "ValidationException", "MinCapacity and MaxCapacity are required for a new scalable target"
        )
    if bounds["MinCapacity"] > bounds["MaxCapacity"]:
        raise ApiError(
            "ValidationException",
            f"MinCapacity {bounds['MinCapacity']} must not exceed MaxCapacity {bounds['MaxCapacity']}",
        )
    if bounds["MinCapacity"] < least:
        raise ApiError(
            "ValidationException",
            f"MinCapacity of {params['ResourceId']} must be at least {least}, got {bounds['MinCapacity']}; "
            "only asynchronous endpoints and inference components scale to zero",
        )
    return service.generic(call)


def _there(sagemaker: Service, match: re.Match[str]) -> str:
    if match.re is _SERVICE:
        return "ECS has no such active service"
    if match.re is _COMPONENT:
        names = sorted(sagemaker.records.get("InferenceComponent", {}))
    else:
        record = sagemaker.peek("Endpoint", match[1])
        endpoint = None if record is None else fleet.ENDPOINTS.get(record.arn)
        names = [] if endpoint is None else [variant.name for variant in fleet.all_variants(endpoint)]
    return f"there are {', '.join(names) or 'none'}"


@instead("application-autoscaling", "DeregisterScalableTarget")
def deregister(service: Service, call: Call) -> dict[str, Any]:
    """Forget a target with its policies and scheduled actions."""
    name = target_of(call.params)
    if service.peek("ScalableTarget", name) is None:
        raise _not_found(f"No scalable target found for resource {call.params['ResourceId']}")
    with service.lock:
        for noun in ("ScalingPolicy", "ScheduledAction"):
            for record in list(service.records.get(noun, {}).values()):
                if target_of(record.data) == name:
                    service.remove(noun, record.name)
        service.remove("ScalableTarget", name)
    return {}


def _not_found(message: str) -> ApiError:
    return ApiError("ObjectNotFoundException", message)


@instead("application-autoscaling", "PutScalingPolicy")
def put_policy(service: Service, call: Call) -> dict[str, Any]:
    """Keep a policy of a registered target."""
    params = call.params
    target = target_of(params)
    if service.peek("ScalableTarget", target) is None:
        raise _not_found(f"No scalable target registered for {params['ResourceId']}")
    kind = params.get("PolicyType", "StepScaling")
    tracking = params.get("TargetTrackingScalingPolicyConfiguration")
    steps = params.get("StepScalingPolicyConfiguration")
    if kind == "TargetTrackingScaling" and tracking is None:
        raise ApiError("ValidationException", "TargetTrackingScaling needs its configuration")
    if kind == "StepScaling" and steps is None:
        raise ApiError("ValidationException", "StepScaling needs its configuration")
    if kind not in ("TargetTrackingScaling", "StepScaling"):
        raise ApiError("ValidationException", f"the rehearsal does not act upon {kind}")
    if tracking is not None:
        _check_tracking(params["ServiceNamespace"], tracking)
    if steps is not None and (problem := steps_problem(steps)) is not None:
        raise ApiError("ValidationException", problem)
    service.generic(call)
    record = service.get("ScalingPolicy", f"{target}:{params['PolicyName']}")
    record.arn = _policy_arn(service, params)
    # AWS also makes the alarms of target tracking and names them here; ours is judged without alarms.
    return {"PolicyARN": record.arn, "Alarms": []}


def _policy_arn(service: Service, params: Mapping[str, Any]) -> str:
    """The ARN as alarms name it ("Actions, resources, and condition keys for Application Auto Scaling")."""
    place = f"{params['ServiceNamespace']}/{params['ResourceId']}"
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, f"{target_of(params)}:{params['PolicyName']}")
    return (
        f"arn:aws:autoscaling:{service.region}:{service.account}:scalingPolicy:{identifier}:"
        f"resource/{place}:policyName/{params['PolicyName']}"
    )


#: Metric, statistic and dimensions of the predefined metrics of SageMaker.
PREDEFINED: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "SageMakerVariantInvocationsPerInstance": (
        "InvocationsPerInstance",
        "Sum",
        ("EndpointName", "VariantName"),
    ),
    "SageMakerVariantProvisionedConcurrencyUtilization": (
        "ServerlessProvisionedConcurrencyUtilization",
        "Maximum",
        ("EndpointName", "VariantName"),
    ),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": (
        "ConcurrentRequestsPerModel",
        "Maximum",
        ("EndpointName", "VariantName"),
    ),
    "SageMakerInferenceComponentInvocationsPerCopy": (
        "InvocationsPerCopy",
        "Sum",
        ("InferenceComponentName",),
    ),
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": (
        "ConcurrentRequestsPerCopy",
        "Maximum",
        ("InferenceComponentName",),
    ),
}


def _check_tracking(namespace: str, tracking: Mapping[str, Any]) -> None:
    given = [k for k in ("PredefinedMetricSpecification", "CustomizedMetricSpecification") if k in tracking]
    if len(given) != 1:
        raise ApiError("ValidationException", "give exactly one metric specification to track")
    if tracking["TargetValue"] <= 0:
        raise ApiError("ValidationException", f"TargetValue must be positive, got {tracking['TargetValue']}")
    metric = tracking.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
    if namespace == "sagemaker" and metric is not None and metric not in PREDEFINED:
        raise ApiError(
            "ValidationException", f"{metric} is no metric of SageMaker; there are {', '.join(PREDEFINED)}"
        )


@instead("application-autoscaling", "PutScheduledAction")
def put_schedule(service: Service, call: Call) -> dict[str, Any]:
    """Keep a schedule of a registered target."""
    params = call.params
    if service.peek("ScalableTarget", target_of(params)) is None:
        raise _not_found(f"No scalable target registered for {params['ResourceId']}")
    name = f"{target_of(params)}:{params['ScheduledActionName']}"
    known = service.peek("ScheduledAction", name)
    merged = {**({} if known is None else known.data), **params}
    if "Schedule" not in merged or "ScalableTargetAction" not in merged:
        raise ApiError("ValidationException", "Schedule and ScalableTargetAction are required")
    action = merged["ScalableTargetAction"]
    if action.get("MinCapacity", 0) > action.get("MaxCapacity", 2**31):
        raise ApiError(
            "ValidationException",
            f"MinCapacity {action['MinCapacity']} must not exceed MaxCapacity {action['MaxCapacity']}",
        )
    _check_schedule(service, merged)
    if known is None:
        service.put("ScheduledAction", name, params)
    else:
        service.update(known, **params)
    return {}


def _check_schedule(service: Service, action: Mapping[str, Any]) -> None:
    from rehearsal.executors.scheduler import next_time

    now = service.runtime.clock.now()
    try:
        next_time(action["Schedule"], after=now, anchor=now, zone=action.get("Timezone", "UTC"))
    except (ValueError, KeyError) as error:
        raise ApiError("ValidationException", f"Schedule {action['Schedule']}: {error}") from error


@instead("application-autoscaling", "DescribeScheduledActions")
def describe_schedules(service: Service, call: Call) -> dict[str, Any]:
    """List the scheduled actions of a namespace, as far as the filters say."""
    p = call.params
    found = [
        {
            **record.data,
            "ScheduledActionARN": record.arn,
            "CreationTime": record.created,
        }
        for record in list(service.records.get("ScheduledAction", {}).values())
        if all(record.data.get(key) == p[key] for key in _KEYS if key in p)
        and record.data["ScheduledActionName"]
        in p.get("ScheduledActionNames", [record.data["ScheduledActionName"]])
    ]
    return {"ScheduledActions": found}


@instead("application-autoscaling", "DeleteScheduledAction")
def delete_schedule(service: Service, call: Call) -> dict[str, Any]:
    """Forget a scheduled action."""
    name = f"{target_of(call.params)}:{call.params['ScheduledActionName']}"
    if service.peek("ScheduledAction", name) is None:
        raise _not_found(f"No scheduled action named {call.params['ScheduledActionName']}")
    service.remove("ScheduledAction", name)
    return {}


@instead("application-autoscaling", "DescribeScalingActivities")
def describe_activities(service: Service, call: Call) -> dict[str, Any]:
    """List what was scaled, the newest first."""
    p = call.params
    records = list(service.records.get("ScalingActivity", {}).values())
    wanted = [r.data for r in records if all(r.data.get(key) == p[key] for key in _KEYS if key in p)]
    return {"ScalingActivities": wanted[::-1][: p.get("MaxResults", 50)]}


def change(service: Service, target: Record, wanted: int, *, cause: str, at: datetime) -> None:
    """Give a target another count, in the background: starting a container takes its time."""
    dimension, match = _resource(target.data)
    sagemaker = service.runtime.service("sagemaker", service.region)
    before = dimension.read(sagemaker, match)
    activity = {
        **{key: target.data[key] for key in _KEYS},
        "ActivityId": str(uuid.uuid4()),
        "Description": f"Setting desired count to {wanted}.",
        "Cause": cause,
        "StartTime": at,
        "StatusCode": "InProgress",
    }
    record = service.put("ScalingActivity", activity["ActivityId"], activity)

    def work() -> None:
        try:
            dimension.write(sagemaker, match, wanted)
        except Exception as error:
            service.update(record, StatusCode="Failed", StatusMessage=str(error))
            raise
        service.update(record, StatusCode="Successful", EndTime=service.runtime.clock.now())
        service.runtime.ledger.ran(
            "scaling", target.data["ResourceId"], before=before, after=wanted, cause=cause
        )

    containers.start_work(service.runtime, f"scaling {target.data['ResourceId']} to {wanted}", work)
