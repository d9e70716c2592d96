"""``python -m rehearsal``: run the story, serve the embedded AWS, deploy to it, render a report again."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rehearsal.run import Options
    from rehearsal.story import Step

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Rehearse a machine-learning lifecycle on an AWS embedded in a local process.",
)

INTERRUPTED = 130
BAD_INPUT = 2

Workload = Annotated[str, typer.Option(help="Folder in the app's workloads/.")]
AppFolder = Annotated[Path | None, typer.Option("--app", help="Folder of the CDK app; default: this one.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port on 127.0.0.1; default: a free one.")]


def _fail(text: str, code: int = BAD_INPUT) -> NoReturn:
    for line in text.splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(code)


@app.command()
def run(  # noqa: PLR0917 - typer calls it by name, one parameter per option
    workload: Workload = "claims_fraud",
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet with the workload's columns.")] = None,
    records: Annotated[int, typer.Option(help="Records sent at first; of DATA, rows used at most.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the report and its evidence.")] = Path("out"),
    stage: Annotated[str, typer.Option(help="Stage of the app that is deployed.")] = "Dev",
    app_folder: AppFolder = None,
    port: Port = None,
    until: Annotated[str | None, typer.Option(help="Last step to run, by its id.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each tuning job, at most.")] = 8,
    hold: Annotated[bool, typer.Option("--hold", help="Leave the embedded AWS up at the end.")] = False,
    breadth: Annotated[
        bool, typer.Option("--breadth", help="Deploy only, and show what only an account would run.")
    ] = False,
) -> None:
    """Deploy every stack and run the whole lifecycle; exit 0 only if every step passed."""
    from rehearsal.run import Options
    from rehearsal.story import STORY
    from rehearsal.story.breadth import BREADTH

    code = _rehearsed(
        Options(
            workload=workload,
            data=data,
            records=records,
            seed=seed,
            out=out,
            stage=stage,
            app=app_folder,
            port=port,
            until=until,
            trials=trials,
            hold=hold,
            story=BREADTH if breadth else STORY,
        )
    )
    raise typer.Exit(code)


@app.command()
def matrix(  # noqa: PLR0917 - typer calls it by name, one parameter per option
    only: Annotated[
        str | None, typer.Option(help="Cells by id or beginning, with commas: style.serverless,rollout")
    ] = None,
    workload: Workload = "claims_fraud",
    records: Annotated[int, typer.Option(help="Records that the versions learn from.")] = 400,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the report and its evidence.")] = Path("out"),
    stage: Annotated[str, typer.Option(help="Stage of the app that is deployed.")] = "Staging",
    app_folder: AppFolder = None,
    port: Port = None,
    context: Annotated[
        list[str] | None, typer.Option(help="Context of each synthesis, KEY=VALUE; may come again.")
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Leave the embedded AWS up at the end.")] = False,
) -> None:
    """Play every way to serve, scale and roll out; exit 0 only if every cell passed."""
    from rehearsal.run import Options
    from rehearsal.story.matrix import matrix as steps_of

    # Of this project's app; one that knows no such key makes every stage each time.
    given = context if context else [f"environment={stage.lower()}"]
    pairs = [text.partition("=") for text in given]
    wrong = [name for name, sign, _ in pairs if not name or not sign]
    if wrong:
        _fail(f"--context must be KEY=VALUE, got {', '.join(wrong)}")
    try:
        steps = steps_of(only, context={name: value for name, _, value in pairs})
    except ValueError as error:
        _fail(f"--only: {error}")
    code = _rehearsed(
        Options(
            workload=workload,
            data=None,
            records=records,
            seed=seed,
            out=out,
            stage=stage,
            app=app_folder,
            port=port,
            hold=hold,
            story=steps,
        )
    )
    raise typer.Exit(code)


@app.command()
def operations(  # noqa: PLR0917 - typer calls it by name, one parameter per option
    only: Annotated[
        str | None, typer.Option(help="Cells by id or beginning, with commas: retrain.guard,monitor")
    ] = None,
    workload: Workload = "claims_fraud",
    records: Annotated[int, typer.Option(help="Records sent at first.")] = 600,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the report and its evidence.")] = Path("out"),
    stage: Annotated[str | None, typer.Option(help="Stage that is deployed; default: the example's.")] = None,
    app_folder: AppFolder = None,
    port: Port = None,
    hold: Annotated[bool, typer.Option("--hold", help="Leave the embedded AWS up at the end.")] = False,
) -> None:
    """Play how a deployed lifecycle is watched, retrained, secured; exit 0 only if every cell passed."""
    from rehearsal.story.operations import operations as steps_of

    raise typer.Exit(_played(steps_of, only, workload, records, seed, out, stage, app_folder, port, hold))


@app.command()
def chaos(  # noqa: PLR0917 - typer calls it by name, one parameter per option
    only: Annotated[
        str | None, typer.Option(help="Cells by id or beginning, with commas: kill.retrain_trigger,events")
    ] = None,
    workload: Workload = "claims_fraud",
    records: Annotated[int, typer.Option(help="Records sent at first.")] = 600,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the report and its evidence.")] = Path("out"),
    stage: Annotated[str | None, typer.Option(help="Stage that is deployed; default: the example's.")] = None,
    app_folder: AppFolder = None,
    port: Port = None,
    hold: Annotated[bool, typer.Option("--hold", help="Leave the embedded AWS up at the end.")] = False,
) -> None:
    """Put one fault after the other in the way; exit 0 only if the loop closed again after each."""
    from rehearsal.story.chaos import chaos as steps_of

    raise typer.Exit(_played(steps_of, only, workload, records, seed, out, stage, app_folder, port, hold))


def _played(  # noqa: PLR0917 - the options of the two plays, in their order
    steps_of: Callable[[str | None], Sequence[Step]],
    only: str | None,
    workload: str,
    records: int,
    seed: int,
    out: Path,
    stage: str | None,
    app_folder: Path | None,
    port: int | None,
    hold: bool,
) -> int:
    """Play the chosen cells on the app of the operations example; return the exit code."""
    from rehearsal.run import Options
    from rehearsal.story.operations import STAGE

    try:
        story = steps_of(only)
    except ValueError as error:
        _fail(f"--only: {error}")
    return _rehearsed(
        Options(
            workload=workload,
            data=None,
            records=records,
            seed=seed,
            out=out,
            stage=STAGE if stage is None else stage,
            app=app_folder,
            port=port,
            hold=hold,
            story=story,
        )
    )


def _rehearsed(options: Options) -> int:
    """Run a story on the terminal; return the exit code."""
    from rehearsal.preflight import PreflightError
    from rehearsal.run import REPORT_HTML, rehearse
    from rehearsal.story.terminal import Terminal

    terminal = Terminal()
    out = options.out
    try:
        report, code = rehearse(options, terminal)
    except PreflightError as error:
        terminal.stop()
        _fail(str(error))
    except KeyboardInterrupt:
        terminal.stop()
        terminal.say(f"stopped; everything is shut down, the report so far is {out / REPORT_HTML}")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        terminal.stop()
    counts = ", ".join(
        f"{report.records[key]} {word}"
        for key, word in (
            ("sent", "records sent"),
            ("delivered", "delivered"),
            ("quarantined", "quarantined"),
            ("lost", "lost"),
        )
    )
    terminal.say(f"{report.outcome} in {report.seconds:.0f} s: {counts}")
    terminal.say(f"report: {out / REPORT_HTML}")
    return code


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 4566,
    out: Annotated[Path, typer.Option(help="Its state lies in OUT/serve.")] = Path("out"),
) -> None:
    """Leave the embedded AWS up until Ctrl-C, for any SDK, the AWS CLI or another CDK app."""
    from rehearsal.server import ServerError, start_server

    try:
        with start_server(out / "serve", port) as server:
            typer.echo(f"the embedded AWS answers at {server.endpoint}; for a shell of yours:\n")
            for name, value in server.environment().items():
                typer.echo(f"  export {name}={value}")
            typer.echo(f"\nits log is {server.log}; Ctrl-C ends it")
            _until_ended(server.process.poll)
    except ServerError as error:
        _fail(str(error), 1)


@app.command()
def deploy(
    stacks: Annotated[list[str] | None, typer.Argument(help="Ids or patterns; default: 'Dev/*'.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 4566,
    out: Annotated[Path, typer.Option(help="The assembly and the state lie in OUT.")] = Path("out"),
    app_folder: AppFolder = None,
) -> None:
    """Synthesise the app, deploy stacks onto the embedded AWS, and leave it up until Ctrl-C."""
    from rehearsal.cdk import Cdk, CdkError, stack_artifacts
    from rehearsal.preflight import PreflightError, check_tools
    from rehearsal.preflight import app_folder as find_app
    from rehearsal.server import DEFAULT_ACCOUNT, DEFAULT_REGION, ServerError, start_server
    from rehearsal.story import StoryError
    from rehearsal.story.deployment import synthesize

    try:
        folder = find_app(app_folder)
        _require_nothing_missing(check_tools(folder, out, port=port))
        assembly = out.resolve() / "deploy.cdk.out"
        typer.echo("synthesising the app ...")
        synthesize(folder, assembly)
        wanted = stacks or ["Dev/*"]
        artifacts = stack_artifacts(assembly)
        account = next((a.account for a in artifacts if a.account is not None), DEFAULT_ACCOUNT)
        region = next((a.region for a in artifacts if a.region is not None), DEFAULT_REGION)
        with start_server(out / "serve", port, account, region) as server:
            cdk = Cdk.of(folder, assembly, server, progress=typer.echo)
            cdk.bootstrap()
            cdk.deploy(wanted)
            typer.echo(f"\ndeployed {', '.join(wanted)} at {server.endpoint}; for a shell of yours:\n")
            for name, value in server.environment().items():
                typer.echo(f"  export {name}={value}")
            typer.echo("\nCtrl-C ends it")
            _until_ended(server.process.poll)
    except PreflightError as error:
        _fail(str(error))
    except (ServerError, CdkError, StoryError) as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _require_nothing_missing(problems: Sequence[str]) -> None:
    from rehearsal.preflight import PreflightError

    if problems:
        raise PreflightError("\n".join(problems))


def _until_ended(poll: Callable[[], int | None]) -> None:
    """Wait until the server has ended by itself, which is an error, or the user ends it."""
    try:
        while poll() is None:
            threading.Event().wait(0.5)
    except KeyboardInterrupt:
        typer.echo("stopped")
        return
    _fail("the embedded AWS has ended by itself; its log says why", 1)


@app.command()
def lineage(  # noqa: PLR0917 - typer calls it by name, one parameter per option
    inference_id: Annotated[str, typer.Argument(help="InferenceId of a request, or the eventId captured.")],
    out: Annotated[Path, typer.Option(help="Folder of a rehearsal that is up (run --hold).")] = Path("out"),
    endpoint: Annotated[str | None, typer.Option(help="Endpoint asked; default: the only one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    versions: Annotated[bool, typer.Option("--versions", help="Find each file's version in S3.")] = False,
    save: Annotated[Path | None, typer.Option(help="Put the trace and the records into a folder.")] = None,
) -> None:
    """Follow a prediction back to the records that its model learned from."""
    import boto3.session
    from botocore.config import Config

    from rehearsal.lineage import LineageError, trace_and_show
    from rehearsal.server import ServerError, running

    try:
        address = running(out.resolve() / "state")
        session = boto3.session.Session(
            aws_access_key_id=address["account"],
            aws_secret_access_key="rehearsal",  # noqa: S106 - the embedded AWS's operator
            region_name=address["region"],
        )

        def client(service: str) -> object:
            name: Any = service
            return session.client(
                name,
                endpoint_url=address["endpoint"],
                config=Config(s3={"addressing_style": "path"}, proxies={}),
            )

        typer.echo(
            trace_and_show(
                client, inference_id, endpoint=endpoint, as_json=as_json, versions=versions, save=save
            )
        )
    except (ServerError, LineageError) as error:
        _fail(str(error), 1)


@app.command()
def load_test(  # noqa: PLR0917 - typer calls it by name, one parameter per option
    workload: Workload = "claims_fraud",
    out: Annotated[Path, typer.Option(help="Folder of a rehearsal that has trained a model.")] = Path("out"),
    model: Annotated[Path | None, typer.Option(help="A model.tar.gz; default: the one trained last.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the container.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.2, max=600, help="How long each load is offered.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of the records that are asked about.")] = 7,
    app_folder: AppFolder = None,
) -> None:
    """Draw the serving container's latency against its load, and name the knee."""
    from rehearsal.inputs import InputError
    from rehearsal.load_test.command import LoadTest
    from rehearsal.load_test.command import load_test as run_load_test
    from rehearsal.load_test.container import LoadTestError
    from rehearsal.load_test.drawn import sentence
    from rehearsal.preflight import PreflightError, find_workload
    from rehearsal.preflight import app_folder as folder_of

    try:
        wanted = LoadTest(
            loaded=find_workload(folder_of(app_folder), workload),
            out=out.resolve(),
            model=model,
            workers=workers,
            seconds=seconds,
            seed=seed,
        )
        curve, page = run_load_test(wanted, typer.echo)
    except (PreflightError, InputError, LoadTestError) as error:
        _fail(str(error))
    typer.echo(sentence(curve))
    typer.echo(f"report: {page}")


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="A report.json.")] = Path("out/report.json"),
    out: Annotated[Path | None, typer.Option(help="The page; default: report.html beside it.")] = None,
) -> None:
    """Render report.html again from a report.json."""
    from rehearsal.report import ReportError, read, render

    try:
        page = render(read(source))
    except ReportError as error:
        _fail(str(error))
    target = source.with_name("report.html") if out is None else out
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        _fail(f"{target} cannot be written: {error.strerror}")
    typer.echo(f"report: {target}")


def _as_interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """A request to end is a Ctrl-C: the same shutting down, the same report."""
    del signum, frame
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    # A shell starts what it puts in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app(prog_name="python -m rehearsal")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
