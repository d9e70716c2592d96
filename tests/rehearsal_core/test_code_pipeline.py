"""A pipeline that is run: its builds, its approval, its roles, its way back."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.executors.code_build.specification import SpecificationError, parsed
from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

ACCOUNT = "123456789012"
Client = Callable[[str], Any]


def role(client: Client, name: str, service: str, *statements: dict[str, Any]) -> str:
    """A role that a service takes on."""
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": service}}
    iam = client("iam")
    arn: str = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]["Arn"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **s} for s in statements]}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(document))
    return arn


OBJECTS = {"Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::artifacts/*"}
LOGS = {"Action": "logs:*", "Resource": "*"}


class Ground:
    """Buckets, roles and a project whose specification a test gives."""

    def __init__(self, client: Client) -> None:
        self.client = client
        for bucket in ("code", "artifacts"):
            client("s3").create_bucket(Bucket=bucket)
        client("s3").put_bucket_versioning(Bucket="code", VersioningConfiguration={"Status": "Enabled"})
        source = {
            "Action": ["s3:GetObject", "s3:GetBucketVersioning"],
            "Resource": ["arn:aws:s3:::code", "arn:aws:s3:::code/*"],
        }
        builds = {
            "Action": "codebuild:StartBuild",
            "Resource": f"arn:aws:codebuild:us-east-1:{ACCOUNT}:project/open",
        }
        self.role = role(client, "pipeline", "codepipeline.amazonaws.com", OBJECTS, source, builds)
        self.build_role = role(client, "build", "codebuild.amazonaws.com", OBJECTS, LOGS)

    def project(self, name: str, *commands: str, artifacts: bool = True) -> None:
        """A project that runs commands and leaves the file ``out``."""
        specification: dict[str, Any] = {"version": "0.2", "phases": {"build": {"commands": list(commands)}}}
        if artifacts:
            specification["artifacts"] = {"files": ["out"]}
        self.client("codebuild").create_project(
            name=name,
            source={"type": "CODEPIPELINE", "buildspec": json.dumps(specification)},
            artifacts={"type": "CODEPIPELINE"},
            environment={
                "type": "LINUX_CONTAINER",
                "image": "aws/codebuild/standard:7.0",
                "computeType": "BUILD_GENERAL1_SMALL",
                "environmentVariables": [{"name": "FROM_PROJECT", "value": "p"}],
            },
            serviceRole=self.build_role,
        )

    def pipeline(self, name: str, *stages: dict[str, Any]) -> dict[str, Any]:
        """A definition whose source is ``s3://code/<name>.zip``."""
        source = {
            "name": "Code",
            "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "S3", "version": "1"},
            "configuration": {
                "S3Bucket": "code",
                "S3ObjectKey": f"{name}.zip",
                "PollForSourceChanges": "false",
            },
            "outputArtifacts": [{"name": "Code"}],
        }
        return {
            "name": name,
            "roleArn": self.role,
            "artifactStore": {"type": "S3", "location": "artifacts"},
            "stages": [{"name": "Source", "actions": [source]}, *stages],
        }

    def commit(self, name: str, **files: str) -> None:
        """A source arrives."""
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        self.client("s3").put_object(Bucket="code", Key=f"{name}.zip", Body=body.getvalue())

    def ended(self, name: str, execution: str) -> dict[str, Any]:
        """Wait for the end of an execution."""
        for _ in range(300):
            found: dict[str, Any] = self.client("codepipeline").get_pipeline_execution(
                pipelineName=name, pipelineExecutionId=execution
            )["pipelineExecution"]
            if found["status"] != "InProgress":
                return found
            time.sleep(0.2)
        raise AssertionError("the execution has no end")

    def start(self, name: str) -> str:
        execution: str = self.client("codepipeline").start_pipeline_execution(name=name)[
            "pipelineExecutionId"
        ]
        return execution

    def actions(self, name: str, execution: str) -> dict[str, dict[str, Any]]:
        found = self.client("codepipeline").list_action_executions(
            pipelineName=name, filter={"pipelineExecutionId": execution}
        )["actionExecutionDetails"]
        return {each["actionName"]: each for each in found}


def build(name: str, project: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "actionTypeId": {"category": "Build", "owner": "AWS", "provider": "CodeBuild", "version": "1"},
        "configuration": {"ProjectName": project, **more},
        "inputArtifacts": [{"name": "Code"}],
        "outputArtifacts": [{"name": f"{name}Out"}],
    }


