"""Cells of delivery: a deployed pipeline is run, by its own definition and commands.

What it deploys is small (``examples/small_delivery``); the pipeline, its builds' commands and the roles they
act as are those of the project. It has a server of its own: its bootstrap and stacks are nobody else's.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.cdk import Cdk, stack_artifacts
from rehearsal.server import ServerProcess, start_server
from rehearsal.story.deployment import synthesize
from rehearsal.story.operations.cells import Cell
from rehearsal.story.tale import Cloud
from rehearsal.story.telling import Evidence, require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "Commits", "Pipeline", "put_up"]

CHAPTER = "Delivery"
ORDER = 80
KNOWN = "delivery"
EXAMPLE = Path("examples") / "small_delivery"
ACCOUNTS = Path("examples") / "delivery"
BUCKET, KEY = "small-delivery-source", "source.zip"
#: What a commit of the small app holds of the project: what the commands of its builds read.
PARTS = (
    *("Makefile", "README.md", "cdk.json", "package.json", "package-lock.json", "pyproject.toml"),
    *("requirements.txt", "contract", "cost", "delivery", "workloads/machine_health"),
    *("tools/__init__.py", "tools/cdk", "tools/diff.py", "tools/python", "tools/setup.py"),
    *("tests/conftest.py", "tests/cdk_support.py", "tests/delivery"),
)
#: What narrows the builds, so that they take a minute and not an hour; the commands are the same.
NARROWED = {
    # What make calls to set up: the builds share the installation that this rehearsal runs on.
    "PYTHON": "echo the packages are installed already, as the image of a build machine may have them:",
    "TESTS": "tests/delivery/test_difference.py",
    "TYPES": "delivery/difference",
    "AUDIT": "echo what is known of vulnerabilities is asked of the network, which is not here:",
    "REHEARSED": "this is part of a rehearsal",
}
SECONDS = 1_500


class Commits:
    """Source archives: the project's files, the small app in the place of its own, and what a commit says."""

    def __init__(self, app: Path) -> None:
        self._app = app

    def archive(self, files: Mapping[str, str] | None = None, **says: Any) -> bytes:
        """One commit; ``files`` replace what the app has, ``says`` is its ``commit.json``."""
        body = io.BytesIO()
        replaced = {} if files is None else dict(files)
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path, name in self._files():
                if name not in replaced:
                    archive.write(path, name)
            for name, text in {**replaced, "commit.json": json.dumps(says)}.items():
                archive.writestr(name, text)
        return body.getvalue()

    def _files(self) -> Iterator[tuple[Path, str]]:
        for part in PARTS:
            place = self._app / part
            for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path, path.relative_to(self._app).as_posix()
        for path in sorted((self._app / EXAMPLE).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.name != "cdk.json":
                yield path, path.relative_to(self._app / EXAMPLE).as_posix()


@dataclass(kw_only=True)
class Pipeline:
    """The deployed pipeline, as a person sees it."""

    cloud: Cloud
    commits: Commits
    name: str

    def push(self, files: Mapping[str, str] | None = None, **says: Any) -> None:
        """A commit arrives where the pipeline looks for it."""
        body = self.commits.archive(files, **says)
        self.cloud.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=body)

    def executions(self) -> list[dict[str, Any]]:
        """Oldest first."""
        found = self.cloud.client("codepipeline").list_pipeline_executions(pipelineName=self.name)
        return list(reversed(found["pipelineExecutionSummaries"]))

    def execution(self, number: int) -> dict[str, Any]:
        """Wait for the end of an execution, by its number from 0."""

        def ended() -> dict[str, Any] | None:
            found = self.executions()
            done = len(found) > number and found[number]["status"] != "InProgress"
            return found[number] if done else None

        found: dict[str, Any] = wait_until(f"the end of execution {number}", ended, seconds=SECONDS)
        return found

    def asked(self, number: int) -> dict[str, Any]:
        """Wait until an execution asks a person; return the action as the console shows it."""

        def waiting() -> dict[str, Any] | None:
            state = self.cloud.client("codepipeline").get_pipeline_state(name=self.name)
            return next(
                (
                    {**action["latestExecution"], "stage": stage["stageName"], "action": action["actionName"]}
                    for stage in state["stageStates"]
                    for action in stage["actionStates"]
                    if action.get("latestExecution", {}).get("token")
                ),
                None,
            )

        def over() -> str | None:
            found = self.executions()
            if len(found) <= number or found[number]["status"] == "InProgress":
                return None
            return f"{found[number]['status']}: {self.failures(found[number]['pipelineExecutionId'])}"

        found: dict[str, Any] = wait_until("an approval that waits", waiting, seconds=SECONDS, ending=over)
        return found

    def answer(self, asked: Mapping[str, Any], status: str, summary: str) -> None:
        """A person answers."""
        self.cloud.client("codepipeline").put_approval_result(
            pipelineName=self.name,
            stageName=asked["stage"],
            actionName=asked["action"],
            token=asked["token"],
            result={"status": status, "summary": summary},
        )

    def actions(self, execution: str) -> list[dict[str, Any]]:
        """What each action came to, in order."""
        found = self.cloud.client("codepipeline").list_action_executions(
            pipelineName=self.name, filter={"pipelineExecutionId": execution}
        )["actionExecutionDetails"]
        first = min((each["startTime"] for each in found), default=None)
        return [
            {
                "action": f"{each['stageName']}/{each['actionName']}",
                "status": each["status"],
                "began_after": round((each["startTime"] - first).total_seconds(), 1),
                "seconds": round((each["lastUpdateTime"] - each["startTime"]).total_seconds(), 1),
                "why": each["output"]["executionResult"].get("errorDetails", {}).get("message"),
            }
            for each in reversed(found)
        ]

    def failures(self, execution: str) -> str:
        """Why its actions failed."""
        return "; ".join(f"{a['action']}: {a['why']}" for a in self.actions(execution) if a["why"])

    def commands(self) -> list[str]:
        """The commands that builds have run so far, in order."""
        builds = [e for e in self.cloud.ledger() if e["kind"] == "codebuild"]
        return [c for b in builds for phase in b["detail"]["phases"] for c in phase["commands"]]


