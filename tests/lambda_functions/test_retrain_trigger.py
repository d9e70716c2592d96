"""The retraining function: what starts the pipeline, what does not, and that a crowd starts it once."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from botocore.stub import ANY, Stubber
from retrain_trigger import handler as entry
from retrain_trigger.aws import SageMakerPipelines, metadata_text
from retrain_trigger.errors import BadEventError, MisconfiguredError, TransientError
from retrain_trigger.logic import Champion, Execution, retrain, token_of
from retrain_trigger.settings import Settings

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SETTINGS = Settings(pipeline_name="dev-claims-fraud", workload="claims_fraud", cooldown=timedelta(hours=12))


class FakePipelines:
    """SageMaker's contract: one execution per client token, newest first."""

    def __init__(self, *executions: Execution, now: datetime = NOW) -> None:
        self.executions = list(executions)
        self.by_token: dict[str, Execution] = {}
        self.reasons: list[str] = []
        self.approved: Champion | None = None
        self.told: list[Mapping[str, str]] = []
        self.alarms: dict[str, datetime] = {}
        self.now = now
        self.lock = threading.Lock()
        self.barrier: threading.Barrier | None = None

    def latest(self, pipeline_name: str) -> Sequence[Execution]:
        with self.lock:
            seen = sorted(self.executions, key=lambda e: e.started, reverse=True)
        if self.barrier is not None:
            self.barrier.wait(timeout=10)
        return seen

    def champion(self, parameter_name: str) -> Champion | None:
        return self.approved

    def alarms_on(self, names: Sequence[str]) -> Mapping[str, datetime]:
        return {name: since for name, since in self.alarms.items() if name in names}

    def start(self, pipeline_name: str, *, token: str, reason: str, parameters: Mapping[str, str]) -> str:
        with self.lock:
            if token not in self.by_token:
                arn = f"arn:execution/{len(self.executions)}"
                self.by_token[token] = Execution(arn=arn, status="Executing", started=self.now)
                self.executions.append(self.by_token[token])
                self.reasons.append(reason)
                self.told.append(parameters)
            return self.by_token[token].arn


def execution(name: str, status: str, *, hours_ago: float) -> Execution:
    return Execution(arn=f"arn:execution/{name}", status=status, started=NOW - timedelta(hours=hours_ago))


def alarm(state: str = "ALARM", time: datetime = NOW) -> dict[str, object]:
    return {
        "id": "0001",
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "detail": {"alarmName": "drift", "state": {"value": state}, "previousState": {"value": "OK"}},
    }


def test_should_start_the_pipeline_when_it_never_ran() -> None:
    pipelines = FakePipelines()

    result = retrain(alarm(), pipelines, SETTINGS, now=NOW)

    assert result == {"started": True, "execution": "arn:execution/0", "reason": "drift: alarm drift"}
    assert pipelines.reasons == ["drift: alarm drift"]


def test_should_start_when_the_cooldown_after_the_latest_start_has_passed() -> None:
    pipelines = FakePipelines(execution("old", "Failed", hours_ago=12))

    assert retrain(alarm(), pipelines, SETTINGS, now=NOW)["started"] is True


@pytest.mark.parametrize("status", ["Succeeded", "Failed", "Stopped"])
def test_should_refuse_inside_the_cooldown_and_say_until_when(status: str) -> None:
    pipelines = FakePipelines(execution("old", status, hours_ago=11.5))

    result = retrain(alarm(), pipelines, SETTINGS, now=NOW)

    assert result["started"] is False
    assert result["why"] == "cooldown until 2026-11-21T12:30:00Z after execution arn:execution/old"
    assert pipelines.reasons == []


@pytest.mark.parametrize("status", ["Executing", "Stopping"])
def test_should_refuse_while_an_execution_runs_even_when_a_newer_one_has_ended(status: str) -> None:
    pipelines = FakePipelines(
        execution("long", status, hours_ago=40), execution("short", "Succeeded", hours_ago=30)
    )

    result = retrain(alarm(), pipelines, SETTINGS, now=NOW)

    assert result["started"] is False
    assert result["why"] == f"execution arn:execution/long is {status}"


