"""``make diff``: against the account with credentials, against what was synthesised last without."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import diff


def _assembly(folder: Path, *names: str) -> Path:
    """A cloud assembly that holds the stage ``Dev`` with a topic of each name."""
    import aws_cdk as cdk
    from aws_cdk import aws_sns as sns

    app = cdk.App(outdir=str(folder))
    stack = cdk.Stack(cdk.Stage(app, "Dev"), "Tiny")
    for name in names:
        sns.CfnTopic(stack, name)
    app.synth()
    return folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the CDK CLI is asked for, in order; a synthesis leaves an assembly as it does."""
    ran: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        if command[1] == "synth":
            _assembly(Path(command[command.index("--output") + 1]), "Kept", "Now")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(diff.subprocess, "run", run)
    return ran


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials anywhere that the SDK looks."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_should_ask_the_account_when_there_are_credentials(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def delivery(arguments: Sequence[str]) -> int:
        asked.append(arguments)
        return diff.SAYS_NO

    monkeypatch.setattr(diff, "delivery", delivery)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    assert diff.main(["dev"]) == diff.SAYS_NO
    assert [command[1] for command in commands] == ["synth"]
    [(verb, before, _, *stage)] = asked
    assert (verb, before, stage) == ("diff", "deployed", ["--stage", "Dev"])


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("synthesised", [True, False])
def test_should_say_what_it_compares_with_when_there_are_none(
    synthesised: bool,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    last = tmp_path / "cdk.out"
    if synthesised:
        _assembly(last, "Kept", "Before")
    monkeypatch.setattr(diff, "SYNTHESISED", last)
    assert diff.main(["dev"]) == 0
    against = "the last 'make synth' (cdk.out)" if synthesised else "nothing: 'make synth' was not run"
    said = capsys.readouterr().out
    assert said.startswith(f"no AWS credentials: comparing Dev with {against}\n")
    assert commands[0][-2:] == ["-c", "environment=dev"]
    assert ("Before" in said) == synthesised


@pytest.mark.usefixtures("nobody")
def test_should_show_the_lines_of_the_templates_when_asked(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAW", "1")
    monkeypatch.setattr(diff, "SYNTHESISED", _assembly(tmp_path / "cdk.out", "Before"))
    assert diff.main(["dev"]) == 0
    _, compared = commands
    assert compared[1:4] == ["diff", "Dev/Tiny", "--exclusively"]


def test_should_stop_when_the_synthesis_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(diff.subprocess, "run", run)
    assert diff.main(["dev"]) == 3
