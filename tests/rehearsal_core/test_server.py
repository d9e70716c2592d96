"""The server as a process: how it starts, refuses and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from core_support import client_of

from rehearsal.server import ServerError, ServerProcess, free_port, start_server

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]


def _group(pid: int) -> list[str]:
    """Return the command lines of the live processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[2]) == pid and stat[0] != "Z":
                    found.append((entry / "cmdline").read_text())
    return found


def _wait_for(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def _warm_function(server: ServerProcess) -> None:
    """Leave a function's worker process running."""
    import io
    import json
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("f.py", "def handler(event, context):\n    return 1\n")
    arn = client_of(server, "iam").create_role(
        RoleName="r", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []})
    )["Role"]["Arn"]
    functions = client_of(server, "lambda")
    functions.create_function(
        FunctionName="f",
        Runtime="python3.13",
        Role=arn,
        Handler="f.handler",
        Code={"ZipFile": data.getvalue()},
    )
    assert functions.invoke(FunctionName="f")["Payload"].read() == b"1"


def test_should_answer_who_it_is(server: ServerProcess) -> None:
    health = server.control("GET", "/health")
    assert health["status"] == "ready"
    assert health["account"] == "123456789012"


def test_should_name_the_control_functions_for_an_unknown_one(server: ServerProcess) -> None:
    with pytest.raises(ServerError, match=r"there are: .*GET /_rehearsal/iam"):
        server.control("GET", "/nope")


def test_should_refuse_a_control_body_that_is_no_object(server: ServerProcess) -> None:
    with pytest.raises(ServerError, match="timeout_seconds must be a number of seconds, got 'soon'"):
        server.control("GET", "/idle?timeout_seconds=soon")


def test_should_refuse_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} on 127.0.0.1 cannot be used .*choose another"):
            start_server(tmp_path / "state", port)


def test_should_refuse_a_state_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ServerError, match="holds other files and would be cleared"):
        start_server(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_should_refuse_a_state_folder_in_use(server: ServerProcess) -> None:
    with pytest.raises(ServerError, match="is in use by a running rehearsal"):
        start_server(server.state)
    assert server.control("GET", "/health")["status"] == "ready"


def test_should_start_clean_over_an_old_state_and_leave_no_process(tmp_path: Path) -> None:
    port = free_port()
    with start_server(tmp_path / "state", port) as first:
        client_of(first, "s3").create_bucket(Bucket="old")
        _warm_function(first)
        (first.state / "leftover").write_text("x")
        assert len(_group(first.process.pid)) > 1
    assert _group(first.process.pid) == []
    with start_server(tmp_path / "state", port) as second:
        assert client_of(second, "s3").list_buckets()["Buckets"] == []
        assert not (second.state / "leftover").exists()
    assert _group(second.process.pid) == []


def test_should_end_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from rehearsal.server import start_server\n"
        "s = start_server(pathlib.Path(sys.argv[1])); print(s.process.pid, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "state")], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter.stdout:
        pid = int(starter.stdout.readline())
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    assert _wait_for(lambda: _group(pid) == [])


def test_should_end_at_sigterm_within_seconds(tmp_path: Path) -> None:
    with start_server(tmp_path / "state") as server:
        _warm_function(server)
        server.process.terminate()
        assert server.process.wait(10) == 0
        assert _wait_for(lambda: _group(server.process.pid) == [], 3)


def test_should_refuse_an_account_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="account must be 12 digits, got 'dev'"):
        start_server(tmp_path / "state", account="dev")


# -- the wire, with a real SDK ------------------------------------------------------------------------------


def test_should_refuse_an_unknown_parameter_with_awss_code(server: ServerProcess) -> None:
    import json
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        server.endpoint,
        data=json.dumps({"ModelPackageGroupName": "g", "Colour": "red"}).encode(),
        headers={
            "X-Amz-Target": "SageMaker.CreateModelPackageGroup",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/sagemaker/aws4_request, "
            "SignedHeaders=host, Signature=0",
        },
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        body = json.loads(answer.read())
    assert body["__type"] == "ValidationException"
    assert 'Unknown parameter in input: "Colour"' in body["message"]


def test_should_refuse_a_value_outside_of_an_enum(client: Callable[[str], Any]) -> None:
    with pytest.raises(ClientError) as caught:
        client("sagemaker").create_feature_group(
            FeatureGroupName="g",
            RecordIdentifierFeatureName="id",
            EventTimeFeatureName="at",
            FeatureDefinitions=[{"FeatureName": "id", "FeatureType": "Text"}],
        )
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert "Member must satisfy enum value set: [Integral, Fractional, String]" in error["Message"]


def test_should_refuse_a_name_outside_of_its_pattern(client: Callable[[str], Any]) -> None:
    with pytest.raises(ClientError, match="must satisfy regular expression pattern"):
        client("sagemaker").create_model_package_group(ModelPackageGroupName="a group")


def test_should_refuse_a_missing_parameter_in_the_sdk_already(client: Callable[[str], Any]) -> None:
    with pytest.raises(
        ParamValidationError, match='Missing required parameter in input: "ModelPackageGroupName"'
    ):
        client("sagemaker").create_model_package_group()