APPROVAL = {
    "name": "Ask",
    "actionTypeId": {"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "1"},
    "configuration": {
        "CustomData": "look",
        "ExternalEntityLink": "https://x/#{codepipeline.PipelineExecutionId}",
    },
}


@pytest.fixture(scope="module")
def ground(client: Client) -> Ground:
    made = Ground(client)
    made.project(
        "open", 'echo "$FROM_PROJECT $FROM_ACTION $(cat word)" > out', "export KEPT=1", "[ $KEPT = 1 ]"
    )
    return made


def test_should_run_the_commands_of_the_project_on_the_source_and_hand_on_what_they_leave(
    ground: Ground,
) -> None:
    given = json.dumps([{"name": "FROM_ACTION", "value": "a", "type": "PLAINTEXT"}])
    ground.commit("good", word="here")
    declared = ground.pipeline(
        "good", {"name": "Build", "actions": [build("B", "open", EnvironmentVariables=given)]}
    )
    ground.client("codepipeline").create_pipeline(pipeline=declared)
    # It runs when it is made, as its source is there.
    [first] = ground.client("codepipeline").list_pipeline_executions(pipelineName="good")[
        "pipelineExecutionSummaries"
    ]
    assert ground.ended("good", first["pipelineExecutionId"])["status"] == "Succeeded"
    left = ground.client("s3").get_object(Bucket="artifacts", Key=f"good/BOut/{first['pipelineExecutionId']}")
    with zipfile.ZipFile(io.BytesIO(left["Body"].read())) as archive:
        assert archive.read("out").decode().split() == ["p", "a", "here"]


def test_should_fail_a_build_by_its_first_command_that_fails_and_say_which(ground: Ground) -> None:
    ground.commit("bad", word="x")
    ground.project("closed", "true", "false", "touch out")
    ground.client("iam").put_role_policy(
        RoleName="pipeline",
        PolicyName="closed",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": "codebuild:StartBuild",
                        "Resource": f"arn:aws:codebuild:us-east-1:{ACCOUNT}:project/closed",
                    }
                ],
            }
        ),
    )
    declared = ground.pipeline("bad", {"name": "Build", "actions": [build("B", "closed")]})
    ground.client("codepipeline").create_pipeline(pipeline=declared)
    execution = ground.start("bad")
    assert ground.ended("bad", execution)["status"] == "Failed"
    why = ground.actions("bad", execution)["B"]["output"]["executionResult"]["errorDetails"]["message"]
    assert "Running command false" in why
    assert "BUILD State: FAILED" in why
    assert "touch" not in why


def test_should_refuse_a_build_that_the_role_may_not_start(ground: Ground) -> None:
    ground.commit("strange", word="x")
    ground.project("unknown", "true")
    declared = ground.pipeline("strange", {"name": "Build", "actions": [build("B", "unknown")]})
    ground.client("codepipeline").create_pipeline(pipeline=declared)
    execution = ground.start("strange")
    assert ground.ended("strange", execution)["status"] == "Failed"
    why = ground.actions("strange", execution)["B"]["output"]["executionResult"]["errorDetails"]["message"]
    assert "not authorized to perform: codebuild:StartBuild" in why


def waiting(ground: Ground, name: str) -> dict[str, Any]:
    for _ in range(100):
        for stage in ground.client("codepipeline").get_pipeline_state(name=name)["stageStates"]:
            for action in stage["actionStates"]:
                if action.get("latestExecution", {}).get("token"):
                    found: dict[str, Any] = action["latestExecution"]
                    return found
        time.sleep(0.1)
    raise AssertionError("nobody is asked")


def answer(ground: Ground, name: str, token: str, status: str) -> None:
    ground.client("codepipeline").put_approval_result(
        pipelineName=name,
        stageName="Gate",
        actionName="Ask",
        token=token,
        result={"status": status, "summary": "so"},
    )


def test_should_wait_for_a_person_and_do_as_they_say(ground: Ground) -> None:
    ground.commit("asks", word="x")
    declared = ground.pipeline("asks", {"name": "Gate", "actions": [APPROVAL]})
    ground.client("codepipeline").create_pipeline(pipeline=declared)
    first = waiting(ground, "asks")
    [execution] = ground.client("codepipeline").list_pipeline_executions(pipelineName="asks")[
        "pipelineExecutionSummaries"
    ]
    assert first["externalExecutionUrl"] == f"https://x/{execution['pipelineExecutionId']}"
    with pytest.raises(ClientError, match="has this token"):
        answer(ground, "asks", "0a1b2c3d-0000-4000-8000-000000000000", "Approved")
    answer(ground, "asks", first["token"], "Approved")
    assert ground.ended("asks", execution["pipelineExecutionId"])["status"] == "Succeeded"
    second = ground.start("asks")
    answer(ground, "asks", waiting(ground, "asks")["token"], "Rejected")
    assert ground.ended("asks", second)["status"] == "Failed"
    why = ground.actions("asks", second)["Ask"]["output"]["executionResult"]["errorDetails"]["message"]
    assert why == "Rejected: so"