def test_should_ignore_a_trigger_older_than_the_execution_that_answers_it() -> None:
    no_cooldown = Settings(pipeline_name="p", workload="w", cooldown=timedelta(0))
    pipelines = FakePipelines(execution("answer", "Succeeded", hours_ago=1))

    late = retrain(alarm(time=NOW - timedelta(hours=2)), pipelines, no_cooldown, now=NOW)
    fresh = retrain(alarm(time=NOW), pipelines, no_cooldown, now=NOW)

    assert late["started"] is False
    assert "answers it" in str(late["why"])
    assert fresh["started"] is True


def test_should_start_one_execution_for_a_crowd_of_triggers_that_saw_the_same_state() -> None:
    crowd = 8
    pipelines = FakePipelines(execution("old", "Succeeded", hours_ago=48))
    pipelines.barrier = threading.Barrier(crowd)

    with ThreadPoolExecutor(crowd) as pool:
        results = list(pool.map(lambda _: retrain(alarm(), pipelines, SETTINGS, now=NOW), range(crowd)))

    assert {r["execution"] for r in results} == {"arn:execution/1"}
    assert len(pipelines.executions) == 2


def test_should_start_once_for_the_same_event_delivered_twice() -> None:
    pipelines = FakePipelines(now=NOW + timedelta(seconds=3))

    first = retrain(alarm(), pipelines, SETTINGS, now=NOW)
    pipelines.executions[0] = Execution(
        arn="arn:execution/0", status="Succeeded", started=NOW + timedelta(seconds=3)
    )
    second = retrain(alarm(), pipelines, SETTINGS, now=NOW)

    assert (first["started"], second["started"]) == (True, False)


def test_should_give_the_next_training_a_token_of_its_own() -> None:
    one = execution("one", "Succeeded", hours_ago=1)
    two = execution("two", "Succeeded", hours_ago=1)
    tokens = {token_of("p", None), token_of("p", one), token_of("p", two), token_of("q", one)}

    assert len(tokens) == 4
    assert all(32 <= len(t) <= 128 for t in tokens)
    assert token_of("p", one) == token_of("p", one)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"detail-type": "Scheduled Event", "time": "2026-11-21T12:00:00Z", "detail": {}}, "schedule"),
        (
            {"detail-type": "Glue Job State Change", "detail": {"jobName": "features", "state": "SUCCEEDED"}},
            "new data: job features",
        ),
        ({"reason": "a new field"}, "on demand: a new field"),
    ],
)
def test_should_name_the_reason_of_each_kind_of_trigger(event: dict[str, object], reason: str) -> None:
    pipelines = FakePipelines()

    assert retrain(event, pipelines, SETTINGS, now=NOW)["started"] is True
    assert pipelines.reasons == [reason]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (alarm("OK"), "alarm drift is OK"),
        (alarm("INSUFFICIENT_DATA"), "alarm drift is INSUFFICIENT_DATA"),
        (
            {"detail-type": "Glue Job State Change", "detail": {"jobName": "features", "state": "FAILED"}},
            "job features is FAILED",
        ),
    ],
)
def test_should_not_train_when_the_event_needs_no_training(event: dict[str, object], why: str) -> None:
    pipelines = FakePipelines()

    result = retrain(event, pipelines, SETTINGS, now=NOW)

    assert (result["started"], result["why"]) == (False, why)
    assert pipelines.reasons == []


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("text", "must be a JSON object, got str"),
        ({}, "cannot read detail-type None"),
        ({"reason": " "}, "cannot read detail-type None"),
        ({"detail-type": "Something Else", "detail": {}}, "cannot read detail-type 'Something Else'"),
        ({"detail-type": "CloudWatch Alarm State Change", "detail": {}}, "no detail.alarmName"),
        ({"detail-type": "Glue Job State Change", "detail": None}, "no detail.jobName"),
        ({"reason": "x", "time": "yesterday"}, "ISO 8601, got 'yesterday'"),
    ],
)
def test_should_raise_on_an_event_it_cannot_read(event: object, message: str) -> None:
    with pytest.raises(BadEventError, match=message.replace("(", r"\(")):
        retrain(event, FakePipelines(), SETTINGS, now=NOW)


