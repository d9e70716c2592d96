"""What keeps a training from starting: the month's budget, and too little new data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from retrain_trigger import handler as entry
from retrain_trigger.aws import SageMakerPipelines
from retrain_trigger.budget import Job, month_of, objection, prices, spent
from retrain_trigger.errors import BadEventError, MisconfiguredError
from retrain_trigger.logic import Champion, Execution, Refusal, Trigger, retrain
from retrain_trigger.settings import Budget, NewData, Settings, Telling

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MONTH = datetime(2026, 11, 1, tzinfo=UTC)
NEW = {
    "detail-type": "Glue Job State Change",
    "time": "2026-11-21T12:00:00Z",
    "detail": {"jobName": "features", "state": "SUCCEEDED"},
}


class FakePipelines:
    """Executions, what each was billed for, how many rows there are and what each learned from."""

    def __init__(
        self,
        *executions: Execution,
        jobs: Mapping[str, Sequence[Job]] | None = None,
        rows: int | None = None,
        learned: Mapping[str, int] | None = None,
    ) -> None:
        self.executions = executions
        self.billed = {} if jobs is None else jobs
        self.counted = rows
        self.learned = {} if learned is None else learned
        self.started = 0
        self.noted = ""

    def latest(self, pipeline_name: str) -> Sequence[Execution]:
        return self.executions

    def alarms_on(self, names: Sequence[str]) -> Mapping[str, datetime]:
        return {}

    def since(self, pipeline_name: str, moment: datetime) -> Sequence[Execution]:
        return [e for e in self.executions if e.started >= moment]

    def jobs(self, execution_arn: str) -> Sequence[Job]:
        return self.billed.get(execution_arn, ())

    def rows(self, note_uri: str) -> int | None:
        return self.counted

    def learned_rows(self, training_uri: str, execution_arn: str) -> int | None:
        return self.learned.get(execution_arn)

    def champion(self, parameter_name: str) -> Champion | None:
        return None

    def start(self, pipeline_name: str, *, token: str, reason: str, parameters: Mapping[str, str]) -> str:
        self.started += 1
        return "arn:execution/new"

    def is_to_say(self, parameter_name: str, text: str, request: str, *, now: datetime) -> bool:
        return True

    def said(self, parameter_name: str, text: str) -> None:
        self.noted = text


def settings(budget: Budget | None = None, minimum: int | None = None) -> Settings:
    counted = None
    if minimum is not None:
        counted = NewData(minimum_records=minimum, note_uri="s3://f/n.json", training_uri="s3://a/t")
    return Settings(
        pipeline_name="p",
        workload="w",
        cooldown=timedelta(hours=1),
        budget=budget,
        new_data=counted,
        region="us-east-1",
    )


def execution(name: str, *, days_ago: float, status: str = "Succeeded") -> Execution:
    return Execution(arn=f"arn:execution/{name}", status=status, started=NOW - timedelta(days=days_ago))


def hours(instance_type: str, count: float) -> Job:
    return Job(instance_type=instance_type, instances=1, seconds=count * 3_600)


# --- what a month has cost ---


def test_should_add_up_the_billed_hours_of_every_job_by_the_price_of_the_region() -> None:
    jobs = {"a": [hours("ml.m5.large", 2), hours("ml.m5.xlarge", 1)], "b": [hours("ml.m5.large", 1)]}
    found = spent(["a", "b"], FakePipelines(jobs=jobs), Budget(usd=10), month=MONTH, region="us-east-1")

    assert found.month == "2026-11"
    assert found.runs == 2
    assert found.usd == pytest.approx(3 * 0.115 + 0.23)
    assert found.dearest_usd == pytest.approx(2 * 0.115 + 0.23)
    assert found.prices_of == prices("us-east-1")[0]


def test_should_count_every_instance_of_a_job() -> None:
    jobs = {"a": [Job(instance_type="ml.m5.large", instances=4, seconds=1_800)]}
    found = spent(["a"], FakePipelines(jobs=jobs), Budget(usd=1), month=MONTH, region="us-east-1")

    assert found.usd == pytest.approx(2 * 0.115)


def test_should_take_the_workloads_own_price_before_the_tables() -> None:
    jobs = {"a": [hours("ml.m5.large", 1), hours("ml.own.type", 1)]}
    own = Budget(usd=1, usd_per_hour={"ml.m5.large": 0.05, "ml.own.type": 0.5})

    found = spent(["a"], FakePipelines(jobs=jobs), own, month=MONTH, region="us-east-1")
    assert found.usd == pytest.approx(0.55)
    assert not found.unpriced


def test_should_not_call_a_job_without_a_price_free() -> None:
    jobs = {"a": [hours("ml.p5.48xlarge", 1)]}
    budget = Budget(usd=1_000)
    found = spent(["a"], FakePipelines(jobs=jobs), budget, month=MONTH, region="us-east-1")

    assert found.unpriced == ("ml.p5.48xlarge",)
    assert "ml.p5.48xlarge has no price here" in str(objection(found, budget))


def test_should_begin_the_month_in_utc() -> None:
    assert month_of(datetime.fromisoformat("2026-12-01T00:30:00+02:00")) == MONTH


@pytest.mark.parametrize(("limit", "starts"), [(0.46, True), (0.45, False)])
def test_should_leave_room_for_one_more_as_dear_as_the_dearest(limit: float, starts: bool) -> None:
    last = execution("last", days_ago=2)
    pipelines = FakePipelines(last, jobs={last.arn: [hours("ml.m5.xlarge", 1)]})

    result = retrain({"reason": "r"}, pipelines, settings(Budget(usd=limit)), now=NOW)

    assert result["started"] is starts
    assert pipelines.started == int(starts)


def test_should_count_the_trainings_of_this_month_only() -> None:
    pipelines = FakePipelines(execution("a", days_ago=5), execution("b", days_ago=30))

    assert retrain({"reason": "r"}, pipelines, settings(Budget(runs=2)), now=NOW)["started"] is True
    refused = retrain({"reason": "r"}, pipelines, settings(Budget(runs=1)), now=NOW)
    assert refused["why"] == "budget: 1 of 1 trainings of 2026-11 were started"
    assert isinstance(refused["refusal"], Refusal)


def test_should_have_the_prices_of_the_table_that_the_forecast_reads() -> None:
    ours = json.loads((ROOT / "lambda" / "retrain_trigger" / "prices.json").read_text())
    newest = json.loads(sorted((ROOT / "cost" / "prices").glob("*.json"))[-1].read_text())
    theirs = {row["id"]: row["usd"] for row in newest["prices"]}

    assert ours["date"] <= newest["date"]
    assert ours["usd_per_hour"] == {
        name: theirs[f"sagemaker.instance:{name}"] for name in ours["usd_per_hour"]
    }


# --- how much is new ---


def test_should_not_train_on_less_new_data_than_a_training_is_worth() -> None:
    last = execution("last", days_ago=2)
    pipelines = FakePipelines(last, rows=1_400, learned={last.arn: 1_000})

    refused = retrain(NEW, pipelines, settings(minimum=500), now=NOW)
    assert refused["why"] == (
        "400 new rows since arn:execution/last learned from 1000, a training is worth 500"
    )
    assert retrain(NEW, pipelines, settings(minimum=400), now=NOW)["started"] is True


def test_should_count_from_the_last_training_that_learned_something() -> None:
    executions = [
        execution("failed", days_ago=1, status="Failed"),
        execution("cached", days_ago=2),
        execution("good", days_ago=3),
    ]
    pipelines = FakePipelines(*executions, rows=150, learned={"arn:execution/good": 100})

    refused = retrain(NEW, pipelines, settings(minimum=60), now=NOW)
    assert str(refused["why"]).startswith("50 new rows since arn:execution/good")


def test_should_count_every_row_before_the_first_training() -> None:
    assert retrain(NEW, FakePipelines(rows=60), settings(minimum=60), now=NOW)["started"] is True


def test_should_not_train_where_nobody_says_how_much_is_new() -> None:
    refused = retrain(NEW, FakePipelines(), settings(minimum=1), now=NOW)
    assert "nobody can say how much is new" in str(refused["why"])


def test_should_ask_no_other_trigger_how_much_is_new() -> None:
    assert retrain({"reason": "r"}, FakePipelines(), settings(minimum=1), now=NOW)["started"] is True


@pytest.mark.parametrize(
    ("kind", "detail", "bad"),
    [
        (
            "SageMaker Processing Job State Change",
            {"ProcessingJobName": "dev-claims-features-1", "ProcessingJobStatus": "Completed"},
            {"ProcessingJobStatus": "Failed"},
        ),
        (
            "EMR Serverless Job Run State Change",
            {"jobRunName": "build_features", "state": "SUCCESS"},
            {"state": "FAILED"},
        ),
    ],
)
def test_should_hear_of_new_features_from_every_engine(
    kind: str, detail: dict[str, str], bad: dict[str, str]
) -> None:
    good = Trigger.from_event({"detail-type": kind, "detail": detail}, now=NOW)
    failed = Trigger.from_event({"detail-type": kind, "detail": {**detail, **bad}}, now=NOW)

    assert (good.new_data, good.ignored_because) == (True, None)
    assert good.reason.startswith("new data: job ")
    assert failed.ignored_because is not None
    with pytest.raises(BadEventError, match="has no detail"):
        Trigger.from_event({"detail-type": kind, "detail": {}}, now=NOW)


# --- AWS ---


def client(name: str) -> Any:
    return boto3.client(  # type: ignore[call-overload]
        name, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


def test_should_read_what_the_jobs_of_an_execution_were_billed_for() -> None:
    sagemaker = client("sagemaker")
    arn = "arn:aws:sagemaker:us-east-1:123456789012"
    steps: list[dict[str, Any]] = [
        {"StepName": "Train", "Metadata": {"TrainingJob": {"Arn": f"{arn}:training-job/t"}}},
        {"StepName": "Prepare", "Metadata": {"ProcessingJob": {"Arn": f"{arn}:processing-job/p"}}},
        {
            "StepName": "Cached",
            "CacheHitResult": {"SourcePipelineExecutionArn": f"{arn}:pipeline/p/execution/older"},
            "Metadata": {"TrainingJob": {"Arn": f"{arn}:training-job/old"}},
        },
        {"StepName": "Accept", "Metadata": {"Condition": {"Outcome": "True"}}},
    ]
    job = {
        "TrainingJobName": "t",
        "TrainingJobArn": f"{arn}:training-job/t",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://m"},
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        "StoppingCondition": {},
        "CreationTime": NOW,
        "TrainingStartTime": NOW,
        "TrainingEndTime": NOW + timedelta(seconds=900),
        "BillableTimeInSeconds": 300,
    }
    processing = {
        "ProcessingJobName": "p",
        "ProcessingJobArn": f"{arn}:processing-job/p",
        "ProcessingJobStatus": "Completed",
        "AppSpecification": {"ImageUri": "i"},
        "CreationTime": NOW,
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        "ProcessingStartTime": NOW,
        "ProcessingEndTime": NOW + timedelta(seconds=60),
    }
    with Stubber(sagemaker) as stub:
        stub.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": steps})
        stub.add_response("describe_training_job", job, {"TrainingJobName": "t"})
        stub.add_response("describe_processing_job", processing, {"ProcessingJobName": "p"})
        found = SageMakerPipelines(sagemaker).jobs(f"{arn}:pipeline/p/execution/e")

    assert found == [
        Job(instance_type="ml.m5.large", instances=2, seconds=300),
        Job(instance_type="ml.m5.xlarge", instances=1, seconds=60.0),
    ]


# --- the function ---


def test_should_tell_people_of_the_budget_with_its_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published: list[dict[str, Any]] = []

    class Sns:
        def publish(self, **request: Any) -> None:
            published.append(request)

    for name, value in (
        ("PIPELINE_NAME", "p"),
        ("WORKLOAD", "w"),
        ("COOLDOWN_HOURS", "0"),
        ("BUDGET_RUNS", "1"),
        ("TOPIC_ARN", "topic"),
        ("ENVIRONMENT", "dev"),
        ("TOLD_PARAMETER", "told"),
    ):
        monkeypatch.setenv(name, value)
    earlier = Execution(
        arn="arn:execution/a", status="Succeeded", started=datetime.now(UTC) - timedelta(seconds=1)
    )
    pipelines = FakePipelines(earlier)
    monkeypatch.setattr(entry, "_pipelines", lambda *_: pipelines)
    monkeypatch.setattr(entry, "_client", lambda service: Sns())

    answer = entry.handler({"reason": "a person"}, None)

    assert pipelines.noted.endswith(": 1 runs"), "it is noted once people were told"

    assert (answer["started"], answer["told"]) == (False, True)
    assert json.loads(capsys.readouterr().out)["told"] is True
    document = json.loads(json.loads(published[0]["Message"])["default"])
    assert document["notice"] == "retraining.refused"
    assert document["numbers"]["trainings"] == document["numbers"]["budget of trainings"] == 1
    assert document["why"].endswith("were started (asked for: on demand: a person)")


def test_should_report_everything_that_is_wrong_with_its_variables() -> None:
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment(
            {
                "PIPELINE_NAME": "p",
                "WORKLOAD": "w",
                "COOLDOWN_HOURS": "1",
                "BUDGET_USD": "-1",
                "BUDGET_RUNS": "2",
                "USD_PER_HOUR": "[]",
                "MINIMUM_RECORDS": "0",
                "TOPIC_ARN": "topic",
            }
        )
    said = str(caught.value)
    for part in (
        "BUDGET_USD and BUDGET_RUNS must be positive",
        "one of BUDGET_USD and BUDGET_RUNS may be set",
        "USD_PER_HOUR must be a JSON object",
        "MINIMUM_RECORDS must be a positive integer",
        "ENVIRONMENT is not set",
        "TOLD_PARAMETER is not set",
    ):
        assert part in said


def test_should_read_its_variables() -> None:
    found = Settings.from_environment(
        {
            "PIPELINE_NAME": "p",
            "WORKLOAD": "w",
            "COOLDOWN_HOURS": "1",
            "BUDGET_USD": "12.5",
            "USD_PER_HOUR": '{"ml.m5.large": 0.1}',
            "MINIMUM_RECORDS": "500",
            "FEATURES_NOTE_URI": "s3://f/note.json",
            "TRAINING_URI": "s3://a/training/",
            "TOPIC_ARN": "topic",
            "ENVIRONMENT": "dev",
            "TOLD_PARAMETER": "told",
            "AWS_REGION": "us-east-1",
        }
    )
    assert found.budget == Budget(usd=12.5, usd_per_hour={"ml.m5.large": 0.1})
    assert found.new_data == NewData(
        minimum_records=500, note_uri="s3://f/note.json", training_uri="s3://a/training"
    )
    assert found.telling == Telling(topic_arn="topic", environment="dev", told_parameter="told")
