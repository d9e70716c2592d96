"""``make diff``: against the account with credentials, against what was synthesised last without."""

from __future__ import annotations

import json
import os
import subprocess
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
    """What would be run, in order; a synthesis leaves an assembly as the CLI does."""
    ran: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        if command[1] == "synth":
            _assembly(Path(command[command.index("--output") + 1]), "Now")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(diff.subprocess, "run", run)
    return ran


def test_should_ask_the_account_when_there_are_credentials(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    assert diff.main("dev") == 0
    assert commands == [[diff.CDK, "diff", "Dev/*", "--no-notices"]]


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
        _assembly(last, "Before")
    monkeypatch.setattr(diff, "SYNTHESISED", last)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert diff.main("dev") == 0
    against = "the last 'make synth' (cdk.out)" if synthesised else "nothing: 'make synth' was not run"
    assert capsys.readouterr().out == f"no AWS credentials: comparing Dev with {against}\n"
    synth, compared = commands
    assert synth[-2:] == ["-c", "environment=dev"]
    assert compared[1:4] == ["diff", "Dev/Tiny", "--exclusively"]
    template = Path(compared[compared.index("--template") + 1])
    assert template.is_relative_to(last) == synthesised


def test_should_find_the_template_that_was_synthesised(tmp_path: Path) -> None:
    found = diff.templates(_assembly(tmp_path, "Before"))
    assert list(found) == ["Dev/Tiny"]
    assert list(json.loads(found["Dev/Tiny"].read_text())["Resources"]) == ["Before"]


@pytest.mark.slow
def test_should_show_what_changed_and_only_that(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = diff.templates(_assembly(tmp_path / "before", "Kept", "Gone"))
    after = _assembly(tmp_path / "after", "Kept", "New")
    assert diff.compare(after, "Dev", before) == 0
    captured = capfd.readouterr()
    shown = captured.out + captured.err
    assert "[-] AWS::SNS::Topic Gone" in shown
    assert "[+] AWS::SNS::Topic" in shown
    assert "Kept" not in shown
    assert diff.compare(after, "Dev", {}) == 0
    captured = capfd.readouterr()
    assert "Kept" in captured.out + captured.err
