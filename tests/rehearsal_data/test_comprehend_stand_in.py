"""Comprehend's stand-in keeps the limits of the API, answers the same each time, and says what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]


def ask(client: Callable[[str], Any], operation: str, texts: list[str]) -> dict[str, Any]:
    answer: dict[str, Any] = getattr(client("comprehend"), operation)(TextList=texts, LanguageCode="en")
    answer.pop("ResponseMetadata")
    return answer


def test_should_answer_each_text_by_its_words_and_the_same_each_time(client: Callable[[str], Any]) -> None:
    texts = ["thanks, very fast", "late and broken", "as agreed", "fast but broken"]
    first = ask(client, "batch_detect_sentiment", texts)
    assert [one["Sentiment"] for one in first["ResultList"]] == ["POSITIVE", "NEGATIVE", "NEUTRAL", "MIXED"]
    assert all(sum(one["SentimentScore"].values()) == pytest.approx(1) for one in first["ResultList"])
    assert ask(client, "batch_detect_sentiment", texts) == first
    (found,) = ask(client, "batch_detect_entities", ["by Jane Doe on 2026-11-20, 3 kg"])["ResultList"]
    assert [(one["Type"], one["Text"]) for one in found["Entities"]] == [
        ("OTHER", "Jane Doe"),
        ("DATE", "2026-11-20"),
        ("QUANTITY", "3 kg"),
    ]


def test_should_keep_the_limits_of_the_api(client: Callable[[str], Any]) -> None:
    answer = ask(client, "batch_detect_sentiment", ["fast", "ä" * 2_501])
    assert [one["Index"] for one in answer["ResultList"]] == [0]
    assert [(one["Index"], one["ErrorCode"]) for one in answer["ErrorList"]] == [
        (1, "TEXT_SIZE_LIMIT_EXCEEDED")
    ]
    with pytest.raises(ClientError, match="BatchSizeLimitExceeded"):
        ask(client, "batch_detect_entities", ["x"] * 26)
    with pytest.raises(ClientError, match=r"ValidationException|LanguageCode"):
        client("comprehend").batch_detect_entities(TextList=["x"], LanguageCode="tlh")


def test_should_say_that_it_is_emulated(client: Callable[[str], Any], server: ServerProcess) -> None:
    ask(client, "batch_detect_entities", ["x"])
    entries = server.control("GET", "/ledger?kind=comprehend")["entries"]
    assert entries
    assert all("EMULATED" in str(entry) for entry in entries)


def test_should_hold_a_role_to_what_it_is_granted(
    client: Callable[[str], Any], allow: Any, server: ServerProcess
) -> None:
    trust = {"Effect": "Allow", "Principal": {"AWS": server.account}, "Action": "sts:AssumeRole"}
    made = client("iam").create_role(
        RoleName="reads-sentiment",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )
    allow("reads-sentiment", [{"Action": "comprehend:BatchDetectSentiment"}])
    given = client("sts").assume_role(RoleArn=made["Role"]["Arn"], RoleSessionName="reader")["Credentials"]
    session: Any = boto3.session.Session()
    mine = session.client(
        "comprehend",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    assert mine.batch_detect_sentiment(TextList=["fast"], LanguageCode="en")["ResultList"]
    with pytest.raises(ClientError, match="AccessDenied"):
        mine.batch_detect_entities(TextList=["fast"], LanguageCode="en")
