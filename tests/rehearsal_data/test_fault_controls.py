"""Faults on purpose at any service: refused in its own words, late, or the last call of a function."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from rehearsal.faults import Faults, as_said_by, delay_of
from rehearsal.server import ServerError, ServerProcess

NAME = "faulty"
#: Writes a parameter, then sends a message.
PROGRAM = """
import boto3
def handler(event, context):
    ssm, sqs = boto3.client("ssm"), boto3.client("sqs")
    ssm.put_parameter(Name=event["name"], Value=context.aws_request_id, Type="String", Overwrite=True)
    sqs.send_message(QueueUrl=event["queue"], MessageBody=event["name"])
"""


def test_should_hand_out_steps_by_action_and_caller() -> None:
    faults = Faults()
    faults.plan("s3:*", ["SlowDown", None], who="trainer")
    faults.plan("*", ["ThrottlingException"])
    assert faults.take("s3:GetObject", "role/trainer") == "SlowDown"
    assert faults.take("s3:GetObject", "role/other") == "ThrottlingException"
    assert faults.left() == {"s3:* by trainer": 1}
    assert faults.take("sqs:SendMessage", "role/trainer") is None
    assert faults.planned
    faults.forget()
    assert not faults.planned


@pytest.mark.parametrize(
    ("protocol", "code", "said"),
    [
        ("rest-xml", "ExpiredTokenException", ("ExpiredToken", 400)),
        ("rest-xml", "ThrottlingException", ("SlowDown", 503)),
        ("query", "ExpiredTokenException", ("ExpiredToken", 403)),
        ("query", "ThrottlingException", ("Throttling", 400)),
        ("json", "ExpiredTokenException", ("ExpiredTokenException", 400)),
        ("json", "InternalFailure", ("InternalFailure", 500)),
        ("rest-json", "ExpiredTokenException", ("ExpiredTokenException", 403)),
    ],
)
def test_should_say_an_error_as_the_protocol_does(protocol: str, code: str, said: tuple[str, int]) -> None:
    assert as_said_by(protocol, code) == said


@pytest.mark.parametrize("step", ["slow:", "slow:x", "slow:0", "slow:-1", "slow:1e9", "slow:nan"])
def test_should_refuse_a_delay_that_is_none(step: str) -> None:
    with pytest.raises(ValueError, match="between 0 and 600"):
        delay_of(step)


# --- at a server --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def caller(server: ServerProcess, client: Callable[[str], Any]) -> Callable[[str], Any]:
    """Makes clients of a role that may call everything; they try once and wait two seconds."""
    principals = {"AWS": f"arn:aws:iam::{server.account}:root", "Service": "lambda.amazonaws.com"}
    trust = {"Effect": "Allow", "Principal": principals, "Action": "sts:AssumeRole"}
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    iam = client("iam")
    arn = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument=_document(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName=NAME, PolicyName="all", PolicyDocument=_document(everything))
    given = client("sts").assume_role(RoleArn=arn, RoleSessionName="tester")["Credentials"]
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=2)
    session: Any = boto3.session.Session(
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        region_name=server.region,
    )
    return lambda service: session.client(service, endpoint_url=server.endpoint, config=config)


def _document(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def plan(server: ServerProcess) -> Iterator[Callable[..., None]]:
    def make(action: str, *steps: str | None, who: str = NAME) -> None:
        server.control("POST", "/faults", {"action": action, "who": who, "steps": list(steps)})

    yield make
    server.control("POST", "/faults", {"forget": True})


def hits(server: ServerProcess) -> list[tuple[str, str]]:
    entries = server.control("GET", "/ledger?kind=fault")["entries"]
    return [(entry["name"], entry["detail"]["what"]) for entry in entries]


#: A call of each protocol, and how the service says that it knows the caller no longer.
CALLS: tuple[tuple[str, str, dict[str, Any], str, str, int], ...] = (
    ("s3", "list_buckets", {}, "s3:ListAllMyBuckets", "ExpiredToken", 400),
    ("s3", "head_bucket", {"Bucket": "none"}, "s3:ListBucket", "400", 400),
    ("sqs", "list_queues", {}, "sqs:ListQueues", "ExpiredToken", 400),
    ("sns", "list_topics", {}, "sns:ListTopics", "ExpiredToken", 403),
    ("cloudformation", "describe_stacks", {}, "cloudformation:DescribeStacks", "ExpiredToken", 403),
    ("dynamodb", "list_tables", {}, "dynamodb:ListTables", "ExpiredTokenException", 400),
    ("ssm", "describe_parameters", {}, "ssm:DescribeParameters", "ExpiredTokenException", 400),
    ("events", "list_rules", {}, "events:ListRules", "ExpiredTokenException", 400),
    ("logs", "describe_log_groups", {}, "logs:DescribeLogGroups", "ExpiredTokenException", 400),
    ("kinesis", "list_streams", {}, "kinesis:ListStreams", "ExpiredTokenException", 400),
    ("kms", "list_keys", {}, "kms:ListKeys", "ExpiredTokenException", 400),
    ("cloudwatch", "list_metrics", {}, "cloudwatch:ListMetrics", "ExpiredToken", 400),
    ("lambda", "list_functions", {}, "lambda:ListFunctions", "ExpiredTokenException", 403),
    ("sagemaker", "list_endpoints", {}, "sagemaker:ListEndpoints", "ExpiredTokenException", 400),
)


@pytest.mark.slow
@pytest.mark.rehearsal
@pytest.mark.parametrize(("service", "call", "params", "action", "code", "status"), CALLS)
def test_should_answer_an_expired_credential_in_the_services_own_words(
    server: ServerProcess,
    caller: Callable[[str], Any],
    plan: Callable[..., None],
    service: str,
    call: str,
    params: dict[str, Any],
    action: str,
    code: str,
    status: int,
) -> None:
    before = len(hits(server))
    plan("*", "ExpiredTokenException")
    with pytest.raises(ClientError) as refused:
        getattr(caller(service), call)(**params)
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert hits(server)[before:] == [(action, "ExpiredTokenException")]


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_leave_the_operator_and_other_roles_alone(
    server: ServerProcess,
    client: Callable[[str], Any],
    caller: Callable[[str], Any],
    plan: Callable[..., None],
) -> None:
    plan("*", "ThrottlingException", who="somebody-else")
    client("sqs").list_queues()
    caller("sqs").list_queues()
    assert server.control("GET", "/faults")["left"] == {"* by somebody-else": 1}


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_carry_out_a_call_whose_answer_is_late(
    client: Callable[[str], Any], caller: Callable[[str], Any], plan: Callable[..., None]
) -> None:
    plan("*", "slow:4", "slow:4")
    with pytest.raises(ReadTimeoutError):
        caller("ssm").put_parameter(Name="/late", Value="kept", Type="String")
    with pytest.raises(ReadTimeoutError):
        caller("sagemaker").create_model_package_group(ModelPackageGroupName="late")
    assert client("ssm").get_parameter(Name="/late")["Parameter"]["Value"] == "kept"
    assert client("sagemaker").describe_model_package_group(ModelPackageGroupName="late")


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_refuse_what_is_no_plan(server: ServerProcess) -> None:
    for body, said in (
        ({"action": "sqs"}, "action must be like"),
        ({"action": "*", "steps": "all"}, "steps must be a list"),
        ({"action": "*", "steps": ["slow:never"]}, "between 0 and 600"),
        ({"action": "*", "steps": [], "who": 3}, "who must be"),
    ):
        with pytest.raises(ServerError, match=said):
            server.control("POST", "/faults", body)


@pytest.fixture(scope="module")
def function(
    client: Callable[[str], Any], caller: Callable[[str], Any], server: ServerProcess
) -> Callable[..., int]:
    """Has a function write a parameter and send a message; returns how many messages of that name came."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("program.py", PROGRAM)
    client("lambda").create_function(
        FunctionName=NAME,
        Runtime="python3.13",
        Handler="program.handler",
        Role=f"arn:aws:iam::{server.account}:role/{NAME}",
        Timeout=20,
        Code={"ZipFile": sink.getvalue()},
    )
    url = client("sqs").create_queue(QueueName=NAME)["QueueUrl"]

    def sent_by(name: str, count: int = 1) -> int:
        event = json.dumps({"name": name, "queue": url}).encode()
        client("lambda").invoke(FunctionName=NAME, InvocationType="Event", Payload=event)
        deadline, found = time.monotonic() + 20, 0
        while found < count and time.monotonic() < deadline:
            answer = client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", ()):
                found += message["Body"] == name
                client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    return sent_by


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_record_the_calls_of_a_function_in_order(
    server: ServerProcess, function: Callable[..., int]
) -> None:
    server.control("POST", "/calls", {"record": True})
    assert function("/recorded") == 1
    server.control("POST", "/calls", {"record": False})
    calls = server.control("GET", f"/calls?who={NAME}")["calls"]
    assert [(call["action"], call["outcome"]) for call in calls] == [
        ("ssm:PutParameter", "200"),
        ("sqs:SendMessage", "200"),
    ]
    assert calls[0]["resource"].endswith("parameter/recorded")
    assert function("/unrecorded") == 1
    assert server.control("GET", f"/calls?who={NAME}")["calls"] == calls