def put_up(app: Path, folder: Path, server: ServerProcess) -> Pipeline:
    """Bootstrap and deploy the pipeline once, by hand, as a person does; its source is not there yet."""
    assembly = folder / "small.out"
    synthesize(app / EXAMPLE, assembly)
    cdk = Cdk.of(app, assembly, server)
    cdk.bootstrap()
    cloud = Cloud(server)
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    prepared = {name: str((app / name).resolve()) for name in (".venv", "node_modules")}
    server.control("POST", "/builds", {"prepared": prepared, "variables": NARROWED})
    cdk.deploy(["Delivery"])
    [pipeline] = cloud.client("codepipeline").list_pipelines()["pipelines"]
    return Pipeline(cloud=cloud, commits=Commits(app), name=pipeline["name"])


def _pipeline(tale: Tale) -> Pipeline:
    if KNOWN not in tale.known:
        folder = tale.out / "delivery"
        folder.mkdir(exist_ok=True)
        server = start_server(folder / "state")
        tale.at_end.callback(server.stop)
        tale.known[KNOWN] = put_up(tale.app.resolve(), folder, server)
    found: Pipeline = tale.known[KNOWN]
    return found


def _told(pipeline: Pipeline, execution: Mapping[str, Any]) -> Evidence:
    return {
        "execution": execution["status"],
        "began_by": execution["trigger"]["triggerType"],
        "actions": pipeline.actions(execution["pipelineExecutionId"]),
    }


def _delivers(tale: Tale, evidence: Evidence) -> None:
    """A commit arrives: every action of the definition runs, a person reads what changes and says yes."""
    pipeline = _pipeline(tale)
    evidence["narrowed"] = NARROWED
    pipeline.push()
    asked = pipeline.asked(0)
    evidence["asked"] = {key: asked[key] for key in ("stage", "action", "summary", "externalExecutionUrl")}
    link = asked["externalExecutionUrl"]
    bucket, _, page = link.partition("/s3/object/")[2].partition("?prefix=")
    body = pipeline.cloud.objects.read(f"s3://{bucket}/{page.removesuffix('.html')}.txt").decode()
    evidence["what_the_person_reads"] = body.splitlines()[:12]
    require("1 stacks new" in body, "the page does not say that the stack is new")
    pipeline.answer(asked, "Approved", "read and agreed")
    execution = pipeline.execution(0)
    evidence |= _told(pipeline, execution)
    why = pipeline.failures(execution["pipelineExecutionId"])
    require(execution["status"] == "Succeeded", f"the execution is {execution['status']}: {why}")
    require(evidence["began_by"] == "CloudWatchEvent", "it did not begin by the event of the new object")
    said = pipeline.commands()
    evidence["commands"] = list(dict.fromkeys(said))
    for command in ("make lint", "make test", "make audit", "make synth", "make what-changes", "make smoke"):
        require(command in said, f"no build has run {command}")
    stacks = pipeline.cloud.client("cloudformation")
    evidence["stacks"] = {
        name: stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        for name in ("Dev-Things", "Prod-Things")
    }
    refused = [r for role in pipeline.cloud.permissions() for r in role["refused"]]
    # Before its first deploy production has no role that could be asked.
    evidence["refused"] = [f"{r['action']} on {r['resource']}" for r in refused]
    require(not refused, f"roles of the pipeline were refused: {evidence['refused']}")


