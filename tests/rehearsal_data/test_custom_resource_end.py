"""A function that answers CloudFormation has not ended yet."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

NAME = "answers-early"
WRITES = {"Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}
CODE = """
import json, time, urllib.request

def handler(event, context):
    body = json.dumps({
        "Status": "SUCCESS", "PhysicalResourceId": "one", "Reason": "", "StackId": event["StackId"],
        "RequestId": event["RequestId"], "LogicalResourceId": event["LogicalResourceId"],
    }).encode()
    urllib.request.urlopen(urllib.request.Request(event["ResponseURL"], data=body, method="PUT"))
    time.sleep(1)
    print("the last line")
"""


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_leave_no_log_group_behind_that_a_late_line_makes(
    client: Callable[[str], Any], role: Any
) -> None:
    functions, logs, cloudformation = client("lambda"), client("logs"), client("cloudformation")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", CODE)
    function = functions.create_function(
        FunctionName=NAME,
        Runtime="python3.11",
        Handler="index.handler",
        Role=role("answers", "lambda.amazonaws.com", [WRITES]),
        Code={"ZipFile": packed.getvalue()},
        Timeout=30,
    )
    resource = {"Type": "Custom::Early", "Properties": {"ServiceToken": function["FunctionArn"]}}
    cloudformation.create_stack(StackName=NAME, TemplateBody=json.dumps({"Resources": {"One": resource}}))
    while (status := _status(cloudformation)) == "CREATE_IN_PROGRESS":
        time.sleep(0.1)
    assert status == "CREATE_COMPLETE"
    events = logs.filter_log_events(logGroupName=f"/aws/lambda/{NAME}")["events"]
    assert "the last line" in "".join(event["message"] for event in events)


def _status(cloudformation: Any) -> str:
    status: str = cloudformation.describe_stacks(StackName=NAME)["Stacks"][0]["StackStatus"]
    return status
