"""Chapter: an approval brings the model into service, through CloudFormation."""

from __future__ import annotations

import time
from typing import Any

from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require, wait_until
from rehearsal.story.traffic import ask, quantile, questions
from rehearsal.story.training import set_status

__all__ = ["STEPS", "approve", "parameter_value", "serving_stack"]

CHAPTER = "Serve"
ROLLOUT_SECONDS = 420


def parameter_value(tale: Tale) -> str:
    """What the approval parameter says now."""
    name = tale.outputs("Models")["ApprovedModelParameter"]
    value: str = tale.cloud.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    return value


def serving_stack(tale: Tale) -> dict[str, Any]:
    """The serving stack, described."""
    name = tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}Serving")
    stack: dict[str, Any] = tale.cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return stack


def approve(tale: Tale, package_arn: str) -> None:
    """Approve a version, as the person does who may."""
    tale.cloud.client("sagemaker").update_model_package(
        ModelPackageArn=package_arn,
        ModelApprovalStatus="Approved",
        ApprovalDescription="approved in the rehearsal",
    )


def await_promotion(tale: Tale, package_arn: str) -> None:
    """Wait until the promotion function has written the parameter."""

    def ending() -> str | None:
        described = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=package_arn)
        if described["ModelApprovalStatus"] == "Rejected":
            return f"the version was rejected: {described.get('ApprovalDescription')}"
        return None

    wait_until(
        "the promotion of the approved version",
        lambda: parameter_value(tale) == package_arn,
        seconds=120,
        ending=ending,
    )


def await_service(tale: Tale) -> dict[str, Any]:
    """Wait until the serving stack is updated and its endpoint in service; return the endpoint."""

    def settled() -> bool:
        status: str = serving_stack(tale)["StackStatus"]
        return status == "UPDATE_COMPLETE"

    def ending() -> str | None:
        stack = serving_stack(tale)
        if "ROLLBACK" in stack["StackStatus"] or "FAILED" in stack["StackStatus"]:
            return f"stack {stack['StackName']} is {stack['StackStatus']}: {_first_failure(tale)}"
        return None

    wait_until("the update of the serving stack", settled, seconds=ROLLOUT_SECONDS, ending=ending)
    endpoint = describe_endpoint(tale)
    require(endpoint["EndpointStatus"] == "InService", f"the endpoint is {endpoint['EndpointStatus']}")
    return endpoint


def describe_endpoint(tale: Tale) -> dict[str, Any]:
    """The workload's endpoint, described."""
    found: dict[str, Any] = tale.cloud.client("sagemaker").describe_endpoint(
        EndpointName=tale.outputs("Serving")["EndpointName"]
    )
    return found


