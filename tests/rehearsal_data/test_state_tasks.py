"""State machines that run other services' jobs to their end, and call any API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

BUCKET = "state-tasks"
SCRIPT = """
import sys
import boto3
from pyspark.sql import SparkSession
from helper import NAME
spark = SparkSession.builder.getOrCreate()
total = spark.range(int(sys.argv[2])).selectExpr("sum(id) as total").first()["total"]
if total < 0 or sys.argv[1] != "--rows":
    raise ValueError("this cannot be")
if total == 0:
    raise ValueError("nothing to sum")
boto3.client("s3").put_object(Bucket=NAME, Key="out/total", Body=str(total).encode())
"""


@pytest.fixture(scope="module")
def lake(client: Callable[[str], Any]) -> None:
    client("s3").create_bucket(Bucket=BUCKET)
    client("s3").put_object(Bucket=BUCKET, Key="code/job.py", Body=SCRIPT.encode())
    client("s3").put_object(Bucket=BUCKET, Key="code/helper.py", Body=f'NAME = "{BUCKET}"'.encode())


@pytest.fixture(scope="module")
def application(client: Callable[[str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = client("emr-serverless").create_application(
        name="sums",
        releaseLabel="emr-7.7.0",
        type="SPARK",
        maximumCapacity={"cpu": "8 vCPU", "memory": "32 GB"},
    )
    return found


@pytest.fixture(scope="module")
def job_role(role: Any) -> str:
    objects = f"arn:aws:s3:::{BUCKET}"
    arn: str = role(
        "sums-job",
        "emr-serverless.amazonaws.com",
        [
            {"Action": "s3:GetObject", "Resource": f"{objects}/code/*"},
            {"Action": "s3:PutObject", "Resource": f"{objects}/out/*"},
        ],
    )
    return arn


def run(
    server: ServerProcess, client: Callable[[str], Any], machine_role: str, states: dict[str, Any], name: str
) -> dict[str, Any]:
    """Run a state machine to its end."""
    machines = client("stepfunctions")
    arn = machines.create_state_machine(
        name=name,
        roleArn=machine_role,
        definition=json.dumps({"StartAt": next(iter(states)), "States": states}),
    )["stateMachineArn"]
    started = machines.start_execution(stateMachineArn=arn, input="{}")["executionArn"]
    for _ in range(600):
        found: dict[str, Any] = machines.describe_execution(executionArn=started)
        if found["status"] != "RUNNING":
            return found
        server.control("GET", "/idle?timeout_seconds=1")
    raise AssertionError("the execution does not end")


def sums(application: dict[str, Any], job_role: str, rows: int) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::emr-serverless:startJobRun.sync",
        "Parameters": {
            "ApplicationId": application["applicationId"],
            "ExecutionRoleArn": job_role,
            "Name": "sums",
            "JobDriver": {
                "SparkSubmit": {
                    "EntryPoint": f"s3://{BUCKET}/code/job.py",
                    "EntryPointArguments.$": f"States.Array('--rows', '{rows}')",
                    "SparkSubmitParameters": f"--conf spark.submit.pyFiles=s3://{BUCKET}/code/helper.py",
                }
            },
        },
        "End": True,
    }


@pytest.fixture(scope="module")
def machine_role(role: Any, application: dict[str, Any], job_role: str) -> str:
    arn: str = role(
        "sums-machine",
        "states.amazonaws.com",
        [
            {"Action": "emr-serverless:StartJobRun", "Resource": application["arn"]},
            {"Action": "emr-serverless:GetJobRun", "Resource": f"{application['arn']}/jobruns/*"},
            {"Action": "iam:PassRole", "Resource": job_role},
            {"Action": "states:ListExecutions"},
        ],
    )
    return arn


@pytest.mark.usefixtures("lake")
def test_should_run_a_spark_job_to_its_end_as_its_own_role(
    server: ServerProcess,
    client: Callable[[str], Any],
    application: dict[str, Any],
    job_role: str,
    machine_role: str,
) -> None:
    found = run(server, client, machine_role, {"Sum": sums(application, job_role, 5)}, "sum")
    assert found["status"] == "SUCCEEDED", found
    assert json.loads(found["output"])["State"] == "SUCCESS"
    assert client("s3").get_object(Bucket=BUCKET, Key="out/total")["Body"].read() == b"10"


@pytest.mark.usefixtures("lake")
def test_should_fail_the_task_with_what_the_script_raised(
    server: ServerProcess,
    client: Callable[[str], Any],
    application: dict[str, Any],
    job_role: str,
    machine_role: str,
) -> None:
    found = run(server, client, machine_role, {"Sum": sums(application, job_role, 1)}, "nothing")
    assert found["status"] == "FAILED"
    assert "nothing to sum" in found["cause"]


@pytest.mark.usefixtures("lake")
def test_should_refuse_what_the_machines_role_may_not_do(
    server: ServerProcess, client: Callable[[str], Any], application: dict[str, Any], job_role: str, role: Any
) -> None:
    nobody = role("sums-nobody", "states.amazonaws.com", [{"Action": "states:ListExecutions"}])
    found = run(server, client, nobody, {"Sum": sums(application, job_role, 5)}, "refused")
    assert found["error"] == "States.Permissions"
    assert "emr-serverless:StartJobRun" in found["cause"]


def test_should_call_any_api_and_answer_in_pascal_case(
    server: ServerProcess, client: Callable[[str], Any], machine_role: str
) -> None:
    states = {
        "Runs": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sfn:listExecutions",
            "Parameters": {"StateMachineArn.$": "$$.StateMachine.Id", "StatusFilter": "RUNNING"},
            "ResultSelector": {"mine.$": "$.Executions[0].ExecutionArn"},
            "End": True,
        }
    }
    found = run(server, client, machine_role, states, "lists")
    assert found["status"] == "SUCCEEDED", found
    assert json.loads(found["output"]) == {"mine": found["executionArn"]}


def test_should_name_an_unknown_member_instead_of_dropping_it(
    server: ServerProcess, client: Callable[[str], Any], machine_role: str
) -> None:
    states = {
        "Runs": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sfn:listExecutions",
            "Parameters": {"StateMachine": "x"},
            "End": True,
        }
    }
    found = run(server, client, machine_role, states, "misspelt")
    assert "has no member StateMachine" in found["cause"]
