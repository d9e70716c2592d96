"""Retry policies of pipeline steps: read as SageMaker reads them, applied to what it applies them to."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.executors.pipelines.retries import (
    RetryPolicy,
    exception_of_call,
    exception_of_job,
    policy_for,
    read_policies,
)


def policies(
    *given: dict[str, Any], step_type: str = "Training"
) -> tuple[tuple[RetryPolicy, ...], list[str]]:
    problems: list[str] = []
    return read_policies("Train", step_type, list(given), problems), problems


def test_should_read_a_policy_with_its_defaults() -> None:
    (policy,), problems = policies({"ExceptionType": ["SageMaker.CAPACITY_ERROR"]})
    assert not problems
    assert (policy.interval_seconds, policy.backoff_rate, policy.max_attempts) == (1.0, 2.0, 5)
    assert [policy.wait_seconds(retry) for retry in (1, 2, 3)] == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"ExceptionType": ["Step.OTHER"]}, "ExceptionType must be of Step.SERVICE_FAULT"),
        ({}, "ExceptionType must be of"),
        ({"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 21}, "MaxAttempts must be at least 0 and at"),
        ({"ExceptionType": ["Step.THROTTLING"], "IntervalSeconds": 0}, "IntervalSeconds must be at least 1"),
        ({"ExceptionType": ["Step.THROTTLING"], "Every": 1}, "Every is not a member"),
    ],
)
def test_should_refuse_a_policy_that_sagemaker_refuses(item: dict[str, Any], said: str) -> None:
    found, problems = policies(item)
    assert not found
    assert said in " ".join(problems)


def test_should_refuse_an_exception_of_two_policies_and_a_step_without_any() -> None:
    one = {"ExceptionType": ["Step.THROTTLING"]}
    assert "two policies" in " ".join(policies(one, one)[1])
    assert "takes no RetryPolicies" in " ".join(policies(one, step_type="Condition")[1])


def test_should_try_again_what_a_policy_names_and_no_more_often() -> None:
    (policy,), _ = policies(
        {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "MaxAttempts": 2, "ExpireAfterMin": 1}
    )
    assert policy_for((policy,), "Training", "SageMaker.JOB_INTERNAL_ERROR") is policy
    assert policy_for((policy,), "Training", "SageMaker.CAPACITY_ERROR") is None
    assert policy_for((policy,), "Training", None) is None
    assert [policy.allows(retry, 0) for retry in (1, 2, 3)] == [True, True, False]
    assert not policy.allows(1, 61)


def test_should_leave_the_jobs_of_a_search_to_the_search() -> None:
    (policy,), _ = policies({"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"]}, step_type="Tuning")
    assert policy_for((policy,), "Tuning", "SageMaker.JOB_INTERNAL_ERROR") is None


def test_should_try_again_without_any_policy_when_the_service_is_at_fault() -> None:
    assert policy_for((), "Lambda", "Step.THROTTLING") is not None
    assert policy_for((), "Processing", "Step.SERVICE_FAULT") is not None
    assert policy_for((), "Processing", "SageMaker.JOB_INTERNAL_ERROR") is None


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ThrottlingException", 400, "Step.THROTTLING"),
        ("InternalFailure", 500, "Step.SERVICE_FAULT"),
        ("ResourceLimitExceeded", 400, "SageMaker.RESOURCE_LIMIT"),
        ("AccessDeniedException", 400, None),
    ],
)
def test_should_know_a_refusal_by_its_code(code: str, status: int, kind: str | None) -> None:
    assert exception_of_call(code, status) == kind


def test_should_know_a_failed_job_by_its_reason() -> None:
    internal = "InternalServerError: We encountered an internal error. Please try again."
    assert exception_of_job(internal) == "SageMaker.JOB_INTERNAL_ERROR"
    assert exception_of_job("CapacityError: Unable to provision") == "SageMaker.CAPACITY_ERROR"
    assert exception_of_job("AlgorithmError: exit code: 137") is None
