"""Cells of machines that die: under a training, a judge, a monitor, an endpoint, a Glue job that writes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal.story.chaos.loop import HEAL_SECONDS, WORKLOAD, accounted, plan, sent, unharmed
from rehearsal.story.ingestion import read_parquet
from rehearsal.story.lake import curated_table, read_curated
from rehearsal.story.mailbox import Mailbox, mailbox
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.monitors import traffic_in_an_hour, verdict
from rehearsal.story.operations.trainings import (
    decisions,
    meant_to_fail,
    now_of,
    rested,
    with_variables,
)
from rehearsal.story.processing import curate
from rehearsal.story.serving import describe_endpoint
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.traffic import SAME_SCORE, Traffic, ask, questions
from rehearsal.story.training import finish, invoke_trigger, latest_package

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD", "die"]

CHAPTER = "Machines"
ENDED_SECONDS = 180
#: Of the training's log: it has learned for a while.
LATER_ROUND = r"^\[5\] "
#: Requests before the container dies and after it is back, in real seconds.
MARGIN_SECONDS = 2.0


def die(tale: Tale, kind: str, **how: Any) -> None:
    """Plan that a container dies (``rehearsal.deaths``)."""
    tale.cloud.server.control("POST", "/faults/containers", {"kind": kind, **how})


def _versions(tale: Tale) -> int:
    found: int = latest_package(tale)["ModelPackageVersion"]
    return found


def _steps(tale: Tale, arn: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tale.cloud.client("sagemaker").list_pipeline_execution_steps(
        PipelineExecutionArn=arn, SortOrder="Ascending"
    )["PipelineExecutionSteps"]
    return found


def _asked(tale: Tale, reason: str) -> str:
    """Start a training; its execution."""
    answer = invoke_trigger(tale, {"reason": reason, "time": now_of(tale)})
    require(answer["started"], f"nothing was started: {answer.get('why')}")
    arn: str = answer["execution"]
    return arn


def _machine_lost(tale: Tale, evidence: Evidence) -> None:
    """Twice in one execution the instance goes: the steps are tried again, one version comes of it."""
    rested(tale)
    before = _versions(tale)
    with unharmed(tale, evidence, starts=1):
        die(tale, "training-job", name="pipelines-*", how="machine", after=LATER_ROUND)
        die(tale, "processing-job", name="pipelines-*-Evaluate-*", how="machine", seconds=0.2)
        arn = _asked(tale, "a machine will be lost")
        finish(tale, arn, evidence)
        attempts = {step["StepName"]: step["AttemptCount"] for step in _steps(tale, arn)}
        evidence |= {"attempts": attempts, "versions": _versions(tale) - before}
        again = {name for name, count in attempts.items() if count > 1}
        require(again == {"Train", "Evaluate"}, f"tried again were {sorted(again)}")
        require(evidence["versions"] == 1, f"{evidence['versions']} versions came of one execution")


def _container_killed(tale: Tale, evidence: Evidence) -> None:
    """The process of a training is killed: no retry, people are told, no version; the next trigger trains."""
    rested(tale)
    before = _versions(tale)
    with unharmed(tale, evidence, starts=2), mailbox(tale) as box:
        die(tale, "training-job", name="pipelines-*", after=LATER_ROUND)
        arn = _asked(tale, "its container will be killed")
        _ended(tale, arn, evidence)
        notice = box.told("retraining.failed", arn)
        evidence["people_are_told"] = notice["why"]
        require(evidence["status"] == "Failed", f"the execution is {evidence['status']}")
        require("137" in notice["why"], "the notice does not say that the process was killed")
        require(_versions(tale) == before, "a training that died has registered a version")
        rested(tale)
        evidence["next"] = _asked(tale, "the next reason")


def _ended(tale: Tale, arn: str, evidence: Evidence) -> None:
    client = tale.cloud.client("sagemaker")

    def status() -> str | None:
        found: str = client.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
        return None if found in ("Executing", "Stopping") else found

    evidence["status"] = wait_until(f"the end of {arn}", status, seconds=ENDED_SECONDS)
    evidence["why"] = next(
        (step.get("FailureReason", "")[:600] for step in _steps(tale, arn) if step["StepStatus"] == "Failed"),
        None,
    )


# --- the monitor ---


def _monitor_killed(tale: Tale, evidence: Evidence) -> None:
    """A monitor dies with its verdict in hand: no verdict is heard, people are told; the next one judges."""
    records = tale.inputs.live[: max(100, tale.workload.monitoring.minimum_records)]
    with unharmed(tale, evidence), mailbox(tale, _alarm_topic(tale)) as box:
        since = datetime.fromisoformat(now_of(tale))
        hour = traffic_in_an_hour(tale, records)
        # In the hour after it, the run that judges it.
        again = traffic_in_an_hour(tale, records)
        before = _verdicts(tale, since)
        plan(tale, "cloudwatch:PutMetricData", "kill-before", who=_monitor_role(tale))
        tale.cloud.advance(minutes=50)
        tale.cloud.idle()
        failed = wait_until("word of the run that died", lambda: _run_failed(box), seconds=60)
        evidence |= {
            "hour_of_the_dead_run": hour.start.isoformat(),
            "people_are_told": f"{failed['ProcessingJobName']}: {failed['FailureReason'][:120]}",
            "verdicts_that_were_heard": _verdicts(tale, since) - before,
        }
        require(not evidence["verdicts_that_were_heard"], "a run that died was taken for a verdict")
        meant_to_fail(tale)
        uri, report = verdict(tale, "data", again.start)
        evidence |= {"next_report": uri, "next_one_judged": report["judged"]}
        require(report["judged"], f"the next run did not judge: {report.get('reason')}")
        require(_verdicts(tale, since) > before, "nobody heard the verdict of the next run")


def _alarm_topic(tale: Tale) -> str:
    """Where the alarms of operations go, and word of runs that failed."""
    name = tale.outputs("Operations")["UnjudgedAlarmName"]
    (alarm,) = tale.cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    topic: str = alarm["AlarmActions"][0]
    return topic


def _monitor_role(tale: Tale) -> str:
    """The role that runs of the data monitor act as, by its schedule."""
    name = tale.outputs("Operations")["MonitorScheduleName"]
    target = tale.cloud.client("scheduler").get_schedule(Name=name)["Target"]
    role: str = json.loads(target["Input"])["RoleArn"]
    return role.rpartition("/")[2]


def _verdicts(tale: Tale, since: datetime) -> int:
    """Verdicts of the data monitor that CloudWatch has heard."""
    dimensions = {"Environment": tale.stage.lower(), "Workload": tale.workload.name}
    return int(_measured(tale, ("MLLifecycle", "RecordsJudged"), dimensions, "SampleCount", since))


def _measured(
    tale: Tale, metric: tuple[str, str], dimensions: Mapping[str, str], statistic: Any, since: datetime
) -> float:
    """A statistic of a metric (namespace, name) since a moment by the clock, summed up."""
    now = datetime.fromisoformat(now_of(tale))
    points: Sequence[Mapping[str, Any]] = tale.cloud.client("cloudwatch").get_metric_statistics(
        Namespace=metric[0],
        MetricName=metric[1],
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=since.replace(second=0, microsecond=0),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=[statistic],
    )["Datapoints"]
    return float(sum(point[statistic] for point in points))


def _run_failed(box: Mailbox) -> Mapping[str, Any] | None:
    found = [n["detail"] for n in box.notices() if "ProcessingJobName" in n.get("detail", {})]
    return found[-1] if found else None


# --- the endpoint ---


def _endpoint_killed(tale: Tale, evidence: Evidence) -> None:
    """The model's process dies under live traffic: failures are visible and counted, then it is back."""
    bodies = questions(tale, tale.inputs.live[:40])
    usual = [answer.score for answer in ask(tale, bodies)]
    name = describe_endpoint(tale)["EndpointName"]
    since = datetime.fromisoformat(now_of(tale))
    before = _errors_counted(tale, name, since)
    with unharmed(tale, evidence):
        with Traffic(tale, bodies) as traffic:
            time.sleep(MARGIN_SECONDS)
            died = time.monotonic()
            die(tale, "endpoint", name=name)
            wait_until("the death of a container", lambda: _restarts(tale, name), seconds=30, every=0.05)
            statuses = {describe_endpoint(tale)["EndpointStatus"]}

            def back() -> bool:
                answered = [a for a in traffic.answers.answers if a.error is None]
                failed = [a for a in traffic.answers.answers if a.error is not None]
                return bool(failed and answered) and answered[-1].at > failed[-1].at

            wait_until("answers again", back, seconds=HEAL_SECONDS, every=0.1)
            evidence["answers_again_after_seconds"] = round(time.monotonic() - died, 1)
            time.sleep(MARGIN_SECONDS)
            statuses.add(describe_endpoint(tale)["EndpointStatus"])
        answers = traffic.answers
        evidence |= {
            **answers.summary(),
            "failed_with": sorted({str(a.error).partition(":")[0] for a in answers.failed}),
            "errors_that_cloudwatch_counted": _errors_counted(tale, name, since) - before,
            "restarts": _restarts(tale, name),
        }
        require(statuses == {"InService"}, f"the endpoint was {sorted(statuses)}")
        require(answers.failed, "a container died under traffic and no request noticed")
        require(
            evidence["errors_that_cloudwatch_counted"] == len(answers.failed),
            f"{len(answers.failed)} requests failed, "
            f"CloudWatch counted {evidence['errors_that_cloudwatch_counted']}",
        )
        wrong = [a for a in answers.answers if a.score is not None and not _same(a.score, usual[a.index])]
        require(not wrong, f"{len(wrong)} requests were answered with another score")


