"""Resource types of processing, made and changed through CloudFormation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]


def template(cpu: str, bounds: tuple[str, str]) -> str:
    low, high = bounds
    return json.dumps(
        {
            "Resources": {
                "Spark": {
                    "Type": "AWS::EMRServerless::Application",
                    "Properties": {
                        "Name": "rows",
                        "Type": "SPARK",
                        "ReleaseLabel": "emr-7.7.0",
                        "MaximumCapacity": {"Cpu": cpu, "Memory": "64 GB"},
                    },
                },
                "Dataset": {
                    "Type": "AWS::DataBrew::Dataset",
                    "Properties": {
                        "Name": "rows",
                        "Input": {"S3InputDefinition": {"Bucket": "a-bucket", "Key": "a/"}},
                    },
                },
                "Ruleset": {
                    "Type": "AWS::DataBrew::Ruleset",
                    "Properties": {
                        "Name": "rows",
                        "TargetArn": {
                            "Fn::Sub": "arn:aws:databrew:${AWS::Region}:${AWS::AccountId}:dataset/${Dataset}"
                        },
                        "Rules": [
                            {
                                "Name": "range",
                                "CheckExpression": ":col1 is_between :val1 and :val2",
                                "SubstitutionMap": [
                                    {"ValueReference": ":col1", "Value": "`age`"},
                                    {"ValueReference": ":val1", "Value": low},
                                    {"ValueReference": ":val2", "Value": high},
                                ],
                            }
                        ],
                    },
                },
            },
            "Outputs": {"Application": {"Value": {"Fn::GetAtt": ["Spark", "ApplicationId"]}}},
        }
    )


def test_should_make_and_change_applications_and_rulesets(client: Callable[[str], Any]) -> None:
    stacks = client("cloudformation")
    stacks.create_stack(StackName="processing-rows", TemplateBody=template("16 vCPU", ("0", "120")))
    stacks.get_waiter("stack_create_complete").wait(
        StackName="processing-rows", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    (output,) = stacks.describe_stacks(StackName="processing-rows")["Stacks"][0]["Outputs"]

    def capacity() -> str:
        found = client("emr-serverless").get_application(applicationId=output["OutputValue"])
        return str(found["application"]["maximumCapacity"]["cpu"])

    def upper() -> str:
        (rule,) = client("databrew").describe_ruleset(Name="rows")["Rules"]
        return str(rule["SubstitutionMap"][":val2"])

    assert (capacity(), upper()) == ("16 vCPU", "120")
    stacks.update_stack(StackName="processing-rows", TemplateBody=template("32 vCPU", ("0", "99")))
    stacks.get_waiter("stack_update_complete").wait(
        StackName="processing-rows", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    assert (capacity(), upper()) == ("32 vCPU", "99")
    stacks.delete_stack(StackName="processing-rows")
    stacks.get_waiter("stack_delete_complete").wait(
        StackName="processing-rows", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