def test_should_cancel_what_follows_a_definition_that_is_gone(ground: Ground) -> None:
    ground.commit("moves", word="x")
    declared = ground.pipeline("moves", {"name": "Gate", "actions": [APPROVAL]})
    codepipeline = ground.client("codepipeline")
    codepipeline.create_pipeline(pipeline=declared)
    asked = waiting(ground, "moves")
    [execution] = codepipeline.list_pipeline_executions(pipelineName="moves")["pipelineExecutionSummaries"]
    codepipeline.update_pipeline(
        pipeline={
            **declared,
            "stages": [*declared["stages"], {"name": "More", "actions": [{**APPROVAL, "name": "Again"}]}],
        }
    )
    assert ground.ended("moves", execution["pipelineExecutionId"])["status"] == "Cancelled"
    answer(ground, "moves", asked["token"], "Approved")


def test_should_roll_a_stage_back_to_what_succeeded_there(ground: Ground) -> None:
    ground.commit("back", word="good")
    ground.project("picky", "grep good word && cp word out")
    ground.client("iam").put_role_policy(
        RoleName="pipeline",
        PolicyName="picky",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": "codebuild:StartBuild",
                        "Resource": f"arn:aws:codebuild:us-east-1:{ACCOUNT}:project/picky",
                    }
                ],
            }
        ),
    )
    stage = {"name": "Build", "actions": [build("B", "picky")], "onFailure": {"result": "ROLLBACK"}}
    codepipeline = ground.client("codepipeline")
    codepipeline.create_pipeline(pipeline=ground.pipeline("back", stage))
    [good] = codepipeline.list_pipeline_executions(pipelineName="back")["pipelineExecutionSummaries"]
    assert ground.ended("back", good["pipelineExecutionId"])["status"] == "Succeeded"
    ground.commit("back", word="bad")
    bad = ground.start("back")
    assert ground.ended("back", bad)["status"] == "Failed"
    for _ in range(50):
        every = codepipeline.list_pipeline_executions(pipelineName="back")["pipelineExecutionSummaries"]
        if len(every) == 3:
            break
        time.sleep(0.1)
    back = ground.ended("back", every[0]["pipelineExecutionId"])
    assert (back["status"], back["executionType"]) == ("Succeeded", "ROLLBACK")
    assert back["rollbackMetadata"] == {"rollbackTargetPipelineExecutionId": good["pipelineExecutionId"]}
    by_hand = codepipeline.rollback_stage(
        pipelineName="back", stageName="Build", targetPipelineExecutionId=good["pipelineExecutionId"]
    )["pipelineExecutionId"]
    assert ground.ended("back", by_hand)["status"] == "Succeeded"
    with pytest.raises(ClientError, match="did not succeed in Build"):
        codepipeline.rollback_stage(pipelineName="back", stageName="Build", targetPipelineExecutionId=bad)


def test_should_record_a_pipeline_whose_source_is_elsewhere(ground: Ground, server: ServerProcess) -> None:
    declared = ground.pipeline("afar", {"name": "Gate", "actions": [APPROVAL]})
    declared["stages"][0]["actions"][0]["actionTypeId"]["provider"] = "CodeCommit"
    ground.client("codepipeline").create_pipeline(pipeline=declared)
    found = [e for e in server.control("GET", "/ledger")["entries"] if e["name"] == "afar"]
    assert [e["outcome"] for e in found] == ["recorded"]
    assert "its source is CodeCommit" in found[0]["why"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version: 0.1", "version must be 0.2"),
        ("version: 0.2\ncache: {paths: [x]}", "does not follow cache"),
        ("version: 0.2\nphases: {build: {on-failure: CONTINUE}}", r"does not follow phases.build.on-failure"),
        ("version: 0.2\nenv: {secrets-manager: {A: b}}", "does not follow env.secrets-manager"),
        ("[", "is no YAML"),
    ],
)
def test_should_refuse_a_specification_that_it_would_only_follow_in_part(text: str, why: str) -> None:
    with pytest.raises(SpecificationError, match=why):
        parsed(text)
