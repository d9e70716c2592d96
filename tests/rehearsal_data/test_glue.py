"""Jobs, crawlers, triggers and workflows on a started server."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

SCRIPT = """
import sys
import boto3
from awsglue.utils import getResolvedOptions

arguments = getResolvedOptions(sys.argv, ["JOB_NAME", "bucket", "word"])
print("hello from", arguments["JOB_RUN_ID"])
if arguments["word"] == "fail":
    raise ValueError("this word fails")
key = f"out/{arguments['JOB_NAME']}-{arguments['word']}-{arguments.get('WORKFLOW_NAME', 'alone')}"
boto3.client("s3").put_object(Bucket=arguments["bucket"], Key=key, Body=b"done")
"""


@pytest.fixture(scope="module")
def bucket(client: Callable[[str], Any]) -> str:
    client("s3").create_bucket(Bucket="glue-tests")
    client("s3").put_object(Bucket="glue-tests", Key="code/script.py", Body=SCRIPT.encode())
    client("logs").create_log_group(logGroupName="/aws-glue/jobs/output")
    client("glue").create_database(DatabaseInput={"Name": "glue_tests"})
    return "glue-tests"


@pytest.fixture(scope="module")
def job_role(role: Any, bucket: str) -> str:
    return str(
        role(
            "glue-tests",
            "glue.amazonaws.com",
            [
                {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"]},
                {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/code/*"},
                {"Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/out/*"},
                {"Action": ["s3:GetObject", "s3:ListBucket"]},
                {"Action": ["glue:GetTable", "glue:GetPartitions", "glue:BatchCreatePartition"]},
            ],
        )
    )


@pytest.fixture(scope="module")
def make_job(client: Callable[[str], Any], bucket: str, job_role: str) -> Callable[..., str]:
    def make(name: str, word: str = "one", **settings: Any) -> str:
        client("glue").create_job(
            Name=name,
            Role=settings.pop("Role", job_role),
            Command={"Name": "glueetl", "ScriptLocation": f"s3://{bucket}/code/script.py"},
            DefaultArguments={"--bucket": bucket, "--word": word, "--enable-metrics": "true"},
            GlueVersion="5.0",
            **settings,
        )
        return name

    return make


def wait(server: ServerProcess) -> None:
    assert server.control("GET", "/idle?timeout_seconds=120")["idle"]


def out(client: Callable[[str], Any], bucket: str, job: str) -> list[str]:
    listed = client("s3").list_objects_v2(Bucket=bucket, Prefix=f"out/{job}")
    return [item["Key"].removeprefix(f"out/{job}-") for item in listed.get("Contents", ())]


def test_should_run_a_job_with_its_arguments_and_keep_its_log(
    server: ServerProcess, client: Callable[[str], Any], bucket: str, make_job: Callable[..., str]
) -> None:
    job = make_job("job-runs")
    glue = client("glue")
    run_id = glue.start_job_run(JobName=job, Arguments={"--word": "two"})["JobRunId"]
    with pytest.raises(ClientError, match="ConcurrentRunsExceededException"):
        glue.start_job_run(JobName=job)
    wait(server)
    run = glue.get_job_run(JobName=job, RunId=run_id)["JobRun"]
    assert run["JobRunState"] == "SUCCEEDED"
    assert out(client, bucket, job) == ["two-alone"]
    logged = client("logs").get_log_events(logGroupName="/aws-glue/jobs/output", logStreamName=run_id)
    assert f"hello from {run_id}" in [event["message"] for event in logged["events"]]


def test_should_fail_a_run_with_the_scripts_last_words(
    server: ServerProcess, client: Callable[[str], Any], make_job: Callable[..., str]
) -> None:
    job = make_job("job-fails", "fail")
    run_id = client("glue").start_job_run(JobName=job)["JobRunId"]
    wait(server)
    run = client("glue").get_job_run(JobName=job, RunId=run_id)["JobRun"]
    assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "ValueError: this word fails")


def test_should_fail_a_run_whose_role_may_not_write(
    server: ServerProcess, client: Callable[[str], Any], role: Any, make_job: Callable[..., str]
) -> None:
    poor = role("glue-poor", "glue.amazonaws.com", [{"Action": ["s3:GetObject", "logs:*"]}])
    job = make_job("job-poor", Role=poor)
    run_id = client("glue").start_job_run(JobName=job)["JobRunId"]
    wait(server)
    run = client("glue").get_job_run(JobName=job, RunId=run_id)["JobRun"]
    assert run["JobRunState"] == "FAILED"
    assert "s3:PutObject" in run["ErrorMessage"]


def test_should_refuse_a_role_that_glue_may_not_assume(
    client: Callable[[str], Any], role: Any, make_job: Callable[..., str]
) -> None:
    job = make_job("job-foreign", Role=role("glue-foreign", "lambda.amazonaws.com", [{"Action": "s3:*"}]))
    with pytest.raises(ClientError, match="unable to assume"):
        client("glue").start_job_run(JobName=job)


def test_should_refuse_a_ruleset_that_is_no_dqdl(client: Callable[[str], Any]) -> None:
    glue = client("glue")
    with pytest.raises(ClientError, match="InvalidInputException"):
        glue.create_data_quality_ruleset(Name="broken", Ruleset="Rules = [ Perfect ]")
    glue.create_data_quality_ruleset(Name="sound", Ruleset="Rules = [ RowCount > 0 ]")
    assert glue.get_data_quality_ruleset(Name="sound")["Ruleset"] == "Rules = [ RowCount > 0 ]"


def put_rows(client: Callable[[str], Any], bucket: str, key: str, **columns: Sequence[Any]) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), sink)
    client("s3").put_object(Bucket=bucket, Key=key, Body=sink.getvalue())


@pytest.fixture(scope="module")
def table(client: Callable[[str], Any], bucket: str) -> str:
    client("glue").create_table(
        DatabaseName="glue_tests",
        TableInput={
            "Name": "events",
            "PartitionKeys": [{"Name": "day", "Type": "string"}],
            "Parameters": {"classification": "parquet"},
            "StorageDescriptor": {
                "Location": f"s3://{bucket}/events/",
                "Columns": [{"Name": "id", "Type": "bigint"}],
            },
        },
    )
    return "events"


@pytest.fixture(scope="module")
def crawler(client: Callable[[str], Any], table: str, job_role: str) -> str:
    client("glue").create_crawler(
        Name="events",
        Role=job_role,
        Targets={"CatalogTargets": [{"DatabaseName": "glue_tests", "Tables": [table]}]},
        SchemaChangePolicy={"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
    )
    return "events"


def partitions(client: Callable[[str], Any], table: str) -> dict[str, str]:
    found = client("glue").get_partitions(DatabaseName="glue_tests", TableName=table)["Partitions"]
    return {one["Values"][0]: one["StorageDescriptor"]["Location"] for one in found}


def test_should_register_new_partitions_of_a_table(
    server: ServerProcess, client: Callable[[str], Any], bucket: str, table: str, crawler: str
) -> None:
    for day in ("2025-01-01", "2025-01-02"):
        put_rows(client, bucket, f"events/day={day}/a.parquet", id=[1, 2])
    client("s3").put_object(Bucket=bucket, Key="events/day=2025-01-03/broken.parquet", Body=b"no parquet")
    put_rows(client, bucket, "events/loose.parquet", id=[3], more=["x"])
    for _ in range(2):
        client("glue").start_crawler(Name=crawler)
        wait(server)
    last = client("glue").get_crawler(Name=crawler)["Crawler"]["LastCrawl"]
    assert last["Status"] == "SUCCEEDED", last
    assert partitions(client, table) == {
        day: f"s3://{bucket}/events/day={day}/" for day in ("2025-01-01", "2025-01-02", "2025-01-03")
    }
    entries = server.control("GET", "/ledger?kind=glue-crawler")["entries"]
    first = next(entry for entry in entries if entry["name"] == crawler)
    said = " ".join(first["detail"]["messages"])
    assert "broken.parquet is not Parquet" in said
    assert "loose.parquet" in said


def test_should_make_a_table_from_files_and_add_columns_that_come_later(
    server: ServerProcess, client: Callable[[str], Any], bucket: str, role: Any
) -> None:
    glue = client("glue")
    owner = role("glue-finder", "glue.amazonaws.com", [{"Action": ["s3:*", "glue:*"]}])
    put_rows(client, bucket, "found/claims/month=01/a.parquet", id=[1], at=[1.5])
    glue.create_crawler(
        Name="finder",
        Role=owner,
        DatabaseName="glue_tests",
        TablePrefix="x_",
        Targets={"S3Targets": [{"Path": f"s3://{bucket}/found/claims/"}]},
        SchemaChangePolicy={"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "LOG"},
    )
    glue.start_crawler(Name="finder")
    wait(server)
    put_rows(client, bucket, "found/claims/month=02/a.parquet", id=[1], at=[1.5], extra=["x"])
    glue.start_crawler(Name="finder")
    wait(server)
    table = glue.get_table(DatabaseName="glue_tests", Name="x_claims")["Table"]
    assert table["PartitionKeys"] == [{"Name": "month", "Type": "string"}]
    columns = {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]}
    assert columns == {"id": "bigint", "at": "double", "extra": "string"}
    assert set(partitions(client, "x_claims")) == {"01", "02"}


def test_should_fail_a_crawl_whose_role_may_not_look(
    server: ServerProcess, client: Callable[[str], Any], role: Any, bucket: str
) -> None:
    poor = role("glue-blind", "glue.amazonaws.com", [{"Action": "glue:*"}])
    client("glue").create_crawler(
        Name="blind",
        Role=poor,
        DatabaseName="glue_tests",
        Targets={"S3Targets": [{"Path": f"s3://{bucket}/found/"}]},
    )
    client("glue").start_crawler(Name="blind")
    wait(server)
    last = client("glue").get_crawler(Name="blind")["Crawler"]["LastCrawl"]
    assert last["Status"] == "FAILED"
    assert "s3:ListBucket" in last["ErrorMessage"]


@pytest.fixture
def workflow(
    request: pytest.FixtureRequest,
    client: Callable[[str], Any],
    crawler: str,
    make_job: Callable[..., str],
) -> str:
    """A crawler, then a job, then a second job; started by events."""
    name: str = request.node.name.removeprefix("test_should_")[:30].strip("_")
    second_word = "fail" if "stop" in name else "two"
    first, second = make_job(f"{name}-1"), make_job(f"{name}-2", second_word)
    third = make_job(f"{name}-3")
    glue = client("glue")
    glue.create_workflow(Name=name, MaxConcurrentRuns=1)
    glue.create_trigger(
        Name=f"{name}-start",
        WorkflowName=name,
        Type="EVENT",
        Actions=[{"CrawlerName": crawler}],
        EventBatchingCondition={"BatchSize": 3, "BatchWindow": 300},
    )
    crawled = {"LogicalOperator": "EQUALS", "CrawlerName": crawler, "CrawlState": "SUCCEEDED"}
    conditions = [
        crawled,
        *({"LogicalOperator": "EQUALS", "JobName": j, "State": "SUCCEEDED"} for j in (first, second)),
    ]
    for number, (condition, job) in enumerate(zip(conditions, (first, second, third), strict=True)):
        glue.create_trigger(
            Name=f"{name}-{number}",
            WorkflowName=name,
            Type="CONDITIONAL",
            StartOnCreation=True,
            Predicate={"Logical": "AND", "Conditions": [condition]},
            Actions=[{"JobName": job}],
        )
    return name


def last_run(client: Callable[[str], Any], workflow: str) -> dict[str, Any]:
    runs = client("glue").get_workflow_runs(Name=workflow, IncludeGraph=True)["Runs"]
    return dict(runs[0]) if runs else {}


def test_should_go_through_a_workflow_step_by_step(
    server: ServerProcess, client: Callable[[str], Any], bucket: str, workflow: str
) -> None:
    run_id = client("glue").start_workflow_run(Name=workflow)["RunId"]
    with pytest.raises(ClientError, match="ConcurrentRunsExceededException"):
        client("glue").start_workflow_run(Name=workflow)
    wait(server)
    run = client("glue").get_workflow_run(Name=workflow, RunId=run_id, IncludeGraph=True)["Run"]
    assert run["Status"] == "COMPLETED"
    assert run["Statistics"]["SucceededActions"] == 4
    assert [node["Name"] for node in run["Graph"]["Nodes"]] == [
        "events",
        f"{workflow}-1",
        f"{workflow}-2",
        f"{workflow}-3",
    ]
    assert out(client, bucket, f"{workflow}-2") == [f"two-{workflow}"]


def test_should_stop_a_workflow_at_the_first_failed_job(
    server: ServerProcess, client: Callable[[str], Any], bucket: str, workflow: str
) -> None:
    client("glue").start_workflow_run(Name=workflow)
    wait(server)
    run = last_run(client, workflow)
    assert run["Status"] == "COMPLETED"
    assert (run["Statistics"]["FailedActions"], run["Statistics"]["TotalActions"]) == (1, 3)
    assert out(client, bucket, f"{workflow}-3") == []


def test_should_start_a_workflow_when_enough_events_came_or_the_window_is_over(
    server: ServerProcess, client: Callable[[str], Any], role: Any, workflow: str
) -> None:
    arn = f"arn:aws:glue:{server.region}:{server.account}:workflow/{workflow}"
    caller = role("glue-caller", "events.amazonaws.com", [{"Action": "glue:notifyEvent", "Resource": arn}])
    client("s3").create_bucket(Bucket="landing")
    client("s3").put_bucket_notification_configuration(
        Bucket="landing", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": ["landing"]}},
    }
    client("events").put_rule(Name="landing", EventPattern=json.dumps(pattern))
    client("events").put_targets(Rule="landing", Targets=[{"Id": "w", "Arn": arn, "RoleArn": caller}])

    def land(count: int) -> None:
        for number in range(count):
            client("s3").put_object(Bucket="landing", Key=f"{time.time_ns()}-{number}", Body=b"x")
        wait(server)

    land(2)
    assert last_run(client, workflow) == {}
    land(1)
    first = last_run(client, workflow)
    assert first["Status"] == "COMPLETED"
    assert first["StartingEventBatchCondition"]["BatchSize"] == 3
    land(1)
    assert last_run(client, workflow)["WorkflowRunId"] == first["WorkflowRunId"]
    server.control("POST", "/clock/advance", {"minutes": 6})
    wait(server)
    second = last_run(client, workflow)
    assert second["WorkflowRunId"] != first["WorkflowRunId"]
    assert second["StartingEventBatchCondition"]["BatchSize"] == 1
    # A jump passes over the end of a window; what lands after it opens another.
    land(1)
    server.control("POST", "/clock/advance", {"hours": 2, "skip_schedules": True})
    land(1)
    server.control("POST", "/clock/advance", {"minutes": 6})
    wait(server)
    third = last_run(client, workflow)
    assert third["WorkflowRunId"] != second["WorkflowRunId"]
    assert third["StartingEventBatchCondition"]["BatchSize"] == 2


def test_should_refuse_a_second_start_trigger(client: Callable[[str], Any], workflow: str) -> None:
    with pytest.raises(ClientError, match="already has the start trigger"):
        client("glue").create_trigger(
            Name="again", WorkflowName=workflow, Type="ON_DEMAND", Actions=[{"CrawlerName": "events"}]
        )


def test_should_fire_a_scheduled_trigger_by_the_clock(
    server: ServerProcess, client: Callable[[str], Any], bucket: str, make_job: Callable[..., str]
) -> None:
    job = make_job("job-scheduled", "tick")
    client("glue").create_trigger(
        Name="hourly",
        Type="SCHEDULED",
        Schedule="cron(0 * * * ? *)",
        StartOnCreation=True,
        Actions=[{"JobName": job}],
    )
    server.control("POST", "/clock/advance", {"minutes": 61})
    client("glue").stop_trigger(Name="hourly")
    wait(server)
    assert out(client, bucket, job) == ["tick-alone"]
