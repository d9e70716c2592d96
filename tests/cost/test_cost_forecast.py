"""The forecast: what is billed, when, and that nothing is taken for free in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cdk_support import ROOT, Assembly
from small_assembly import resource, write

from cost import Load, difference, forecast, load_prices, loads_of, read_stacks
from cost.__main__ import main
from cost.load import HOURS, overridden
from cost.rules.compute import runs_a_month

PARCELS = Load(records_per_day=1_000_000, predictions_per_day=100_000, record_bytes=500)
APPROVED = {
    "Parameters": {
        "Approved": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/approved-model-package"},
        "Tried": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/challenger"},
    },
    "Conditions": {
        "IsApproved": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Approved"}, "none"]}]},
        "IsRunning": {"Fn::And": [{"Condition": "IsApproved"}, {"Fn::Equals": [1, 1]}]},
    },
}


def lines(folder: Path, resources: dict[str, Any], **template: Any) -> dict[str, tuple[float | None, str]]:
    """Quantity and state of every usage of a stack, by price."""
    stacks = read_stacks(write(folder, {"Dev/Data": resources}, **template))
    found = forecast(stacks, loads={"parcels": PARCELS})
    return {line.price: (line.quantity, line.state) for line in found.lines}


def test_should_price_a_stream_on_demand_by_the_hour_and_by_what_is_sent(tmp_path: Path) -> None:
    found = lines(
        tmp_path,
        {
            "Stream": resource(
                "AWS::Kinesis::Stream", workload="parcels", StreamModeDetails={"StreamMode": "ON_DEMAND"}
            ),
            "Consumer": resource("AWS::Kinesis::StreamConsumer", StreamARN={"Fn::GetAtt": ["Stream", "Arn"]}),
        },
    )
    assert found["kinesis.on-demand.stream"] == (HOURS, "rest")
    sent = PARCELS.records * 1024 / 1024**3
    assert found["kinesis.on-demand.in"] == (pytest.approx(sent), "load")
    assert found["kinesis.on-demand.fan-out"] == (pytest.approx(sent), "load")


def test_should_price_shards_their_retention_and_consumers(tmp_path: Path) -> None:
    stream = resource(
        "AWS::Kinesis::Stream",
        workload="parcels",
        StreamModeDetails={"StreamMode": "PROVISIONED"},
        ShardCount=3,
        RetentionPeriodHours=48,
    )
    found = lines(tmp_path, {"Stream": stream})
    assert found["kinesis.shard"] == found["kinesis.retention"] == (3 * HOURS, "rest")


def test_should_bill_an_endpoint_from_the_approval_of_a_model_on(tmp_path: Path) -> None:
    variant = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 2, "VariantName": "AllTraffic"}
    config = resource("AWS::SageMaker::EndpointConfig", ProductionVariants=[variant], Condition="IsApproved")
    scaling = resource(
        "AWS::ApplicationAutoScaling::ScalableTarget",
        MinCapacity=1,
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        ResourceId="endpoint/e/variant/AllTraffic",
    )
    assert lines(tmp_path / "a", {"Config": config}, **APPROVED) == {
        "sagemaker.instance:ml.m5.large": (2 * HOURS, "serving")
    }
    found = lines(tmp_path / "b", {"Config": config, "Scaling": scaling}, **APPROVED)
    assert found["sagemaker.instance:ml.m5.large"] == (HOURS, "serving")


def test_should_take_what_waits_for_a_parameter_for_absent_at_rest(tmp_path: Path) -> None:
    schedule = resource(
        "AWS::Scheduler::Schedule",
        ScheduleExpression="rate(1 hour)",
        State={"Fn::If": ["IsRunning", "ENABLED", "DISABLED"]},
        Target={
            "Arn": {
                "Fn::Join": [
                    "",
                    ["arn:", {"Ref": "AWS::Partition"}, ":::aws-sdk:sagemaker:createProcessingJob"],
                ]
            },
            "Input": '{"ClusterConfig":{"InstanceCount":2,"InstanceType":"ml.m5.large"}}',
        },
    )
    found = lines(tmp_path / "a", {"Monitor": schedule}, **APPROVED)
    assert found["sagemaker.instance:ml.m5.large"] == (pytest.approx(2 * HOURS * 5 / 60), "serving")
    alarm = resource("AWS::CloudWatch::Alarm", Condition="IsApproved")
    assert lines(tmp_path / "b", {"Alarm": alarm}, **APPROVED)["cloudwatch.alarm"] == (1, "serving")
    assert lines(tmp_path / "c", {"Alarm": resource("AWS::CloudWatch::Alarm")})["cloudwatch.alarm"] == (
        1,
        "rest",
    )


def test_should_follow_a_schedule_to_the_jobs_of_its_workflow(tmp_path: Path) -> None:
    found = lines(
        tmp_path,
        {
            "Workflow": resource("AWS::Glue::Workflow"),
            "Job": resource("AWS::Glue::Job", NumberOfWorkers=4, WorkerType="G.2X"),
            "Trigger": resource(
                "AWS::Glue::Trigger", WorkflowName={"Ref": "Workflow"}, Actions=[{"JobName": {"Ref": "Job"}}]
            ),
            "Nightly": resource(
                "AWS::Scheduler::Schedule",
                ScheduleExpression="cron(0 2 * * ? *)",
                Target={
                    "Arn": "arn:aws:scheduler:::aws-sdk:glue:startWorkflowRun",
                    "Input": {"Fn::Join": ["", ['{"Name":"', {"Ref": "Workflow"}, '"}']]},
                },
            ),
        },
    )
    assert found["glue.dpu"] == (pytest.approx(8 * 5 / 60 * HOURS / 24), "rest")


@pytest.mark.parametrize(
    ("expression", "runs"),
    [
        ("rate(30 days)", HOURS / 720),
        ("rate(5 minutes)", HOURS * 12),
        ("cron(20 * * * ? *)", HOURS),
        ("cron(20 0/6 * * ? *)", HOURS / 6),
        ("cron(0 2 * * ? *)", HOURS / 24),
        ("cron(0 7 ? * MON-FRI *)", HOURS / 24 * 5 / 7),
        ("at(2026-01-01T00:00:00)", None),
    ],
)
def test_should_count_the_runs_of_a_schedule(expression: str, runs: float | None) -> None:
    found = runs_a_month(expression)
    assert found is None if runs is None else found == pytest.approx(runs)


def test_should_list_what_it_cannot_price_instead_of_calling_it_free(tmp_path: Path) -> None:
    resources = {
        "New": resource("AWS::Brand::New"),
        "Machine": resource(
            "AWS::SageMaker::Cluster", InstanceGroups=[{"InstanceType": "ml.none.large", "InstanceCount": 1}]
        ),
        "Role": resource("AWS::IAM::Role"),
    }
    found = forecast(read_stacks(write(tmp_path, {"Dev/Data": resources})))
    assert set(found.not_priced) == {"AWS::Brand::New", "sagemaker.instance:ml.none.large"}
    assert found.total.load == 0


def test_should_price_each_stack_in_its_own_region(tmp_path: Path) -> None:
    here = {"Endpoint": resource("AWS::EC2::VPCEndpoint", VpcEndpointType="Interface", SubnetIds=["a", "b"])}
    frankfurt = forecast(read_stacks(write(tmp_path / "a", {"Dev/Net": here}, region="eu-central-1")))
    default = forecast(read_stacks(write(tmp_path / "b", {"Dev/Net": here})))
    assert frankfurt.total.rest == pytest.approx(0.012 * 2 * HOURS)
    assert default.total.rest == pytest.approx(0.01 * 2 * HOURS)
    stacks = read_stacks(write(tmp_path / "c", {"Dev/Net": here}, region="mars-north-1"))
    with pytest.raises(
        ValueError, match=r"region must be one of eu-central-1, us-east-1 .* got mars-north-1"
    ):
        forecast(stacks)


def test_should_say_what_a_change_costs(tmp_path: Path) -> None:
    key, alarm = resource("AWS::KMS::Key"), resource("AWS::CloudWatch::Alarm")
    old = write(tmp_path / "old", {"Dev/Data": {"Key": key}})
    new = write(
        tmp_path / "new", {"Dev/Data": {"Key": key, "Alarm": alarm, "What": resource("AWS::Brand::New")}}
    )
    found = difference(old, new)
    assert found.usd_per_month == pytest.approx(0.10)
    assert [(c.stack, c.service) for c in found.changes] == [("Dev/Data", "CloudWatch")]
    assert "AWS::Brand::New" in found.text()
    assert difference(new, new).changes == []
    assert difference(tmp_path / "none", old).usd_per_month == pytest.approx(1.0)
    assert difference(old, new, stage="Prod").usd_per_month == 0


def test_should_read_loads_from_the_command_line() -> None:
    loads = {"parcels": PARCELS, "letters": PARCELS}
    changed = overridden(loads, ["records=5", "letters:predictions=7,records=1"])
    assert changed["parcels"].records_per_day == 5
    assert (changed["letters"].records_per_day, changed["letters"].predictions_per_day) == (1, 7)
    with pytest.raises(ValueError, match="there is no workload 'boxes'"):
        overridden(loads, ["boxes:records=1"])
    with pytest.raises(ValueError, match="--load must be"):
        overridden(loads, ["records=many"])


# -- the app itself ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(assembly: Assembly) -> dict[str, Any]:
    """The forecast of dev as the program prints it, with its page."""
    workloads, loads = loads_of(ROOT / "workloads")
    stacks = [stack for stack in read_stacks(assembly.folder) if stack.stage == "Dev"]
    return forecast(stacks, workloads=workloads, loads=loads).to_json()


def test_should_know_every_type_and_price_of_every_environment(assembly: Assembly) -> None:
    workloads, loads = loads_of(ROOT / "workloads")
    assert forecast(read_stacks(assembly.folder), workloads=workloads, loads=loads).not_priced == {}


#: USD a month of a development environment at rest: what all workloads share, and each workload.
SHARED_AT_REST, WORKLOAD_AT_REST = 10, 32


def test_should_cost_next_to_nothing_at_rest_in_development(whole: dict[str, Any]) -> None:
    resting = {name: sums["rest"] for name, sums in whole["by_workload"].items()}
    assert resting.pop("shared") <= SHARED_AT_REST
    assert max(resting.values()) <= WORKLOAD_AT_REST, resting
    assert whole["total"]["idle"] > 2 * whole["total"]["rest"]


def test_should_print_and_draw(
    assembly: Assembly, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "cost.html"
    asked = ["--assembly", str(assembly.folder), "--environment", "dev"]
    assert main([*asked, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "Dev/Foundation" in said
    assert "not priced" not in said
    text = page.read_text()
    assert "<svg" in text
    assert "https://aws.amazon.com/kms/pricing/" in text
    assert main([*asked, "--json", "--load", "records=1"]) == 0
    assert json.loads(capsys.readouterr().out)["loads"]["claims_fraud"]["records_per_day"] == 1
    assert main(["--assembly", str(assembly.folder), "--environment", "moon"]) == 2
    assert "must be one of dev, prod, staging, all, got 'moon'" in capsys.readouterr().err
    assert main(["--assembly", str(tmp_path)]) == 2


def test_should_say_where_each_price_comes_from() -> None:
    table = load_prices()
    assert {"us-east-1", "eu-central-1"} <= set(table.regions)
    assert all(price.source.startswith("https://aws.amazon.com/") for price in table.prices.values())
    assert all(set(price.seen) <= set(price.usd) for price in table.prices.values())


def test_should_refuse_a_price_table_that_is_wrong(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "service": "S", "unit": "u", "source": "page", "usd": {"us-east-1": 0}},
        {"id": "a", "service": "S", "unit": "u", "source": "none", "usd": {}},
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"date": "d", "note": [], "sources": {"page": "p"}, "prices": rows}))
    with pytest.raises(ValueError, match=r"greater than 0, got 0 in us-east-1; a stands twice; a: source"):
        load_prices(path)