def _shows(tale: Tale, evidence: Evidence) -> None:
    """The pipeline changes itself, and the next person sees that data would be lost and says no."""
    pipeline = _pipeline(tale)
    before = len(pipeline.executions())
    pipeline.push(rollback=False, data=False, waits_seconds=60)
    first = pipeline.execution(before)
    evidence["execution_that_changed_the_pipeline"] = _told(pipeline, first)
    require(first["status"] == "Cancelled", f"it is {first['status']}, not cancelled by the new definition")
    asked = pipeline.asked(before + 1)
    definition = pipeline.cloud.client("codepipeline").get_pipeline(name=pipeline.name)["pipeline"]
    failing = [s["name"] for s in definition["stages"] if s.get("onFailure", {}).get("result") == "ROLLBACK"]
    require(not failing, f"the pipeline did not change itself: {failing} still roll back")
    bucket, _, page = asked["externalExecutionUrl"].partition("/s3/object/")[2].partition("?prefix=")
    told = pipeline.cloud.objects.read_json(f"s3://{bucket}/{page.removesuffix('.html')}.json")
    evidence["counts"] = told["counts"]
    evidence["findings"] = [f"{f['kind']}: {f['resource']}: {f['why']}" for f in told["findings"]]
    require(told["counts"].get("data-lost") == 1, f"the person was not told of the bucket: {told['counts']}")
    pipeline.answer(asked, "Rejected", "the bucket holds data")
    second = pipeline.execution(before + 1)
    evidence["execution_that_was_refused"] = _told(pipeline, second)
    require(second["status"] == "Failed", f"after a no the execution is {second['status']}")
    resources = pipeline.cloud.client("cloudformation").list_stack_resources(StackName="Prod-Things")
    kept = [r for r in resources["StackResourceSummaries"] if r["ResourceType"] == "AWS::S3::Bucket"]
    require(kept, "production lost its bucket although a person said no")


def _seconds_in_dev(pipeline: Pipeline) -> str:
    """What the queue of development is set to."""
    queues = pipeline.cloud.client("sqs")
    url = next(u for u in queues.list_queues()["QueueUrls"] if "Dev-Things" in u)
    seconds: str = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])[
        "Attributes"
    ]["VisibilityTimeout"]
    return seconds


def _goes_back(tale: Tale, evidence: Evidence) -> None:
    """A wave whose smoke test says no gets the templates of the last execution that succeeded in it."""
    pipeline = _pipeline(tale)
    before = len(pipeline.executions())
    pipeline.push({"smoke.sh": "echo the queue is too slow; exit 1\n"}, waits_seconds=90)
    failed = pipeline.execution(before)
    evidence["failed"] = _told(pipeline, failed)
    require(
        failed["status"] == "Failed", f"with a smoke test that says no the execution is {failed['status']}"
    )
    back = pipeline.execution(before + 1)
    evidence["back"] = _told(pipeline, back)
    detail = pipeline.cloud.client("codepipeline").get_pipeline_execution(
        pipelineName=pipeline.name, pipelineExecutionId=back["pipelineExecutionId"]
    )["pipelineExecution"]
    require(detail["executionType"] == "ROLLBACK", f"what followed is {detail['executionType']}, no rollback")
    evidence["queue_in_dev"] = _seconds_in_dev(pipeline)
    require(evidence["queue_in_dev"] == "30", "development still has what failed")
    require(back["status"] == "Succeeded", f"the rollback is {back['status']}")


