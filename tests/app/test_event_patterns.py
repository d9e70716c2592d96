"""A rule whose pattern no event can match deploys without a word and never fires.

Every rule of every stack is held against the events that AWS emits. The table below is the part of AWS's
event reference that the app builds on: the paths that an event has, and the values where they are an enum.
Sources: "Amazon EventBridge Events Reference"; "Events that SageMaker AI sends to EventBridge".
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from cdk_support import Assembly, Template, resources

#: (source, detail-type) -> path in detail -> allowed values; None where any text may stand.
Fields = dict[str, frozenset[str] | None]
JOB_STATUS = frozenset({"InProgress", "Completed", "Failed", "Stopping", "Stopped"})
PIPELINE_STATUS = frozenset({"Executing", "Succeeded", "Failed", "Stopping", "Stopped"})
ENDPOINT_STATUS = frozenset({"CREATING", "IN_SERVICE", "UPDATING", "ROLLING_BACK", "FAILED", "DELETING"})
EVENTS: dict[tuple[str, str], Fields] = {
    ("aws.sagemaker", "SageMaker Model Package State Change"): {
        "ModelPackageGroupName": None,
        "ModelPackageName": None,
        "ModelPackageArn": None,
        "ModelPackageVersion": None,
        "ModelPackageStatus": frozenset({"Pending", "InProgress", "Completed", "Failed", "Deleting"}),
        "ModelApprovalStatus": frozenset({"Approved", "Rejected", "PendingManualApproval"}),
    },
    ("aws.sagemaker", "SageMaker Processing Job State Change"): {
        "ProcessingJobName": None,
        "ProcessingJobArn": None,
        "ProcessingJobStatus": JOB_STATUS,
    },
    ("aws.sagemaker", "SageMaker Training Job State Change"): {
        "TrainingJobName": None,
        "TrainingJobArn": None,
        "TrainingJobStatus": JOB_STATUS,
    },
    ("aws.sagemaker", "SageMaker Model Building Pipeline Execution Status Change"): {
        "pipelineArn": None,
        "pipelineExecutionArn": None,
        "currentPipelineExecutionStatus": frozenset(
            {"Executing", "Succeeded", "Failed", "Stopping", "Stopped"}
        ),
    },
    ("aws.sagemaker", "SageMaker Endpoint State Change"): {
        "EndpointName": None,
        "EndpointStatus": frozenset(
            {"CREATING", "IN_SERVICE", "UPDATING", "ROLLING_BACK", "FAILED", "DELETING"}
        ),
    },
    ("aws.cloudwatch", "CloudWatch Alarm State Change"): {
        "alarmName": None,
        "state.value": frozenset({"ALARM", "OK", "INSUFFICIENT_DATA"}),
    },
    ("aws.cloudformation", "CloudFormation Stack Status Change"): {
        "stack-id": None,
        "status-details.status": frozenset(
            f"{verb}_{state}"
            for verb in ("CREATE", "UPDATE", "DELETE", "ROLLBACK", "UPDATE_ROLLBACK")
            for state in ("IN_PROGRESS", "COMPLETE", "FAILED")
        ),
    },
    ("aws.glue", "Glue Job State Change"): {
        "jobName": None,
        "jobRunId": None,
        "state": frozenset({"SUCCEEDED", "FAILED", "TIMEOUT", "STOPPED"}),
    },
    ("aws.s3", "Object Created"): {"bucket.name": None, "object.key": None, "reason": None},
    ("aws.codecommit", "CodeCommit Repository State Change"): {
        "event": frozenset({"referenceCreated", "referenceUpdated", "referenceDeleted"}),
        "referenceName": None,
        "referenceType": frozenset({"branch", "tag"}),
    },
}


def leaves(detail: dict[str, Any], path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every leaf of a pattern with its path, ``state.value``."""
    for key, value in detail.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from leaves(value, here)
        else:
            yield here, value


def why_never(pattern: dict[str, Any]) -> list[str]:
    """Reasons why no event of AWS can match the pattern; empty when one can."""
    problems = []
    for source in pattern.get("source", []):
        for kind in pattern.get("detail-type", []):
            if (source, kind) not in EVENTS:
                problems.append(f"no event {kind!r} of {source!r} is known")
                continue
            fields = EVENTS[(source, kind)]
            for path, values in leaves(pattern.get("detail", {})):
                if path not in fields:
                    problems.append(f"{kind!r} has no detail.{path}")
                    continue
                allowed = fields[path]
                literals = [value for value in values if isinstance(value, str)]
                problems += [
                    f"detail.{path} of {kind!r} is never {value!r}"
                    for value in literals
                    if allowed is not None and value not in allowed
                ]
    if not pattern.get("source") or not pattern.get("detail-type"):
        problems.append("a pattern names its source and its detail-type")
    return problems


def patterns(templates: dict[str, Template]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Event patterns of all rules on AWS's events, by stack and logical id."""
    for stack, template in templates.items():
        for name, rule in resources(template, "AWS::Events::Rule").items():
            pattern = rule["Properties"].get("EventPattern")
            if pattern is not None:
                yield f"{stack}/{name}", pattern


def test_should_only_have_rules_that_some_event_of_aws_can_match(assembly: Assembly) -> None:
    found = dict(patterns(assembly.templates()))
    assert any("Models/" in name for name in found), sorted(found)
    assert {name: why for name, pattern in found.items() if (why := why_never(pattern))} == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": ["aws.sagemakr"]}, "no event"),
        ({"detail-type": ["SageMaker Model Package Status Change"]}, "no event"),
        ({"detail": {"ModelApprovalState": ["Approved"]}}, "has no detail.ModelApprovalState"),
        ({"detail": {"ModelApprovalStatus": ["APPROVED"]}}, "is never 'APPROVED'"),
        ({"source": []}, "names its source"),
    ],
)
def test_should_catch_a_pattern_that_never_matches(change: dict[str, Any], reason: str) -> None:
    good = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelApprovalStatus": ["Approved"], "ModelPackageGroupName": ["dev-claims-fraud"]},
    }
    assert why_never(good) == []
    bad = copy.deepcopy(good) | change
    assert any(reason in problem for problem in why_never(bad))
