"""One rehearsal from beginning to end: checks, story, report, and nothing left running."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ml_contract.extracts.source_manifest import source_entries

from rehearsal.inputs import InputError, load_inputs
from rehearsal.preflight import PreflightError, app_folder, check_tools, find_workload
from rehearsal.report import Report, render, write
from rehearsal.server import ServerProcess, start_server
from rehearsal.story import STORY, Listener, Step, Tale, tell
from rehearsal.story.books import close_ledger, close_permissions

__all__ = ["REPORT_HTML", "REPORT_JSON", "Options", "clear", "rehearse"]

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
#: What a run leaves in its folder; all that an earlier one left is removed before the next.
OURS = (REPORT_JSON, REPORT_HTML, "rehearsal.log", "cdk.out", "state", "matrix", "operations")
MARKER = ".rehearsal-output"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a rehearsal is asked for."""

    workload: str
    data: Path | None
    records: int
    seed: int
    out: Path
    stage: str
    app: Path | None
    port: int | None
    until: str | None = None
    #: Trials of each tuning job, at most.
    trials: int = 8
    hold: bool = False
    #: The steps to tell.
    story: Sequence[Step] = STORY


def clear(out: Path) -> None:
    """Make the output folder and remove what an earlier run left in it; files of others stay.

    Raises:
        PreflightError: the folder holds a file or folder with one of our names that no run of ours made.
    """
    marker = out / MARKER
    found = [name for name in OURS if (out / name).exists() or (out / name).is_symlink()]
    if found and not marker.exists():
        raise PreflightError(
            f"out {out} holds {', '.join(found)} which no rehearsal made; name another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    for name in found:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _steps(story: Sequence[Step], until: str | None) -> Sequence[Step]:
    if until is None:
        return story
    names = [step.id for step in story]
    if until not in names:
        raise PreflightError(f"there is no step {until!r}; there are: {', '.join(names)}")
    return story[: names.index(until) + 1]


def rehearse(options: Options, listener: Listener) -> tuple[Report, int]:
    """Run the story and write its report; return the report and the exit code.

    Raises:
        PreflightError: something is missing; nothing was started.
        KeyboardInterrupt: after everything was stopped and the report was written.
    """
    steps = _steps(options.story, options.until)
    app = app_folder(options.app)
    out = options.out.resolve()
    problems = check_tools(app, out, port=options.port)
    try:
        loaded = find_workload(app, options.workload)
        inputs = load_inputs(loaded, data=options.data, records=options.records, seed=options.seed)
    except (PreflightError, InputError) as error:
        problems.append(str(error))
    if problems:
        raise PreflightError("\n".join(problems))
    clear(out)
    report = Report(
        workload=loaded.name,
        title=loaded.workload.title,
        stage=options.stage,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=options.seed,
        data=inputs.summary(),
        sources=[entry.to_json() for entry in source_entries(loaded.workload)],
        machine={
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
        },
    )

    def start(account: str, region: str) -> ServerProcess:
        server = start_server(out / "state", options.port, account, region)
        server.control("POST", "/tuning", {"max_trials": options.trials})
        return server

    tale = Tale(
        loaded=loaded,
        app=app,
        out=out,
        stage=options.stage,
        seed=options.seed,
        inputs=inputs,
        report=report,
        note=listener.note,
        start_server=start,
    )
    started = time.monotonic()
    try:
        for result in tell(steps, tale, listener):
            report.steps.append(result)
            if result.status == "failed":
                report.outcome = "failed"
                reason = f"{result.id}: {result.evidence['reason']}"
                report.reason = reason if report.reason is None else f"{report.reason}\n{reason}"
    except KeyboardInterrupt:
        report.outcome, report.reason = "interrupted", "stopped by the user"
        raise
    finally:
        report.seconds = round(time.monotonic() - started, 3)
        try:
            _close_books(tale)
            document = report.to_json()
            write(document, out / REPORT_JSON)
            (out / REPORT_HTML).write_text(render(document), encoding="utf-8")
            if options.hold and report.outcome != "interrupted" and tale.server is not None:
                _hold(tale.server, listener)
        finally:
            tale.at_end.close()
            if tale.server is not None:
                # An impatient second Ctrl-C must not leave processes behind.
                with _uninterrupted():
                    tale.server.stop()
    return report, 0 if report.outcome == "passed" else 1


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and a request to end wait until the body is through."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hold(server: ServerProcess, listener: Listener) -> None:
    """Leave the embedded AWS up for a look at it, until Ctrl-C."""
    listener.say(f"the embedded AWS is left up at {server.endpoint} until Ctrl-C; for a shell of yours:")
    for name, value in server.environment().items():
        listener.say(f"  export {name}={value}")
    try:
        while server.process.poll() is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        listener.say("stopped")


def _close_books(tale: Tale) -> None:
    """Enter what the server knows into the report, if there still is one."""
    if tale.server is None or tale.server.process.poll() is not None:
        return
    try:
        close_ledger(tale)
        # Roles go with their stacks: a story that came to the end has read them before the destroy.
        if not tale.report.iam["unused"]:
            close_permissions(tale)
    except Exception as error:  # noqa: BLE001 - the report of a broken run is worth having without them
        tale.log(f"the ledger cannot be read: {error}")
