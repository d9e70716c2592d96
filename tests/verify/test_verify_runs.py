"""The run: acceptances, exit status, page, the app itself."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from cdk_support import ROOT, Assembly
from verify_support import Mini

from verify.__main__ import main
from verify.acceptance import AcceptanceError, read
from verify.checks.quotas import measures
from verify.registry import every_check
from verify.tables.quotas import QUOTAS

RULE = {
    "EventPattern": {"source": ["aws.glue"], "detail-type": ["Glue Job Ended"]},
    "Targets": [],
}
REASON = "the event is sent by a system outside the app"


@pytest.fixture
def wrong(mini: Mini) -> Mini:
    """An assembly with one finding."""
    mini.add("Rule", "AWS::Events::Rule", RULE)
    mini.write()
    return mini


def run(mini: Mini, *more: str, accepted: Path) -> int:
    return main([str(mini.folder), "--accepted", str(accepted), "--only", "events", *more])


def test_should_have_a_check_for_each_of_the_ten_questions() -> None:
    assert [check.id for check in every_check()] == [
        "attached",
        "availability",
        "create-only",
        "events",
        "grants",
        "metrics",
        "names",
        "parameters",
        "quotas",
        "variables",
    ]
    assert all(check.title and check.proves and check.source for check in every_check())


def test_should_fail_on_a_finding_and_name_place_value_allowed_and_fix(
    wrong: Mini, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(wrong, "--json", accepted=tmp_path / "none.yaml") == 1
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    (finding,) = check["findings"]
    assert finding["place"] == "Dev/Main Rule: EventPattern"
    assert finding["value"] == "no event 'Glue Job Ended' of 'aws.glue' is known"
    assert "Glue Job State Change" in finding["allowed"]
    assert finding["fix"]


def test_should_pass_what_was_accepted_with_a_reason(wrong: Mini, tmp_path: Path) -> None:
    file = tmp_path / "verify.yaml"
    file.write_text(f'accepted:\n  - {{check: events, place: "Dev/Main R*", reason: {REASON}}}\n')
    page = tmp_path / "verify.html"
    assert run(wrong, "--html", str(page), accepted=file) == 0
    assert REASON in page.read_text()


def test_should_find_an_acceptance_that_meets_nothing(
    wrong: Mini, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verify.yaml"
    file.write_text(
        f'accepted:\n  - {{check: events, place: "*", reason: {REASON}}}\n'
        f'  - {{check: events, place: "Prod/*", reason: {REASON}}}\n'
    )
    assert run(wrong, accepted=file) == 1
    assert "verify.yaml:3: the acceptance of Prod/* meets no finding" in capsys.readouterr().out
    assert run(wrong, "--shared", accepted=file) == 0


def test_should_accept_only_without_the_variable_that_an_acceptance_names(mini: Mini, tmp_path: Path) -> None:
    file = tmp_path / "verify.yaml"
    file.write_text(f'accepted:\n  - {{check: grants, place: "*", without: TABLE, reason: {REASON}}}\n')
    source = "import boto3\ndef handler(event, context):\n    boto3.client('s3').get_object(Bucket='b')\n"
    mini.function(source, variables={})
    mini.write()
    arguments = [str(mini.folder), "--accepted", str(file), "--only", "grants"]
    assert main(arguments) == 0
    mini.function(source, variables={"TABLE": "t"})
    mini.write()
    assert main(arguments) == 1


def test_should_refuse_a_file_of_acceptances_with_all_its_problems(tmp_path: Path) -> None:
    file = tmp_path / "verify.yaml"
    file.write_text(
        "accepted:\n  - {check: events, place: a, reason: short}\n"
        f"  - {{check: event, place: a, reason: {REASON}}}\n"
        f"  - {{check: events, where: a, reason: {REASON}}}\n"
        f"  - {{check: events, reason: {REASON}}}\n"
    )
    with pytest.raises(AcceptanceError) as found:
        read(file, ["events"])
    assert [part.partition(" ")[0] for part in str(found.value).split("; ")] == [
        "verify.yaml:2:",
        "verify.yaml:3:",
        "verify.yaml:4:",
        "verify.yaml:5:",
    ]


@pytest.mark.parametrize(
    ("argument", "message"), [("nowhere", "make synth"), ("--only=speed", "--only must be of attached")]
)
def test_should_end_with_two_when_it_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    given = [argument] if argument.startswith("--") else [str(tmp_path / argument)]
    assert main(given) == 2
    assert message in capsys.readouterr().err


def test_should_write_the_digest_of_a_release_and_hold_the_next_one_against_it(
    mini: Mini, tmp_path: Path
) -> None:
    file, none = str(tmp_path / "release.json"), str(tmp_path / "none.yaml")
    mini.add("Stream", "AWS::Kinesis::Stream", {"Name": "records"})
    arguments = [str(mini.write()), "--release", file, "--accepted", none]
    assert main(["release", *arguments]) == 0
    assert main([*arguments, "--only", "create-only"]) == 0
    mini.add("Stream", "AWS::Kinesis::Stream", {"Name": "others"})
    mini.write()
    assert main([*arguments, "--only", "create-only"]) == 1


@pytest.mark.slow
def test_should_find_nothing_in_the_app_without_network(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("the checks open no connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    status = main([str(assembly.folder)])
    assert status == 0, capsys.readouterr().out


@pytest.mark.slow
def test_should_measure_every_quota_that_the_app_can_come_near(assembly: Assembly) -> None:
    from verify.context import Context

    measured = {item.quota for item in measures(Context.of(assembly.folder))}
    assert measured <= QUOTAS.keys()
    assert {"resources", "inline", "variables", "widgets", "rules", "alarms", "pipeline"} <= measured


def test_should_keep_the_digest_of_the_last_release(assembly: Assembly) -> None:
    release = json.loads((ROOT / "verify" / "release.json").read_text())
    kinds = {entry["type"] for stack in release["stacks"].values() for entry in stack.values()}
    assert {"AWS::S3::Bucket", "AWS::KMS::Key", "AWS::SageMaker::FeatureGroup"} <= kinds