def _same(score: float, usual: float | None) -> bool:
    return usual is not None and abs(score - usual) <= SAME_SCORE


def _restarts(tale: Tale, endpoint: str) -> int:
    entries = tale.cloud.ledger()
    return sum(e["kind"] == "container-restart" and e["name"] == endpoint for e in entries)


def _errors_counted(tale: Tale, endpoint: str, since: datetime) -> int:
    variant = describe_endpoint(tale)["ProductionVariants"][0]["VariantName"]
    dimensions = {"EndpointName": endpoint, "VariantName": variant}
    return int(_measured(tale, ("AWS/SageMaker", "Invocation5XXErrors"), dimensions, "Sum", since))


# --- Glue ---


@contextmanager
def _no_training(tale: Tale, *, decisions_made: int) -> Iterator[None]:
    """However many new rows a cell makes, they are worth no training; so many decisions tell of that."""
    back = with_variables(tale, {"MINIMUM_RECORDS": str(10**9)})
    before = len(decisions(tale))
    try:
        yield
        # Its settings are changed while it does nothing: a change ends what it is at.
        wait_until(
            "the decision on the new features",
            lambda: len(decisions(tale)) >= before + decisions_made,
            seconds=ENDED_SECONDS,
        )
    finally:
        tale.cloud.idle()
        time.sleep(MARGIN_SECONDS)
        back()


