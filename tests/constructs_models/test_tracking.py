"""The tracking server: what stands around it, who may log, and what a tracked training job is then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from cdk_support import Template, only, resources, synthesise_stacks
from ml_contract.load import ContractError, LoadedWorkload
from ml_lifecycle.training import TrackingServer, TrainingPipeline
from model_support import NAME, Around, parcels, pipeline_definition, step

TRACKED = """
training: {track: mlflow}
"""


def server(around: Around, **options: Any) -> TrackingServer:
    """Define a server beside the lake."""
    network = options.pop("network", None) or around.network()
    vpc = around.stack.node.find_child("Vpc")
    assert isinstance(vpc, ec2.Vpc)
    return TrackingServer(
        around.stack,
        "Tracking",
        **{
            "name": "test-tracking",
            "artifacts": around.lake.artifacts,
            "vpc": vpc,
            "subnets": network.subnets,
            "clients": network.security_groups[0],
            **options,
        },
    )


def pipeline(stack: cdk.Stack, workload: LoadedWorkload, *, tracking: bool = True) -> None:
    """Define a pipeline, with a server or without."""
    around = Around(stack)
    network = around.network()
    TrainingPipeline(
        stack,
        "Training",
        workload=workload,
        pipeline_name=NAME,
        model_package_group_name=NAME,
        features=around.lake.features,
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        network=network,
        tracking=server(around, network=network) if tracking else None,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    folder, home = (tmp_path_factory.mktemp(name) for name in ("workloads", "assembly"))
    return synthesise_stacks(
        home,
        {
            "Tracked": lambda stack: pipeline(stack, parcels(folder, TRACKED)),
            "Untracked": lambda stack: pipeline(stack, parcels(folder)),
        },
    )


def test_should_define_a_small_server_that_registers_nothing_by_itself(
    templates: dict[str, Template],
) -> None:
    found = only(templates["Tracked"], "AWS::SageMaker::MlflowTrackingServer")
    assert found["TrackingServerName"] == "test-tracking"
    assert found["TrackingServerSize"] == "Small"
    assert found["AutomaticModelRegistration"] is False


def test_should_be_reached_through_an_endpoint_that_only_jobs_may_use(templates: dict[str, Template]) -> None:
    found = [
        endpoint["Properties"]
        for endpoint in resources(templates["Tracked"], "AWS::EC2::VPCEndpoint").values()
        if "experiments" in str(endpoint["Properties"]["ServiceName"])
    ]
    assert len(found) == 1
    assert found[0]["PrivateDnsEnabled"] is True
    assert str(found[0]["ServiceName"]).startswith("{'Fn::Join': ['', ['aws.sagemaker.'")


def test_should_leave_isolation_only_for_a_training_that_is_tracked(templates: dict[str, Template]) -> None:
    tracked = step(pipeline_definition(templates["Tracked"]), "Train")["Arguments"]
    assert tracked["EnableNetworkIsolation"] is False
    assert tracked["VpcConfig"]["Subnets"]
    assert list(tracked["Environment"]) == ["MLFLOW_TRACKING_URI"]
    plain = step(pipeline_definition(templates["Untracked"]), "Train")["Arguments"]
    assert plain["EnableNetworkIsolation"] is True
    assert "Environment" not in plain


def test_should_let_a_tracked_training_log_and_delete_nothing(templates: dict[str, Template]) -> None:
    def logging(name: str) -> set[str]:
        policies = resources(templates[name], "AWS::IAM::Policy").values()
        found = [one for policy in policies for one in policy["Properties"]["PolicyDocument"]["Statement"]]
        actions = [one["Action"] if isinstance(one["Action"], list) else [one["Action"]] for one in found]
        return {action for of in actions for action in of if action.startswith("sagemaker-mlflow:")}

    assert logging("Tracked") == {
        f"sagemaker-mlflow:{action}"
        for action in (
            "CreateExperiment",
            "CreateRun",
            "GetExperiment",
            "GetExperimentByName",
            "GetRun",
            "LogBatch",
            "LogMetric",
            "UpdateRun",
        )
    }
    assert logging("Untracked") == set()


def test_should_refuse_to_track_where_there_is_no_server(tmp_path: Path) -> None:
    workload = parcels(tmp_path, TRACKED)
    with pytest.raises(
        ContractError, match=r"this environment has no tracking server; name services\.tracking"
    ):
        pipeline(cdk.Stack(), workload, tracking=False)


def test_should_name_every_wrong_option_at_once() -> None:
    with pytest.raises(ValueError, match="tracking server: name must be") as caught:
        server(Around(cdk.Stack()), name="-x", size="Huge", prefix="/a", subnets=())
    for part in (
        "size must be one of Small, Medium, Large, got 'Huge'",
        "subnets must hold",
        "prefix must end",
    ):
        assert part in str(caught.value)
