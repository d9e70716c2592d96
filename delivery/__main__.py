"""``python -m delivery``: what changes, does it answer, approve a model."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from delivery.accounts import Accounts, NoAccessError
from delivery.assemblies import AssemblyError, Stack, deployed, read_assembly, write_assembly
from delivery.difference import KINDS, Difference, as_html, as_json, as_text, compare
from delivery.model import ModelError, approve
from delivery.smoke import ask_all

ROOT = Path(__file__).resolve().parent.parent
WORKLOADS = ROOT / "workloads"
#: In place of an assembly: what CloudFormation has.
DEPLOYED = "deployed"
#: Exit status: what was asked for cannot be done; it was done and says no.
FAILED, SAYS_NO = 1, 2
_PAGES: dict[str, Callable[[Difference], str]] = {
    "txt": as_text,
    "json": as_json,
    "html": lambda difference: as_html(difference, title="What this change does"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: nothing speaks against it; 1: it could not be done; 2: the answer is no."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (AssemblyError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m delivery", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    diff = commands.add_parser("diff", help="what a deploy of NEW would do to OLD")
    diff.add_argument("old", help=f"a cloud assembly, or '{DEPLOYED}': what the accounts have")
    diff.add_argument("new", type=Path, help="a cloud assembly")
    diff.add_argument("--stage", action="append", help="only stacks of this stage (Dev); may be repeated")
    diff.add_argument("--format", choices=tuple(_PAGES), default="txt", help="what is printed (txt)")
    diff.add_argument(
        "--out", help="also write what-changes.txt, .json and .html to this folder or s3:// URI"
    )
    diff.add_argument(
        "--fail-on",
        default="data-lost,refused",
        help=f"kinds of findings that make the exit status {SAYS_NO}, or 'nothing': {', '.join(KINDS)} "
        "(data-lost,refused)",
    )
    diff.set_defaults(run=_diff)

    smoke = commands.add_parser("smoke", help="ask each endpoint of an environment about a made-up record")
    smoke.add_argument("--environment", required=True, help="dev: the stacks Dev/*")
    smoke.add_argument("--assembly", type=Path, default=ROOT / "cdk.out", help="(cdk.out)")
    smoke.add_argument("--workloads", type=Path, default=WORKLOADS, help="(workloads)")
    smoke.set_defaults(run=_smoke)

    model = commands.add_parser("model", help="approve a version of a model where it shall serve")
    model.add_argument("--workload", required=True, help="name in its workload.yaml")
    model.add_argument("--environment", required=True, help="dev: the stacks Dev/*")
    model.add_argument(
        "--tag", required=True, help="v12, an ARN, 'previous', or metadata 'tag' of the version"
    )
    model.add_argument("--reason", default="approved by python -m delivery model")
    model.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="until it is taken up (0: do not)"
    )
    model.add_argument("--assembly", type=Path, default=ROOT / "cdk.out", help="(cdk.out)")
    model.set_defaults(run=_model)

    for command in (diff, smoke, model):
        command.add_argument("--role-name", help="role to take on in each account; {stage} is the stage")
        command.add_argument("--profile")
        command.add_argument("--region")
    return parser


def _accounts(options: argparse.Namespace) -> Accounts:
    import boto3.session

    session = boto3.session.Session(profile_name=options.profile, region_name=options.region)
    return Accounts(session, role_name=options.role_name)


def _of_stages(stacks: Sequence[Stack], stages: Sequence[str] | None) -> tuple[Stack, ...]:
    """The stacks of some stages, by name in any case; all without any.

    Raises:
        AssemblyError: there is no such stage.
    """
    if not stages:
        return tuple(stacks)
    known = {stack.id.partition("/")[0].lower(): stack.id.partition("/")[0] for stack in stacks}
    unknown = sorted(stage for stage in stages if stage.lower() not in known)
    if unknown:
        raise AssemblyError(
            f"the assembly has no stage {', '.join(unknown)}; it has {', '.join(sorted(known.values()))}"
        )
    wanted = {stage.lower() for stage in stages}
    return tuple(stack for stack in stacks if stack.id.partition("/")[0].lower() in wanted)


# -- diff ----------------------------------------------------------------------------------------------------


def _diff(options: argparse.Namespace) -> int:
    kinds = _kinds(options.fail_on)
    new = _of_stages(read_assembly(options.new), options.stage)
    notes: tuple[str, ...] = ()
    if options.old == DEPLOYED:
        old, notes = _deployed(new, _accounts(options))
    else:
        stages = {stack.id.partition("/")[0] for stack in new}
        old = read_assembly(Path(options.old))
        old = tuple(s for s in old if not options.stage or s.id.partition("/")[0] in stages)
    found = _with_cost(replace(compare(old, new), notes=notes), old, new)
    print(_PAGES[options.format](found), end="")
    if options.out:
        _write(found, options.out, options)
    return SAYS_NO if found.of(kinds) else 0


def _deployed(new: Sequence[Stack], accounts: Accounts) -> tuple[tuple[Stack, ...], tuple[str, ...]]:
    """What is deployed of each stage, and what is to be said of that.

    Before its first deploy an environment has no role that could be taken on. That must not read as "nothing
    changes": all of it is told as new, and why.
    """
    found: list[Stack] = []
    notes = []
    for stage in dict.fromkeys(stack.id.partition("/")[0] for stack in new):
        wanted = [stack for stack in new if stack.id.partition("/")[0] == stage]
        try:
            there = deployed(wanted, accounts.of("cloudformation"))
        except NoAccessError as error:
            notes.append(
                f"{stage}: nothing could be read, as before its first deploy; all is told as new ({error})"
            )
            continue
        found += there
        notes.append(f"{stage}: {len(there)} of its {len(wanted)} stacks are deployed")
    return tuple(found), tuple(notes)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.split(",") if kind.strip() and kind != "nothing")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise AssemblyError(f"--fail-on has no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return kinds


def _with_cost(found: Difference, old: Sequence[Stack], new: Sequence[Stack]) -> Difference:
    """What the change costs a month, where the cost tool is beside this one."""
    if importlib.util.find_spec("cost") is None:
        return replace(found, notes=(*found.notes, "what it costs was not computed: no cost tool here"))
    from cost import difference, loads_of

    with tempfile.TemporaryDirectory() as place:
        folders = []
        for name, stacks in (("old", old), ("new", new)):
            folders.append(Path(place) / name)
            folders[-1].mkdir()
            write_assembly(stacks, folders[-1])
        workloads, loads = loads_of(WORKLOADS) if WORKLOADS.is_dir() else (None, None)
        cost = difference(*folders, workloads=workloads, loads=loads)
    return replace(found, cost=cost.to_json(), cost_text=cost.text())


def _write(found: Difference, place: str, options: argparse.Namespace) -> None:
    parts = urlsplit(place)
    if parts.scheme != "s3":
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, page in _PAGES.items():
            (folder / f"what-changes.{suffix}").write_text(page(found), encoding="utf-8")
        return
    import boto3.session

    session = boto3.session.Session(profile_name=options.profile, region_name=options.region)
    s3 = session.client("s3")
    kinds = {"txt": "text/plain", "json": "application/json", "html": "text/html"}
    for suffix, page in _PAGES.items():
        s3.put_object(
            Bucket=parts.netloc,
            Key=f"{parts.path.strip('/')}/what-changes.{suffix}",
            Body=page(found).encode(),
            ContentType=f"{kinds[suffix]}; charset=utf-8",
        )


# -- smoke ---------------------------------------------------------------------------------------------------


def _smoke(options: argparse.Namespace) -> int:
    stacks = _of_stages(read_assembly(options.assembly), [options.environment])
    asked = ask_all(stacks, options.workloads, _accounts(options).client)
    for one in asked:
        print(f"{one.outcome:16} {one.workload:24} {one.stack}: {one.why}")
    if not asked:
        print(f"no stack of {options.environment} serves anything")
    return 0 if all(one.ok for one in asked) else SAYS_NO


# -- model ---------------------------------------------------------------------------------------------------


def _model(options: argparse.Namespace) -> int:
    stacks = _of_stages(read_assembly(options.assembly), [options.environment])
    accounts = _accounts(options)
    for stack in stacks:
        if "ApprovedModelParameter" not in stack.template.get("Outputs", {}):
            continue
        described = accounts.client("cloudformation", stack).describe_stacks(StackName=stack.name)["Stacks"][
            0
        ]
        outputs = {o["OutputKey"]: o["OutputValue"] for o in described.get("Outputs", ())}
        if outputs["Workload"] == options.workload:
            done = approve(
                accounts.client("sagemaker", stack),
                accounts.client("ssm", stack),
                group=outputs["ModelPackageGroupName"],
                parameter=outputs["ApprovedModelParameter"],
                tag=options.tag,
                reason=options.reason,
                wait_seconds=options.wait,
            )
            print(f"approved {done.package}\n  before: {done.before}\n  now:    {done.now}")
            return 0
    raise ModelError(f"no stack of {options.environment} registers models of {options.workload!r}")


if __name__ == "__main__":
    sys.exit(main())