def _glue_job(tale: Tale, logical: str) -> tuple[str, str]:
    """Name and role of a Glue job of the data stack."""
    resources = tale.cloud.client("cloudformation").describe_stack_resources(
        StackName=tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}Data")
    )["StackResources"]
    name = next(
        r["PhysicalResourceId"]
        for r in resources
        if r["ResourceType"] == "AWS::Glue::Job" and logical in r["LogicalResourceId"]
    )
    role: str = tale.cloud.client("glue").get_job(JobName=name)["Job"]["Role"]
    return name, role.rpartition("/")[2]


def _ran(tale: Tale, job: str) -> dict[str, Any]:
    """Run a Glue job to its end."""
    glue = tale.cloud.client("glue")
    run_id = glue.start_job_run(JobName=job)["JobRunId"]

    def ended() -> dict[str, Any] | None:
        run: dict[str, Any] = glue.get_job_run(JobName=job, RunId=run_id)["JobRun"]
        return None if run["JobRunState"] in ("STARTING", "RUNNING") else run

    found: dict[str, Any] = wait_until(f"the end of {job}", ended, seconds=ENDED_SECONDS)
    return found


def _curation_killed(tale: Tale, evidence: Evidence) -> None:
    """Killed between two data files: readers see the table as it was; the next landing curates all of it."""
    job, role = _glue_job(tale, "Curate")
    identifier = tale.contract.identifier
    with (
        unharmed(tale, evidence),
        _no_training(tale, decisions_made=1),
        mailbox(tale, _alarm_topic(tale)) as box,
    ):
        batch = sent(tale)
        accounted(tale, batch)
        before = curated_table(tale).current_snapshot()
        # The first object stands for the folder of the run, and goes again.
        plan(tale, "s3:PutObject", None, None, "kill-after", who=role)
        run = _ran(tale, job)
        after = curated_table(tale).current_snapshot()
        told = wait_until("word of the job that died", lambda: _job_failed(box, run), seconds=60)
        left = tale.cloud.objects.list(f"{_curated_uri(tale)}data/{run['Id']}/")
        evidence |= {
            "run": f"{run['JobRunState']}: {run.get('ErrorMessage')}",
            "files_that_it_left": len(left),
            "people_are_told": f"{told['jobName']} {told['state']}: {told['message']}",
            "readers_see_the_snapshot_before": after == before,
        }
        require(run["JobRunState"] == "FAILED", f"the run is {run['JobRunState']}")
        require(left, "it died before it had written anything")
        require(after == before, "a run that died has changed what readers see")
        meant_to_fail(tale)
        report = curate(tale, {})
        rows = read_curated(tale, [identifier, "record_id"])
        keys = rows[identifier].to_pylist()
        missing = set(batch.ids) - set(rows["record_id"].to_pylist())
        evidence |= {"rows": len(keys), "rows_twice": len(keys) - len(set(keys)), "missing": len(missing)}
        require(not evidence["rows_twice"], f"{evidence['rows_twice']} rows are curated twice")
        require(not missing, f"{len(missing)} records that waited are not curated")
        require(report["rows_written"] == len(keys), "the report counts other rows than the table has")


