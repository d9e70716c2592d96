"""A workload that is served another way than in real time, in the whole of an environment."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks
from cdk_support import ROOT, Template, cdk_context, only, resources
from ml_contract.load import LoadedWorkload, load_workload
from ruamel.yaml import YAML

from environments import DEV, STAGING
from environments.model import Network
from stacks.stage import LifecycleStage

pytestmark = pytest.mark.slow


def claims(folder: Path, serving: dict[str, object]) -> LoadedWorkload:
    """The worked example with another ``serving`` block and without drift."""
    target = folder / "claims_fraud"
    shutil.copytree(ROOT / "workloads" / "claims_fraud", target)
    yaml = YAML()
    data = yaml.load(target / "workload.yaml")
    data["serving"] = serving
    data["retraining"] = {"on_drift": False}
    yaml.dump(data, target / "workload.yaml")
    return load_workload(target)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    """Serving and Operations of an environment whose one workload runs on Lambda, with batch jobs beside."""
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path_factory.mktemp("stage")))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    workload = claims(
        tmp_path_factory.mktemp("lambda"), {"style": "lambda", "batch": {"every_hours": 12, "join": "input"}}
    )
    LifecycleStage(app, "Dev", environment=DEV, workloads=[workload])
    folder = Path(app.synth().directory)
    return {
        name: json.loads(next(folder.rglob(f"*{name}*.template.json")).read_text())
        for name in ("ClaimsFraudServing", "ClaimsFraudOperations")
    }


def test_should_tell_how_the_model_is_asked(templates: dict[str, Template]) -> None:
    outputs = {name: o["Value"] for name, o in templates["ClaimsFraudServing"]["Outputs"].items()}
    assert outputs["ServingStyle"] == "lambda"
    assert outputs["FunctionName"] == "dev-claims-fraud-serving:live"
    assert {"TransformInputUri", "TransformOutputUri", "TransformStateMachineArn"} <= set(outputs)
    assert "EndpointName" not in outputs


def test_should_watch_no_drift_where_nothing_is_captured(templates: dict[str, Template]) -> None:
    operations = templates["ClaimsFraudOperations"]
    assert not {name for name in operations["Outputs"] if "Monitor" in name or "Drift" in name}
    assert not resources(operations, "AWS::Scheduler::Schedule")
    body = json.dumps(only(operations, "AWS::CloudWatch::Dashboard")["DashboardBody"])
    assert "FeatureDrift" not in body
    assert "AWS/Lambda" in body


def test_should_tell_who_is_to_know_of_files_that_were_not_scored(templates: dict[str, Template]) -> None:
    [alarm] = [
        a["Properties"]
        for name, a in resources(templates["ClaimsFraudServing"], "AWS::CloudWatch::Alarm").items()
        if name.startswith("BatchFailed")
    ]
    [action] = alarm["AlarmActions"]
    assert "Fn::ImportValue" in action


def test_should_refuse_tasks_that_cannot_reach_their_image(tmp_path: Path) -> None:
    workload = claims(tmp_path, {"style": "ecs"})
    with pytest.raises(
        ValueError, match=r"interface_endpoints must be True for serving\.style ecs, got False"
    ):
        LifecycleStage(cdk.App(context=cdk_context()), "Dev", environment=DEV, workloads=[workload])


def test_should_encrypt_requests_to_tasks_where_the_environment_has_a_certificate(tmp_path: Path) -> None:
    arn = "arn:aws:acm:eu-west-1:123456789012:certificate/0f"
    network = dataclasses.replace(STAGING.network, certificate_arn=arn)
    environment = dataclasses.replace(STAGING, network=network)
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path / "out"))
    workload = claims(tmp_path, {"style": "ecs"})
    LifecycleStage(app, "Staging", environment=environment, workloads=[workload])
    folder = Path(app.synth().directory)
    template = json.loads(next(folder.rglob("*ClaimsFraudServing*.template.json")).read_text())
    listener = only(template, "AWS::ElasticLoadBalancingV2::Listener")
    assert (listener["Port"], listener["Protocol"]) == (443, "HTTPS")
    assert listener["Certificates"] == [{"CertificateArn": arn}]
    assert "https://" in json.dumps(template["Outputs"]["ServiceUrl"])


def test_should_refuse_a_certificate_that_is_none() -> None:
    with pytest.raises(ValueError, match="certificate_arn must be an ARN of ACM, got 'mine'"):
        Network(certificate_arn="mine")