def _first_failure(tale: Tale) -> str:
    name = serving_stack(tale)["StackName"]
    events = tale.cloud.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    failed = [e for e in events if e["ResourceStatus"].endswith("_FAILED")]
    return "; ".join(f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason', '')}" for e in failed[:3])


def _approve(tale: Tale, evidence: Evidence) -> None:
    arn = tale.known["package"]["ModelPackageArn"]
    started = time.monotonic()
    approve(tale, arn)
    await_promotion(tale, arn)
    evidence["parameter_after_seconds"] = round(time.monotonic() - started, 1)
    # Whoever updates the stack finds it idle first; the update follows the parameter.
    endpoint = await_first_service(tale)
    evidence |= {
        "in_service_after_seconds": round(time.monotonic() - started, 1),
        "endpoint": endpoint["EndpointName"],
        "endpoint_config": endpoint["EndpointConfigName"],
        "capture": endpoint.get("DataCaptureConfig", {}).get("DestinationS3Uri"),
        "parameter": arn,
    }
    evidence["version_status"] = set_status(tale, arn)
    tale.report.model |= {
        "version": tale.known["package"]["ModelPackageVersion"],
        "approved": evidence["version_status"] == "Approved",
        "metrics": tale.report.model["history"][-1]["metrics"],
    }
    tale.known["serving"] = arn


def await_first_service(tale: Tale) -> dict[str, Any]:
    """Wait for the endpoint's first deployment."""
    wait_until(
        "the start of the serving stack's update",
        lambda: serving_stack(tale)["StackStatus"] not in ("CREATE_COMPLETE",),
        seconds=60,
    )
    return await_service(tale)


def _scaling(tale: Tale, evidence: Evidence) -> None:
    scaling = tale.cloud.client("application-autoscaling")
    name = tale.outputs("Serving")["EndpointName"]
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    own = [t for t in targets if t["ResourceId"].startswith(f"endpoint/{name}/")]
    require(own, f"endpoint {name} is no scalable target")
    policies = scaling.describe_scaling_policies(
        ServiceNamespace="sagemaker", ResourceId=own[0]["ResourceId"]
    )["ScalingPolicies"]
    require(policies, f"{own[0]['ResourceId']} has no scaling policy")
    wanted = tale.workload.serving.scaling
    evidence |= {
        "target": own[0]["ResourceId"],
        "min_capacity": own[0]["MinCapacity"],
        "max_capacity": own[0]["MaxCapacity"],
        "policy": policies[0]["PolicyType"],
        "target_value": policies[0]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"],
    }
    require(
        (own[0]["MinCapacity"], own[0]["MaxCapacity"]) == (wanted.min_capacity, wanted.max_capacity),
        f"the target scales from {own[0]['MinCapacity']} to {own[0]['MaxCapacity']}, the workload says "
        f"{wanted.min_capacity} to {wanted.max_capacity}",
    )


def _traffic(tale: Tale, evidence: Evidence) -> None:
    bodies = questions(tale, tale.inputs.live)
    answers = ask(tale, bodies)
    values = tale.contract.label.values
    if values is not None:
        strange = {a.label for a in answers} - set(values)
        require(not strange, f"the endpoint answered labels that the contract does not know: {strange}")
    milliseconds = [a.seconds * 1000 for a in answers]
    evidence |= {
        "requests": len(answers),
        "failed": 0,
        "p50_ms": round(quantile(milliseconds, 0.5), 1),
        "p99_ms": round(quantile(milliseconds, 0.99), 1),
    }
    tale.known["usual answers"] = answers
    tale.cloud.server.control("POST", "/endpoints/flush", {})
    lines = captured_lines(tale)
    evidence |= {"captured": lines, "capture": tale.outputs("Serving")["CaptureUri"]}
    require(
        tale.workload.serving.capture_percent < 100 or lines >= len(answers),
        f"{len(answers)} requests were answered, {lines} were captured",
    )


def captured_lines(tale: Tale) -> int:
    """How many requests data capture has written."""
    objects = tale.cloud.objects.list(tale.outputs("Serving")["CaptureUri"], suffix=".jsonl")
    return sum(len(tale.cloud.objects.read(uri).splitlines()) for uri in objects)


def _attack(tale: Tale, evidence: Evidence) -> None:
    from botocore.exceptions import ClientError

    endpoint = tale.outputs("Serving")["EndpointName"]
    runtime = tale.cloud.client("sagemaker-runtime")
    good = questions(tale, tale.inputs.live[:1])[0]
    attacks = [
        ("no JSON", b"{not json", "application/json", {400}),
        ("not UTF-8", b"\xff\xfe\x00", "application/json", {400}),
        ("empty body", b" ", "application/json", {400}),
        ("a list of nothing", b"[]", "application/json", {400}),
        ("an unknown type", good, "image/png", {415}),
        ("deep nesting", b"[" * 20_000, "application/json", {400}),
    ]
    rows = []
    for title, body, content_type, allowed in attacks:
        try:
            runtime.invoke_endpoint(EndpointName=endpoint, ContentType=content_type, Body=body)
            status = 200
        except ClientError as error:
            answer: Any = error.response
            status = int(answer.get("OriginalStatusCode", 0))
        rows.append({"request": title, "answer": status})
        require(status in allowed, f"{title} must be answered with {allowed}, got {status}")
    evidence["attacks"] = rows
    after = ask(tale, [good])
    evidence["answers_after_them"] = after[0].score is not None
    if after[0].score != tale.known["usual answers"][0].score:
        raise StoryError("after bad requests the endpoint scores the same record differently")


STEPS = (
    Step(
        id="approve",
        title="Approved: the promotion function updates the serving stack, the endpoint comes into service",
        chapter=CHAPTER,
        run=_approve,
        capabilities=lambda _: ("serve.realtime", "registry.versions", "observe.notify"),
    ),
    Step(
        id="scaling",
        title="The endpoint is a scalable target with a tracking policy",
        chapter=CHAPTER,
        run=_scaling,
        capabilities=lambda _: ("scale.target",),
    ),
    Step(
        id="traffic",
        title="Live records are scored and captured",
        chapter=CHAPTER,
        run=_traffic,
        capabilities=lambda _: ("serve.realtime",),
    ),
    Step(
        id="attack",
        title="Bad requests are refused and harm nothing",
        chapter=CHAPTER,
        run=_attack,
        capabilities=lambda _: ("serve.contract",),
    ),
)