def _curated_uri(tale: Tale) -> str:
    """Where the curated table lies."""
    return f"{curated_table(tale).location().rstrip('/')}/"


def _job_failed(box: Mailbox, run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = [n["detail"] for n in box.notices() if n.get("detail", {}).get("jobRunId") == run["Id"]]
    return found[-1] if found else None


def _features_killed(tale: Tale, evidence: Evidence) -> None:
    """Killed between two months: nobody learns from the half; the job again makes it whole."""
    job, role = _glue_job(tale, "BuildFeatures")
    uri = tale.outputs("Data")["FeaturesDataUri"]
    rested(tale)
    with unharmed(tale, evidence, starts=1), _no_training(tale, decisions_made=2):
        whole = read_parquet(tale, uri).num_rows
        # Months are replaced: the second one's old rows are gone, its new ones not there yet.
        plan(tale, "s3:Delete*", None, "kill-after", who=role)
        run = _ran(tale, job)
        half = read_parquet(tale, uri).num_rows
        evidence |= {
            "run": f"{run['JobRunState']}: {run.get('ErrorMessage')}",
            "rows_before": whole,
            "rows_of_the_half": half,
            "note": tale.cloud.objects.read_json(f"{uri}_snapshot.json"),
        }
        require(run["JobRunState"] == "FAILED", f"the run is {run['JobRunState']}")
        require(half < whole, "it died after it had written everything")
        arn = _asked(tale, "on half of the features")
        _ended(tale, arn, evidence)
        require(evidence["status"] == "Failed", "a model has learned from half of the features")
        require("not whole" in (evidence["why"] or ""), f"the training failed for {evidence['why']}")
        meant_to_fail(tale)
        again = _ran(tale, job)
        rows = read_parquet(tale, uri)
        keys = rows[tale.contract.identifier].to_pylist()
        curated = read_curated(tale, [tale.contract.identifier]).num_rows
        evidence |= {
            "again": again["JobRunState"],
            "rows": len(keys),
            "rows_twice": len(keys) - len(set(keys)),
        }
        require(again["JobRunState"] == "SUCCEEDED", f"the job again: {again.get('ErrorMessage')}")
        require(not evidence["rows_twice"], "rows of features are there twice")
        require(len(keys) == curated, f"{curated} curated rows made {len(keys)} rows of features")


CELLS = (
    Cell(
        id="machine.lost",
        title="The instance of a training goes, then that of its judge: tried again, one version",
        chapter=CHAPTER,
        run=_machine_lost,
        capabilities=(),
    ),
    Cell(
        id="machine.training",
        title="A training's process is killed: people are told, nothing is registered, the next one starts",
        chapter=CHAPTER,
        run=_container_killed,
        capabilities=(),
    ),
    Cell(
        id="machine.monitor",
        title="A monitor dies with its verdict: that is no verdict, and people hear of it",
        chapter=CHAPTER,
        run=_monitor_killed,
        capabilities=("monitor.data",),
    ),
    Cell(
        id="machine.endpoint",
        title="A model's process is killed under live traffic: failures are counted, then it answers again",
        chapter=CHAPTER,
        run=_endpoint_killed,
        capabilities=("serve.realtime",),
    ),
    Cell(
        id="machine.curation",
        title="A Glue job is killed between two files: readers see none of it, the next landing all of it",
        chapter=CHAPTER,
        run=_curation_killed,
        capabilities=("process.spark",),
    ),
    Cell(
        id="machine.features",
        title="The job that builds features is killed between two months: no training learns from the half",
        chapter=CHAPTER,
        run=_features_killed,
        capabilities=("process.spark",),
    ),
)
