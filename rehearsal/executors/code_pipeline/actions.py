"""What the actions of a pipeline do: fetch a source, build, ask a person, deploy."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.executors.code_build.builds import Build, Place
from rehearsal.executors.code_build.operations import begin, project_of
from rehearsal.executors.code_pipeline.execution import ActionRun, Execution
from rehearsal.services.engine import ApiError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["ActionError", "perform", "source_is_here"]

#: Seconds that CloudFormation is waited for.
_DEPLOY_SECONDS = 1_800
_GLOBAL = re.compile(r"#\{codepipeline\.PipelineExecutionId\}")


class ActionError(Exception):
    """An action failed; the text is what CodePipeline shows of it."""


class _Context:
    """One action where it runs: who it acts as, where its artifacts lie."""

    def __init__(self, runtime: Runtime, execution: Execution, action: ActionRun, region: str) -> None:
        self.runtime = runtime
        self.execution = execution
        self.action = action
        self.region = str(action.declared.get("region", region))
        self.home = region
        self.configuration = {
            key: _GLOBAL.sub(execution.id, value)
            for key, value in action.declared.get("configuration", {}).items()
        }
        left = [value for value in self.configuration.values() if "#{" in value]
        if left:
            raise ActionError(f"the rehearsal does not know the variable in {left[0]!r}")
        action.configuration = self.configuration
        self._session: Any = None

    def client(self, service: str) -> Any:
        """A client of the role of the action, which the pipeline's role takes on first."""
        if self._session is None:
            self._session = self._taken_on()
        from botocore.config import Config

        return self._session.client(
            service,
            region_name=self.region,
            endpoint_url=self.runtime.endpoint,
            config=Config(
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
                proxies={},
                read_timeout=900,
            ),
        )

    def _taken_on(self) -> Any:
        import boto3.session

        own = self.execution.definition["roleArn"]
        role = self.action.declared.get("roleArn", own)
        if role == own:
            environment = self.runtime.role_environment(own, self.region)
            keys = [
                environment.get(f"AWS_{name}")
                for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
            ]
        else:
            taken = self.runtime.client("sts", role=own, region=self.home).assume_role(
                RoleArn=role, RoleSessionName=self.execution.id[:36]
            )["Credentials"]
            keys = [taken[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        return boto3.session.Session(
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            aws_session_token=keys[2],
            region_name=self.region,
        )

    def place(self, artifact: str) -> Place:
        """Where an artifact of this execution lies in the artifact store."""
        definition = self.execution.definition
        stores = definition.get("artifactStores", {})
        store = stores.get(self.region) or stores.get(self.home) or definition.get("artifactStore")
        if store is None:
            raise ActionError(f"the pipeline has no artifact store in {self.region}")
        key = f"{self.execution.pipeline[:20]}/{artifact[:20]}/{self.execution.id}"
        return Place(bucket=store["location"], key=key)

    def inputs(self) -> dict[str, Place]:
        """The input artifacts by name, the primary one first."""
        names = [each["name"] for each in self.action.declared.get("inputArtifacts", ())]
        primary = self.configuration.get("PrimarySource")
        names.sort(key=lambda name: name != primary)
        missing = [name for name in names if name not in self.execution.artifacts]
        if missing:
            raise ActionError(f"no action has made the artifact {', '.join(missing)}")
        return {name: self.execution.artifacts[name] for name in names}

    def outputs(self) -> dict[str, Place]:
        """Where the output artifacts go."""
        return {
            each["name"]: self.place(each["name"]) for each in self.action.declared.get("outputArtifacts", ())
        }


def perform(runtime: Runtime, execution: Execution, action: ActionRun, region: str) -> None:
    """Run one action to its end.

    Raises:
        ActionError: it failed, or it is of a kind that only an account runs.
    """
    from botocore.exceptions import ClientError

    kind = action.declared["actionTypeId"]
    name = kind["category"], kind["provider"]
    if name not in _KINDS:
        raise ActionError(f"the rehearsal runs no {name[0]} action of {name[1]}")
    try:
        context = _Context(runtime, execution, action, region)
        _KINDS[name](context)
    except (ClientError, ApiError) as error:
        raise ActionError(str(error)) from error


def source_is_here(runtime: Runtime, definition: Mapping[str, Any], region: str) -> str | None:
    """Why a pipeline's source cannot be fetched here; None when it can."""
    from botocore.exceptions import ClientError

    for action in definition["stages"][0]["actions"]:
        if action["actionTypeId"]["provider"] != "S3":
            return f"its source is {action['actionTypeId']['provider']}, outside of the rehearsal"
        place = action.get("configuration", {})
        if not {"S3Bucket", "S3ObjectKey"} <= set(place):
            return "its source names no object"
        try:
            runtime.client("s3", region=region).head_object(
                Bucket=place["S3Bucket"], Key=place["S3ObjectKey"]
            )
        except ClientError:
            return f"s3://{place['S3Bucket']}/{place['S3ObjectKey']} is not there yet"
    return None


# -- source --------------------------------------------------------------------------------------------------


def _s3_source(context: _Context) -> None:
    s3 = context.client("s3")
    place = {"Bucket": context.configuration["S3Bucket"], "Key": context.configuration["S3ObjectKey"]}
    versioning = s3.get_bucket_versioning(Bucket=place["Bucket"]).get("Status")
    if versioning != "Enabled":
        raise ActionError(f"the bucket {place['Bucket']} is not versioned")
    found = s3.get_object(**place)
    body = found["Body"].read()
    for name, target in context.outputs().items():
        s3.put_object(Bucket=target.bucket, Key=target.key, Body=body)
        context.execution.artifacts[name] = target
    revision = str(found.get("VersionId", found["ETag"].strip('"')))
    context.action.summary = f"Amazon S3 version id: {revision}"
    context.execution.revisions.append(
        {"name": context.action.declared["outputArtifacts"][0]["name"], "revisionId": revision}
    )


# -- build ---------------------------------------------------------------------------------------------------


def _code_build(context: _Context) -> None:
    runtime, name = context.runtime, context.configuration["ProjectName"]
    role = context.action.declared.get("roleArn", context.execution.definition["roleArn"])
    service = runtime.service("codebuild", context.region)
    project = project_of(service, name)
    # The action calls StartBuild and follows the build, as its role.
    runtime.authorizer.require(*_asked(role, "codebuild:StartBuild", project["arn"], context.region))
    runtime.authorizer.note_service_use(role, ["codebuild:BatchGetBuilds"], project["arn"], context.region)
    given = json.loads(context.configuration.get("EnvironmentVariables", "[]"))
    outputs = context.outputs()
    build = begin(
        service,
        project,
        initiator=f"codepipeline/{context.execution.pipeline}",
        inputs=context.inputs(),
        # The first artifact of an action is the specification's own, the others are its secondary ones.
        outputs={("" if number == 0 else n): p for number, (n, p) in enumerate(outputs.items())},
        variables={v["name"]: v["value"] for v in given},
    )
    context.action.external = build.id
    while not build.done.wait(0.2):
        if context.execution.stop.is_set() or runtime.stopping.is_set():
            build.stop.set()
    if build.status != "SUCCEEDED":
        raise ActionError(f"Build terminated with state: {build.status} ({build.id}): {_last_lines(build)}")
    context.execution.artifacts |= outputs
    if "namespace" in context.action.declared:
        space = context.action.declared["namespace"]
        context.execution.variables |= {f"{space}.{k}": v for k, v in build.exported.items()}


def _last_lines(build: Build) -> str:
    if build.log is None or not build.log.exists():
        return "it said nothing"
    lines = build.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " | ".join(line.strip() for line in lines[-8:] if line.strip())[-1_200:]


def _asked(role: str, action: str, resource: str, region: str) -> tuple[Any, ...]:
    from rehearsal.iam import Principal
    from rehearsal.ministack_bridge import Check

    name, account = role.rsplit("/", 1)[-1], role.split(":")[4]
    session = f"arn:aws:sts::{account}:assumed-role/{name}/codepipeline"
    check = Check(action=action, resource=resource)
    return Principal(role_arn=role, session_arn=session), action.partition(":")[0], [check], region


# -- approval ------------------------------------------------------------------------------------------------


def _approval(context: _Context) -> None:
    action, execution = context.action, context.execution
    action.external = context.configuration.get("ExternalEntityLink", "")
    action.summary = context.configuration.get("CustomData", "")
    topic = context.configuration.get("NotificationArn")
    action.token = action.id
    if topic is not None:
        told = {
            "region": context.region,
            "consoleLink": f"https://{context.region}.console.aws.amazon.com/codesuite/codepipeline/pipelines/"
            f"{execution.pipeline}/view",
            "approval": {
                "pipelineName": execution.pipeline,
                "stageName": action.stage,
                "actionName": action.name,
                "token": action.token,
                "externalEntityLink": action.external,
                "customData": action.summary,
            },
        }
        context.client("sns").publish(
            TopicArn=topic,
            Subject=f"APPROVAL NEEDED: AWS CodePipeline {execution.pipeline}"[:100],
            Message=json.dumps(told),
        )
    # A person takes their time: it is no work that the clock or "idle" waits for.
    while not action.answered.wait(0.1):
        if execution.stop.is_set() or context.runtime.stopping.is_set():
            raise ActionError("the execution was stopped while it waited for an approval")
    assert action.answer is not None
    status, summary = action.answer
    if status != "Approved":
        raise ActionError(f"Rejected: {summary}")
    action.summary = summary


# -- deploy --------------------------------------------------------------------------------------------------


def _cloud_formation(context: _Context) -> None:
    mode = context.configuration["ActionMode"]
    if mode == "CHANGE_SET_REPLACE":
        _replace_change_set(context)
    elif mode == "CHANGE_SET_EXECUTE":
        _execute_change_set(context)
    else:
        raise ActionError(f"the rehearsal does not know ActionMode {mode}")


def _stack(cloudformation: Any, name: str) -> Mapping[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        found: Mapping[str, Any] = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return found


def _template(context: _Context) -> str:
    artifact, _, path = context.configuration["TemplatePath"].partition("::")
    place = context.inputs()[artifact]
    body = context.client("s3").get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return archive.read(path).decode("utf-8")


def _replace_change_set(context: _Context) -> None:
    from botocore.exceptions import ClientError

    cloudformation, given = context.client("cloudformation"), context.configuration
    stack = _stack(cloudformation, given["StackName"])
    new = stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS"
    named = {"StackName": given["StackName"], "ChangeSetName": given["ChangeSetName"]}
    if stack is not None:
        try:
            cloudformation.delete_change_set(**named)
        except ClientError as error:
            if "does not exist" not in str(error) and "ChangeSetNotFound" not in str(error):
                raise
    cloudformation.create_change_set(
        **named,
        ChangeSetType="CREATE" if new else "UPDATE",
        TemplateBody=_template(context),
        Capabilities=given.get("Capabilities", "").split(",") if given.get("Capabilities") else [],
        **({"RoleARN": given["RoleArn"]} if "RoleArn" in given else {}),
    )
    described = _settled(
        context, lambda: cloudformation.describe_change_set(**named), "Status", ("CREATE_COMPLETE", "FAILED")
    )
    if described["Status"] == "FAILED" and not _nothing_to_do(described.get("StatusReason", "")):
        raise ActionError(f"change set {given['ChangeSetName']}: {described.get('StatusReason')}")
    context.action.summary = f"Change set {given['ChangeSetName']} was created"


def _nothing_to_do(reason: str) -> bool:
    return "didn't contain changes" in reason or "No updates are to be performed" in reason


def _execute_change_set(context: _Context) -> None:
    cloudformation, given = context.client("cloudformation"), context.configuration
    named = {"StackName": given["StackName"], "ChangeSetName": given["ChangeSetName"]}
    described = cloudformation.describe_change_set(**named)
    if described["Status"] == "FAILED" and _nothing_to_do(described.get("StatusReason", "")):
        cloudformation.delete_change_set(**named)
        context.action.summary = "There was nothing to deploy"
        return
    cloudformation.execute_change_set(**named)
    # CloudFormation answers before it begins.
    time.sleep(0.1)
    stack = _settled(
        context,
        lambda: cloudformation.describe_stacks(StackName=given["StackName"])["Stacks"][0],
        "StackStatus",
        ("CREATE_COMPLETE", "UPDATE_COMPLETE", "FAILED", "ROLLBACK_COMPLETE"),
    )
    if stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise ActionError(
            f"stack {given['StackName']} is {stack['StackStatus']}: {_why(cloudformation, given)}"
        )
    context.action.summary = f"Deployment of {given['StackName']} succeeded: {stack['StackStatus']}"


def _settled(
    context: _Context, ask: Callable[[], Mapping[str, Any]], member: str, ends: tuple[str, ...]
) -> Mapping[str, Any]:
    deadline = time.monotonic() + _DEPLOY_SECONDS
    while True:
        found = ask()
        state = str(found[member])
        if not state.endswith(("_IN_PROGRESS", "_PENDING")) and state.endswith(ends):
            return found
        if time.monotonic() > deadline or context.runtime.stopping.is_set():
            raise ActionError(f"{member} is {state} after {_DEPLOY_SECONDS} s")
        time.sleep(0.2)


def _why(cloudformation: Any, given: Mapping[str, str]) -> str:
    events = cloudformation.describe_stack_events(StackName=given["StackName"])["StackEvents"]
    failed = [e for e in events if e["ResourceStatus"].endswith("_FAILED")]
    return "; ".join(f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason', '')}" for e in failed[:3])


_KINDS: dict[tuple[str, str], Callable[[_Context], None]] = {
    ("Source", "S3"): _s3_source,
    ("Build", "CodeBuild"): _code_build,
    ("Test", "CodeBuild"): _code_build,
    ("Approval", "Manual"): _approval,
    ("Deploy", "CloudFormation"): _cloud_formation,
}