def test_should_report_every_problem_of_its_environment_at_once() -> None:
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment({"WORKLOAD": " ", "COOLDOWN_HOURS": "soon"})

    assert "PIPELINE_NAME is not set" in str(caught.value)
    assert "WORKLOAD is not set" in str(caught.value)
    assert "COOLDOWN_HOURS must be a number of hours between 0 and 8784, got 'soon'" in str(caught.value)


@pytest.mark.parametrize("hours", ["-1", "nan", "8785", ""])
def test_should_refuse_a_cooldown_out_of_range(hours: str) -> None:
    with pytest.raises(MisconfiguredError, match="COOLDOWN_HOURS"):
        Settings.from_environment({"PIPELINE_NAME": "p", "WORKLOAD": "w", "COOLDOWN_HOURS": hours})


# --- SageMaker, by its own service model ---


def stubbed() -> tuple[SageMakerPipelines, Stubber]:
    client = boto3.client(
        "sagemaker",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    return SageMakerPipelines(client), Stubber(client)


ARN = "arn:aws:sagemaker:us-east-1:111122223333:pipeline/dev-claims-fraud/execution/abcdefghijkl"


def test_should_read_the_newest_executions_first() -> None:
    pipelines, stub = stubbed()
    summary = {"PipelineExecutionArn": ARN, "PipelineExecutionStatus": "Succeeded", "StartTime": NOW}
    stub.add_response(
        "list_pipeline_executions",
        {"PipelineExecutionSummaries": [summary]},
        {"PipelineName": "p", "SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": ANY},
    )
    with stub:
        assert pipelines.latest("p") == [Execution(arn=ARN, status="Succeeded", started=NOW)]
    stub.assert_no_pending_responses()


def test_should_start_with_its_token_and_reason_cut_to_what_sagemaker_takes() -> None:
    pipelines, stub = stubbed()
    stub.add_response(
        "start_pipeline_execution",
        {"PipelineExecutionArn": ARN},
        {
            "PipelineName": "p",
            "ClientRequestToken": "t" * 64,
            "PipelineExecutionDescription": "r" * 2000,
            "PipelineParameters": [{"Name": "Reason", "Value": "r" * 256}],
        },
    )
    with stub:
        assert pipelines.start("p", token="t" * 64, reason="r" * 2000, parameters={}) == ARN
    stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("drift: alarm a-b_c", "drift: alarm a-b_c"),
        ('on demand: new prices (June), "urgent"!', "on demand: new prices -June-- -urgent--"),
        ("zwei\nZeilen: größer", "zwei Zeilen: größer"),
        ("", "-"),
    ],
)
def test_should_give_a_reason_as_a_model_packages_metadata_takes_it(reason: str, text: str) -> None:
    assert metadata_text(reason) == text


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ThrottlingException", 400, TransientError),
        ("ExpiredTokenException", 403, TransientError),
        ("ConflictException", 400, TransientError),
        ("ResourceLimitExceeded", 400, TransientError),
        ("SomethingNew", 503, TransientError),
        ("AccessDeniedException", 400, MisconfiguredError),
        ("ResourceNotFound", 400, MisconfiguredError),
        ("ValidationException", 400, MisconfiguredError),
    ],
)
def test_should_tell_passing_errors_from_lasting_ones(
    code: str, status: int, expected: type[Exception]
) -> None:
    pipelines, stub = stubbed()
    stub.add_client_error("list_pipeline_executions", code, "no", status)
    with stub, pytest.raises(expected):
        pipelines.latest("p")


def test_should_call_an_unreachable_endpoint_transient() -> None:
    class Unreachable:
        def start_pipeline_execution(self, **_: object) -> None:
            raise EndpointConnectionError(endpoint_url="https://api.sagemaker.us-east-1.amazonaws.com")

    with pytest.raises(TransientError):
        SageMakerPipelines(Unreachable()).start("p", token="t" * 64, reason="r", parameters={})


# --- the entry point ---


def test_should_log_what_it_decided_as_one_json_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PIPELINE_NAME", "p"), ("WORKLOAD", "w"), ("COOLDOWN_HOURS", "12")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(entry, "_pipelines", lambda *_: FakePipelines())

    result = entry.handler(alarm(), None)

    line = json.loads(capsys.readouterr().out)
    assert line["message"] == "decided"
    assert (line["workload"], line["pipeline"], line["started"]) == ("w", "p", True)
    assert result["started"] is True