def test_should_answer_the_services_own_error_for_what_is_missing(client: Callable[[str], Any]) -> None:
    for call, code in (
        (lambda: client("sagemaker").describe_endpoint(EndpointName="nope"), "ValidationException"),
        (lambda: client("sagemaker").describe_training_job(TrainingJobName="nope"), "ResourceNotFound"),
        (lambda: client("codepipeline").get_pipeline(name="nope"), "PipelineNotFoundException"),
        (
            lambda: client("lakeformation").describe_resource(ResourceArn="arn:aws:s3:::x"),
            "EntityNotFoundException",
        ),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == code


def test_should_say_what_it_does_not_emulate(client: Callable[[str], Any]) -> None:
    with pytest.raises(ClientError) as caught:
        client("sagemaker").search(Resource="Pipeline")
    assert caught.value.response["Error"]["Code"] == "NotImplemented"


def test_should_page_and_filter_lists(client: Callable[[str], Any]) -> None:
    sagemaker = client("sagemaker")
    for number in range(5):
        sagemaker.create_model_package_group(ModelPackageGroupName=f"page-{number}")
    sagemaker.create_model_package_group(ModelPackageGroupName="another")
    pages = sagemaker.get_paginator("list_model_package_groups").paginate(
        NameContains="page", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    names = [[g["ModelPackageGroupName"] for g in page["ModelPackageGroupSummaryList"]] for page in pages]
    assert names == [["page-0", "page-1"], ["page-2", "page-3"], ["page-4"]]


def test_should_keep_tags(client: Callable[[str], Any]) -> None:
    sagemaker = client("sagemaker")
    arn = sagemaker.create_model_package_group(
        ModelPackageGroupName="tagged", Tags=[{"Key": "a", "Value": "1"}]
    )["ModelPackageGroupArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]


def test_should_refuse_a_resource_that_is_there_already(client: Callable[[str], Any]) -> None:
    client("sagemaker").create_model_package_group(ModelPackageGroupName="twice")
    with pytest.raises(ClientError, match="already exists"):
        client("sagemaker").create_model_package_group(ModelPackageGroupName="twice")


def test_should_serve_a_rest_service(client: Callable[[str], Any]) -> None:
    lake = client("lakeformation")
    lake.put_data_lake_settings(
        DataLakeSettings={
            "DataLakeAdmins": [{"DataLakePrincipalIdentifier": "arn:aws:iam::123456789012:role/a"}]
        }
    )
    admins = lake.get_data_lake_settings()["DataLakeSettings"]["DataLakeAdmins"]
    assert admins == [{"DataLakePrincipalIdentifier": "arn:aws:iam::123456789012:role/a"}]


def test_should_refuse_a_grant_on_a_table_that_is_not_there(client: Callable[[str], Any]) -> None:
    with pytest.raises(ClientError) as caught:
        client("lakeformation").grant_permissions(
            Principal={"DataLakePrincipalIdentifier": "arn:aws:iam::123456789012:role/a"},
            Resource={"Table": {"DatabaseName": "nope", "Name": "nope"}},
            Permissions=["SELECT"],
        )
    assert caught.value.response["Error"]["Code"] == "EntityNotFoundException"


def test_should_list_and_revoke_grants(client: Callable[[str], Any]) -> None:
    client("glue").create_database(DatabaseInput={"Name": "granted"})
    client("iam").create_role(RoleName="reader", AssumeRolePolicyDocument="{}")
    grant = {
        "Principal": {"DataLakePrincipalIdentifier": "arn:aws:iam::123456789012:role/reader"},
        "Resource": {"Database": {"Name": "granted"}},
        "Permissions": ["DESCRIBE"],
    }
    lake = client("lakeformation")
    lake.grant_permissions(**grant)
    (listed,) = lake.list_permissions(Resource={"Database": {"Name": "granted"}})[
        "PrincipalResourcePermissions"
    ]
    assert listed["Permissions"] == ["DESCRIBE"]
    lake.revoke_permissions(**grant)
    assert (
        lake.list_permissions(Resource={"Database": {"Name": "granted"}})["PrincipalResourcePermissions"]
        == []
    )


def test_should_record_that_a_pipeline_is_not_run(
    server: ServerProcess, client: Callable[[str], Any]
) -> None:
    action = {"category": "Source", "owner": "AWS", "provider": "S3", "version": "1"}
    client("codepipeline").create_pipeline(
        pipeline={
            "name": "delivery",
            "roleArn": "arn:aws:iam::123456789012:role/r",
            "artifactStore": {"type": "S3", "location": "artifacts"},
            "stages": [
                {"name": "Source", "actions": [{"name": "S", "actionTypeId": action}]},
                {"name": "Build", "actions": [{"name": "B", "actionTypeId": action}]},
            ],
        }
    )
    assert client("codepipeline").get_pipeline(name="delivery")["pipeline"]["name"] == "delivery"
    (entry,) = server.control("GET", "/ledger?kind=codepipeline")["entries"]
    assert entry["outcome"] == "recorded"
    assert entry["detail"]["stages"] == ["Source", "Build"]