@pytest.mark.slow
@pytest.mark.rehearsal
@pytest.mark.parametrize(
    ("steps", "messages"),
    [
        (("kill-before",), 1),
        (("kill-after",), 1),
        # The message is sent, and the function never hears of it: Lambda tries again.
        ((None, "kill-after"), 2),
        ((None, "kill-before"), 1),
    ],
)
def test_should_end_a_function_at_its_call_and_let_lambda_try_again(
    server: ServerProcess,
    client: Callable[[str], Any],
    function: Callable[..., int],
    plan: Callable[..., None],
    steps: Sequence[str | None],
    messages: int,
) -> None:
    before = len(hits(server))
    plan("*", *steps, who=f"/{NAME}")
    name = "/" + "-".join(step or "then" for step in steps)
    assert function(name, messages) == messages
    (hit,) = hits(server)[before:]
    assert hit[1] == steps[-1]
    assert len({v["Value"] for v in client("ssm").get_parameter_history(Name=name)["Parameters"]}) == 1, (
        "every attempt bears the request id of the first"
    )
    assert not [
        entry
        for entry in server.control("GET", "/ledger?kind=lambda&outcome=failed")["entries"]
        if entry["name"] == NAME
    ], "a death on purpose is no failure"


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_answer_who_waits_that_the_function_was_killed(
    client: Callable[[str], Any], function: Callable[..., int], plan: Callable[..., None]
) -> None:
    assert function("/alive") == 1
    plan("*", "kill-before", who=f"/{NAME}")
    answer = client("lambda").invoke(FunctionName=NAME, Payload=b'{"name": "/dead", "queue": "none"}')
    error = json.loads(answer["Payload"].read())
    assert (answer["FunctionError"], error["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert error["errorMessage"].endswith("Runtime exited with error: signal: killed")


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_try_an_event_again_whose_function_died(
    server: ServerProcess,
    client: Callable[[str], Any],
    function: Callable[..., int],
    plan: Callable[..., None],
) -> None:
    assert function("/before") == 1
    events, found = client("events"), client("lambda").get_function(FunctionName=NAME)["Configuration"]
    rule = events.put_rule(Name=NAME, EventPattern=json.dumps({"source": ["test.faults"]}))["RuleArn"]
    client("lambda").add_permission(
        FunctionName=NAME,
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    url = client("sqs").get_queue_url(QueueName=NAME)["QueueUrl"]
    wanted = json.dumps({"name": "/by-event", "queue": url})
    events.put_targets(Rule=NAME, Targets=[{"Id": "1", "Arn": found["FunctionArn"], "Input": wanted}])
    plan("ssm:PutParameter", "kill-after", "kill-before", who=f"/{NAME}")
    events.put_events(Entries=[{"Source": "test.faults", "DetailType": "any", "Detail": "{}"}])
    deadline = time.monotonic() + 20
    values: list[dict[str, Any]] = []
    while len(values) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        if not server.control("GET", "/faults")["left"]:
            values = client("ssm").get_parameter_history(Name="/by-event")["Parameters"]
    assert len(values) == 2
    assert len({value["Value"] for value in values}) == 1
    assert server.control("GET", "/faults")["left"] == {}


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_say_that_a_kill_of_who_is_no_function_hits_nobody(
    server: ServerProcess, caller: Callable[[str], Any], plan: Callable[..., None]
) -> None:
    plan("ssm:*", "kill-after")
    caller("ssm").describe_parameters()
    (entry,) = server.control("GET", "/ledger?kind=fault&outcome=failed")["entries"]
    assert "is no function" in entry["why"]
