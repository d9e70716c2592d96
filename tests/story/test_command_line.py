"""The command line: one clear line for every bad input, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from rehearsal.preflight import PreflightError, app_folder, check_tools, find_workload
from rehearsal.report import render, write
from rehearsal.run import MARKER, OURS, clear
from rehearsal.story import Step
from rehearsal.story.terminal import Terminal

from .example import report as example
from .example import step

ROOT = app_folder(None)


def rehearsal(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rehearsal", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


# --- bad input, nothing started ---


def test_should_name_the_workloads_there_are(tmp_path: Path) -> None:
    done = rehearsal("run", "--workload", "unknown", "--out", tmp_path / "out")

    assert_one_line(done, "there is no workload 'unknown'", "claims_fraud")
    assert not (tmp_path / "out").exists()


def test_should_name_a_missing_data_file(tmp_path: Path) -> None:
    done = rehearsal("run", "--data", tmp_path / "none.csv", "--out", tmp_path / "out")

    assert_one_line(done, "none.csv: no such file")
    assert not (tmp_path / "out").exists()


def test_should_name_every_missing_column_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,policy_number\n1,2\n")

    done = rehearsal("run", "--data", tmp_path / "t.csv", "--out", tmp_path / "out")

    assert_one_line(done, "lacks columns", "months_as_customer", "fraud_reported")


def test_should_name_a_port_in_use_and_every_other_problem(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = rehearsal("run", "--port", str(port), "--workload", "unknown", "--out", tmp_path / "out")

    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["error:", "error:"]
    assert f"port {port} cannot be used" in lines[0]
    assert "there is no workload" in lines[1]


def test_should_refuse_an_unknown_step(tmp_path: Path) -> None:
    assert_one_line(rehearsal("run", "--until", "lunch", "--out", tmp_path / "o"), "there is no step 'lunch'")


def test_should_refuse_an_app_without_cdk_json(tmp_path: Path) -> None:
    assert_one_line(rehearsal("run", "--app", tmp_path, "--out", tmp_path / "o"), "holds no cdk.json")


def test_should_report_a_wrong_workload_with_its_lines(tmp_path: Path) -> None:
    folder = tmp_path / "workloads" / "broken"
    folder.mkdir(parents=True)
    (tmp_path / "cdk.json").write_text("{}")
    text = (ROOT / "workloads" / "claims_fraud" / "workload.yaml").read_text()
    (folder / "workload.yaml").write_text(text.replace("at_least: 0.75", "at_least: high"))

    with pytest.raises(PreflightError, match=r"workload\.yaml:\d+: acceptance\.at_least"):
        find_workload(tmp_path, "broken")


def test_should_refuse_a_workload_that_the_app_would_not_deploy(tmp_path: Path) -> None:
    (tmp_path / "workloads").mkdir()

    with pytest.raises(PreflightError, match="the app would not deploy it"):
        find_workload(tmp_path, str(ROOT / "workloads" / "claims_fraud"))


# --- the output folder ---


def test_should_clear_what_an_earlier_run_left_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    clear(out)
    (out / "state").mkdir()
    (out / "state" / "file").touch()
    (out / "report.json").touch()
    (out / "mine.txt").touch()

    clear(out)

    assert sorted(p.name for p in out.iterdir()) == [MARKER, "mine.txt"]


@pytest.mark.parametrize("name", OURS)
def test_should_never_clear_what_no_run_made(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    with pytest.raises(PreflightError, match=f"holds {name} which no rehearsal made"):
        clear(tmp_path)
    assert (tmp_path / name).exists()


def test_should_refuse_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()

    assert any("is a file" in p for p in check_tools(ROOT, tmp_path / "out", port=None))


def test_should_refuse_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 2**29})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    assert any("0.5 GiB of disk are free" in p for p in check_tools(ROOT, tmp_path / "out", port=None))


def test_should_say_that_the_cli_is_not_installed(tmp_path: Path) -> None:
    assert any("the CDK CLI is not installed" in p for p in check_tools(tmp_path, tmp_path, port=None))


def test_should_find_nothing_missing_here(tmp_path: Path) -> None:
    assert check_tools(ROOT, tmp_path / "out", port=None) == []


# --- Ctrl-C ---


@pytest.mark.slow
def test_should_end_cleanly_with_130_when_interrupted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "rehearsal", "run", "--records", "200", "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / MARKER).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 130, output
    assert "Traceback" not in output
    report = json.loads((out / "report.json").read_text())
    assert (report["outcome"], report["reason"]) == ("interrupted", "stopped by the user")
    assert (out / "report.html").exists()


# --- report ---


def test_should_render_a_report_again(tmp_path: Path) -> None:
    document = example().to_json()
    write(document, tmp_path / "report.json")

    done = rehearsal("report", tmp_path / "report.json")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").read_text() == render(document)


def test_should_say_that_there_is_no_report(tmp_path: Path) -> None:
    assert_one_line(rehearsal("report", tmp_path / "report.json"), "there is no", "python -m rehearsal run")


# --- the terminal ---


def test_should_print_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    results = [
        step("one", "The [first] step", "Deploy", 1.25),
        step("two", "The second", "Deploy", 2.0, status="recorded"),
        step("three", "The third", "Serve", 0.5, status="failed", reason="no [bold]reason[/bold]"),
    ]
    for number, result in enumerate(results, 1):
        told = Step(
            id=result.id,
            title=result.title,
            chapter=result.chapter,
            run=lambda _tale, _evidence: None,
            capabilities=lambda _: (),
        )
        terminal.begin(told, number, 3)
        terminal.note("noise")
        terminal.end(result)

    assert capsys.readouterr().out.splitlines() == [
        "Deploy",
        "  ok       The [first] step 1.2 s",
        "  recorded The second 2.0 s",
        "Serve",
        "  FAILED   The third 0.5 s",
        "  no [bold]reason[/bold]",
    ]


def test_should_say_under_a_failed_step_what_was_refused_meanwhile() -> None:
    console = Console(width=80, highlight=False)
    terminal = Terminal(console)
    refused = ["ssm:PutParameter on p for R"]
    failed = step("one", "The first", "Serve", 1.0, status="failed", reason="it failed", refused=refused)

    with console.capture() as captured:
        terminal.end(failed)

    assert captured.get().splitlines()[1:] == [
        "  it failed",
        "  permission refused: ssm:PutParameter on p for R",
    ]


def test_should_colour_what_a_terminal_shows() -> None:
    console = Console(force_terminal=True, color_system="standard", width=80, highlight=False)
    terminal = Terminal(console)

    with console.capture() as captured:
        terminal.end(step("one", "The first", "Deploy", 1.0))

    assert "\x1b[32mok" in captured.get()