def test_should_log_and_raise_so_that_lambda_keeps_the_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PIPELINE_NAME", raising=False)
    with pytest.raises(MisconfiguredError):
        entry.handler(alarm(), None)

    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["error"]) == ("ERROR", "MisconfiguredError")


# --- the approved model ---

PACKAGE = "arn:aws:sagemaker:us-east-1:111122223333:model-package/dev-claims-fraud/3"
TELLING = replace(
    SETTINGS, approved_parameter="/approved", champion_parameters=("ChampionModel", "ChampionTest")
)


def test_should_tell_the_pipeline_which_model_is_approved() -> None:
    pipelines = FakePipelines()
    pipelines.approved = Champion(arn=PACKAGE, model_uri="s3://b/model.tar.gz", test_uri="s3://b/test")

    result = retrain(alarm(), pipelines, TELLING, now=NOW)

    assert result["champion"] == PACKAGE
    assert pipelines.told == [{"ChampionModel": "s3://b/model.tar.gz", "ChampionTest": "s3://b/test"}]


def test_should_leave_the_pipelines_defaults_where_there_is_no_approved_model_or_no_test_set() -> None:
    pipelines = FakePipelines()
    assert retrain(alarm(), pipelines, TELLING, now=NOW)["champion"] is None
    older = FakePipelines()
    older.approved = Champion(arn=PACKAGE, model_uri="s3://b/model.tar.gz", test_uri=None)
    retrain(alarm(), older, TELLING, now=NOW)
    assert (pipelines.told, older.told) == ([{}], [{"ChampionModel": "s3://b/model.tar.gz"}])


@pytest.mark.parametrize(
    ("value", "answer", "expected"),
    [
        ("none", None, None),
        (PACKAGE, "gone", None),
        (PACKAGE, {"TestSet": "s3://b/test"}, "s3://b/test"),
        (PACKAGE, {}, None),
    ],
)
def test_should_find_the_approved_model_by_its_parameter(
    value: str, answer: dict[str, str] | str | None, expected: str | None
) -> None:
    session = boto3.Session(aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1")
    client, ssm = session.client("sagemaker"), session.client("ssm")
    with Stubber(client) as packages, Stubber(ssm) as parameters:
        parameters.add_response("get_parameter", {"Parameter": {"Value": value}}, {"Name": "/approved"})
        if answer == "gone":
            message = f"ModelPackage {PACKAGE} does not exist."
            packages.add_client_error("describe_model_package", "ValidationException", message)
        elif isinstance(answer, dict):
            package = {
                "ModelPackageName": "x",
                "ModelPackageArn": PACKAGE,
                "CreationTime": NOW,
                "ModelPackageStatus": "Completed",
                "ModelPackageStatusDetails": {"ValidationStatuses": []},
                "InferenceSpecification": {"Containers": [{"ModelDataUrl": "s3://b/model.tar.gz"}]},
                "CustomerMetadataProperties": answer,
            }
            packages.add_response("describe_model_package", package, {"ModelPackageName": PACKAGE})
        found = SageMakerPipelines(client, ssm).champion("/approved")
    if isinstance(answer, dict):
        assert found == Champion(arn=PACKAGE, model_uri="s3://b/model.tar.gz", test_uri=expected)
    else:
        assert found is None


def test_should_refuse_half_of_what_tells_of_the_approved_model() -> None:
    base = {"PIPELINE_NAME": "p", "WORKLOAD": "w", "COOLDOWN_HOURS": "1"}
    told = {"APPROVED_PARAMETER": "/a", "CHAMPION_PARAMETERS": "ChampionModel,ChampionTest"}
    settings = Settings.from_environment(base | told)
    assert (settings.approved_parameter, settings.champion_parameters) == (
        "/a",
        ("ChampionModel", "ChampionTest"),
    )
    for wrong in ({"APPROVED_PARAMETER": "/a"}, told | {"CHAMPION_PARAMETERS": "Reason"}):
        with pytest.raises(MisconfiguredError, match="CHAMPION_PARAMETERS"):
            Settings.from_environment(base | wrong)
