"""Requests are read, answers written and parameters judged by botocore's models."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from rehearsal.gateway import OWN_SERVICES
from rehearsal.services.engine import ApiError, service_model
from rehearsal.services.patterns import compiled
from rehearsal.services.validation import problems
from rehearsal.services.wire import Request, Wire, wire


def _request(method: str, path: str, body: bytes = b"", **headers: str) -> Request:
    path, _, query = path.partition("?")
    from urllib.parse import parse_qs

    return Request(method=method, path=path, query=parse_qs(query), headers=headers, body=body)


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_should_speak_the_protocol_of_every_own_service(service: str) -> None:
    assert wire(service).protocol in ("json", "rest-json")


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_should_compile_every_pattern_of_an_own_service(service: str) -> None:
    model = service_model(service)
    for name in model.shape_names:
        pattern = model.shape_for(name).metadata.get("pattern")
        if pattern is not None:
            compiled(pattern)


def test_should_read_a_json_request() -> None:
    request = _request(
        "POST", "/", b'{"EndpointName": "e"}', **{"x-amz-target": "SageMaker.DescribeEndpoint"}
    )
    assert wire("sagemaker").operation_of(request) == "DescribeEndpoint"
    assert wire("sagemaker").parse(request, "DescribeEndpoint") == {"EndpointName": "e"}


def test_should_type_times_and_blobs_of_a_json_request() -> None:
    request = _request("POST", "/", b'{"CreationTimeAfter": 1767225600.5}')
    params = wire("sagemaker").parse(request, "ListEndpoints")
    assert params == {"CreationTimeAfter": datetime(2026, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)}


def test_should_read_path_header_and_payload_of_a_rest_request() -> None:
    request = _request("POST", "/endpoints/my%2Fend/invocations", b"1,2", **{"content-type": "text/csv"})
    runtime = wire("sagemaker-runtime")
    assert runtime.operation_of(request) == "InvokeEndpoint"
    assert runtime.parse(request, "InvokeEndpoint") == {
        "EndpointName": "my/end",
        "Body": b"1,2",
        "ContentType": "text/csv",
    }


def test_should_read_a_repeated_query_parameter() -> None:
    request = _request("GET", "/FeatureGroup/g?RecordIdentifierValueAsString=7&FeatureName=a&FeatureName=b")
    store = wire("sagemaker-featurestore-runtime")
    assert store.operation_of(request) == "GetRecord"
    assert store.parse(request, "GetRecord")["FeatureNames"] == ["a", "b"]


def test_should_keep_an_unknown_member_for_validation() -> None:
    request = _request("POST", "/RegisterResource", b'{"ResourceArn": "arn:aws:s3:::b", "Nope": 1}')
    params = wire("lakeformation").parse(request, "RegisterResource")
    found = problems(service_model("lakeformation").operation_model("RegisterResource").input_shape, params)
    assert any("Nope" in line for line in found)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[1]"])
def test_should_refuse_a_body_that_is_no_json_object(body: bytes) -> None:
    with pytest.raises(ApiError, match="JSON") as caught:
        wire("sagemaker").parse(_request("POST", "/", body), "ListEndpoints")
    assert caught.value.code == "SerializationException"


def test_should_render_times_as_the_protocol_says() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    answer = wire("sagemaker").render("DescribeEndpoint", {"CreationTime": at, "EndpointName": "e"}, "id")
    assert json.loads(answer.body) == {"CreationTime": at.timestamp(), "EndpointName": "e"}
    assert answer.headers["Content-Type"] == "application/x-amz-json-1.1"


def test_should_render_a_payload_and_headers() -> None:
    output = {"Body": b"0.5", "ContentType": "text/csv", "InvokedProductionVariant": "AllTraffic"}
    answer = wire("sagemaker-runtime").render("InvokeEndpoint", output, "id")
    assert answer.body == b"0.5"
    assert answer.headers["Content-Type"] == "text/csv"
    assert answer.headers["x-Amzn-Invoked-Production-Variant"] == "AllTraffic"


def test_should_render_an_error_with_its_members() -> None:
    error = ApiError("ModelError", "no", 424, members={"OriginalStatusCode": 500})
    answer = wire("sagemaker-runtime").render_error(error, "id")
    assert answer.status == 424
    assert answer.headers["x-amzn-ErrorType"] == "ModelError"
    assert json.loads(answer.body)["OriginalStatusCode"] == 500


def test_should_read_and_render_the_query_protocol() -> None:
    spoken = Wire("sns")
    body = b"Action=CreateTopic&Name=t&Tags.member.1.Key=a&Tags.member.1.Value=1&Attributes.entry.1.key=k"
    body += b"&Attributes.entry.1.value=v"
    request = _request("POST", "/", body)
    assert spoken.operation_of(request) == "CreateTopic"
    assert spoken.parse(request, "CreateTopic") == {
        "Name": "t",
        "Tags": [{"Key": "a", "Value": "1"}],
        "Attributes": {"k": "v"},
    }
    root = ET.fromstring(spoken.render("CreateTopic", {"TopicArn": "arn"}, "id").body)
    assert root.findtext(".//{*}CreateTopicResult/{*}TopicArn") == "arn"


def test_should_refuse_a_protocol_that_it_does_not_speak() -> None:
    with pytest.raises(ValueError, match="s3 speaks rest-xml"):
        Wire("s3")


# -- validation ---------------------------------------------------------------------------------------------


def _problems(operation: str, **params: Any) -> str:
    return "; ".join(problems(service_model("sagemaker").operation_model(operation).input_shape, params))


def test_should_find_nothing_wrong_with_right_parameters() -> None:
    assert _problems("DescribeEndpoint", EndpointName="e") == ""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, 'Missing required parameter in input: "EndpointName"'),
        ({"EndpointName": 3}, "Invalid type for parameter EndpointName"),
        ({"EndpointName": "e", "Colour": 1}, 'Unknown parameter in input: "Colour"'),
        ({"EndpointName": "e" * 64}, "length less than or equal to 63"),
        ({"EndpointName": "-e"}, "must satisfy regular expression pattern"),
    ],
)
def test_should_name_what_is_wrong(params: dict[str, Any], message: str) -> None:
    assert message in _problems("DescribeEndpoint", **params)


def test_should_report_every_problem_at_once() -> None:
    found = _problems("ListEndpoints", SortBy="Colour", SortOrder="Up", MaxResults=1)
    assert "at 'SortBy' failed" in found
    assert "at 'SortOrder' failed" in found


def test_should_refuse_a_number_out_of_range() -> None:
    found = _problems("ListTrainingJobs", MaxResults=101)
    assert "Member must have value less than or equal to 100" in found


def test_should_refuse_a_parameter_of_an_operation_without_any() -> None:
    assert problems(None, {"a": 1}) == ["Unknown parameter in input: 'a'; the operation takes none"]