def _by_builds(tale: Tale, evidence: Evidence) -> None:
    """The pipeline becomes one whose builds deploy, for many stacks; there too a failed wave goes back."""
    pipeline = _pipeline(tale)
    before = len(pipeline.executions())
    pipeline.push(deploys_by="build", waits_seconds=45)
    first = pipeline.execution(before)
    require(first["status"] == "Cancelled", f"it is {first['status']}, not cancelled by the new definition")
    asked = pipeline.asked(before + 1)
    require(_seconds_in_dev(pipeline) == "45", "development has not what the build deployed")
    pipeline.answer(asked, "Approved", "read and agreed")
    second = pipeline.execution(before + 1)
    evidence |= _told(pipeline, second)
    why = pipeline.failures(second["pipelineExecutionId"])
    require(second["status"] == "Succeeded", f"the execution is {second['status']}: {why}")
    done = {each["action"] for each in evidence["actions"]}
    require({"Dev/DeployDev", "Prod/DeployProd"} <= done, f"no build deployed: {sorted(done)}")
    require("make deploy" in pipeline.commands(), "no build has run make deploy")
    pipeline.push({"smoke.sh": "exit 1\n"}, deploys_by="build", waits_seconds=90)
    failed, back = pipeline.execution(before + 2), pipeline.execution(before + 3)
    evidence["failed"], evidence["back"] = _told(pipeline, failed), _told(pipeline, back)
    require(failed["status"] == "Failed", f"with a smoke test that says no it is {failed['status']}")
    require(back["status"] == "Succeeded", f"the rollback is {back['status']}")
    evidence["queue_in_dev"] = _seconds_in_dev(pipeline)
    require(evidence["queue_in_dev"] == "45", "development still has what failed")
    refused = [r for role in pipeline.cloud.permissions() for r in role["refused"]]
    require(not refused, f"roles of the pipeline were refused: {refused}")


def _accounts(tale: Tale, evidence: Evidence) -> None:
    """Three accounts and two Regions: the example is synthesised, no account is there to deploy to."""
    assembly = tale.out / "accounts.out"
    synthesize(tale.app / ACCOUNTS, assembly)
    places: dict[str, int] = {}
    for stack in stack_artifacts(assembly):
        place = f"{stack.account}/{stack.region}"
        places[place] = places.get(place, 0) + 1
    evidence["stacks_by_account_and_region"] = places
    template = json.loads((assembly / "Delivery.template.json").read_text(encoding="utf-8"))
    [pipeline] = [r for r in template["Resources"].values() if r["Type"] == "AWS::CodePipeline::Pipeline"]
    evidence["stages"] = [stage["Name"] for stage in pipeline["Properties"]["Stages"]]
    evidence["triggers"] = pipeline["Properties"].get("Triggers")
    evidence["why_recorded"] = "the rehearsal has one account; the example's templates are what is shown"
    require(len({p.partition("/")[0] for p in places}) == 3, f"the example is not three accounts: {places}")
    require(len({p.partition("/")[2] for p in places}) == 2, f"the example is not two Regions: {places}")


CELLS = (
    Cell(
        id="deliver.pipeline",
        title="A commit arrives: the deployed pipeline checks, rehearses, deploys, asks a person, deploys",
        chapter=CHAPTER,
        run=_delivers,
        ground="synthesised",
        capabilities=("deliver.pipeline", "deliver.checks", "deliver.approval", "deliver.sources"),
    ),
    Cell(
        id="deliver.rollback",
        title="What was deployed does not answer: the wave goes back by itself",
        chapter=CHAPTER,
        run=_goes_back,
        ground="synthesised",
        capabilities=("deliver.pipeline",),
    ),
    Cell(
        id="deliver.changes",
        title="A commit changes the pipeline and would lose data: it updates itself, the person says no",
        chapter=CHAPTER,
        run=_shows,
        ground="synthesised",
        capabilities=("deliver.pipeline", "deliver.approval"),
    ),
    Cell(
        id="deliver.builds",
        title="Too many stacks for a pipeline's actions: a build deploys an environment, and brings it back",
        chapter=CHAPTER,
        run=_by_builds,
        ground="synthesised",
        capabilities=("deliver.pipeline",),
    ),
    Cell(
        id="deliver.accounts",
        title="Three accounts and two Regions, production in two waves",
        chapter=CHAPTER,
        run=_accounts,
        ground="synthesised",
        capabilities=("deliver.accounts",),
        why_recorded="no account is there to deploy to; the example is synthesised",
    ),
)
