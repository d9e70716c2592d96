"""``python -m verify``: cross-check an assembly; ``python -m verify release``: keep what it says of data."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from verify.acceptance import AcceptanceError, read
from verify.assembly import AssemblyError
from verify.context import ROOT, Context
from verify.outcome import Outcome, judge
from verify.registry import every_check
from verify.release import digest

RELEASE = Path(__file__).resolve().parent / "release.json"
ACCEPTED = ROOT / "verify.yaml"
#: What a command line ends with when it was used wrongly, as argparse does.
_USAGE = 2


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m verify", description=__doc__)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[release] [ASSEMBLY]",
        help="folder of the assembly, default cdk.out; 'release' first: write verify/release.json from it",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page for people")
    parser.add_argument("--only", metavar="IDS", help="some checks, with commas between")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="findings that stay (verify.yaml)")
    parser.add_argument(
        "--shared",
        action="store_true",
        help="that file serves several apps: entries that meet nothing may stay",
    )
    parser.add_argument("--release", type=Path, default=RELEASE, help="digest of the last release")
    parser.add_argument("--warnings", action="store_true", help="print remarks too")
    given = parser.parse_args(argv)
    given.write_release = given.words[:1] == ["release"]
    rest = given.words[1:] if given.write_release else given.words
    if len(rest) > 1:
        parser.error(f"one assembly at a time, got {', '.join(rest)}")
    given.assembly = Path(rest[0]) if rest else ROOT / "cdk.out"
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when nothing was found, 1 with findings, 2 when the run could not be made."""
    given = _arguments(argv)
    checks = {check.id: check for check in every_check()}
    picked = given.only.split(",") if given.only else list(checks)
    if unknown := [name for name in picked if name not in checks]:
        print(f"error: --only must be of {', '.join(checks)}, got {', '.join(unknown)}", file=sys.stderr)
        return _USAGE
    try:
        context = Context.of(given.assembly, release=given.release)
        if given.write_release:
            text = json.dumps(digest(context.assembly), indent=1, sort_keys=True) + "\n"
            given.release.write_text(text, encoding="utf-8")
            print(f"written to {given.release}")
            return 0
        acceptances = [item for item in read(given.accepted, checks) if item.check in picked]
    except (AssemblyError, AcceptanceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE
    outcome = judge(
        context,
        [checks[name] for name in picked],
        acceptances,
        file=given.accepted.name,
        shared=given.shared,
    )
    if given.html is not None:
        from verify.page import page

        given.html.write_text(page(outcome), encoding="utf-8")
    print(json.dumps(outcome.as_json(), indent=1) if given.json else _text(outcome, warnings=given.warnings))
    return 0 if outcome.passed else 1


def _text(outcome: Outcome, *, warnings: bool) -> str:
    lines = [f"{outcome.resources} resources of {outcome.stacks} stacks in {outcome.folder}"]
    for row in outcome.rows:
        notes = [f"{len(row.errors)} found"] if row.errors else ["ok"]
        notes += [f"{len(row.warnings)} remarks"] if row.warnings else []
        notes += [f"{len(row.accepted)} accepted"] if row.accepted else []
        lines.append(
            f"{'FAIL' if row.errors else 'ok':4} {row.check.id:13} {row.check.title} ({', '.join(notes)})"
        )
        lines += [f"       {finding}" for finding in row.errors]
        lines += [f"       remark: {finding}" for finding in row.warnings] if warnings else []
    remarks = sum(len(row.warnings) for row in outcome.rows)
    if remarks and not warnings:
        lines.append(f"{remarks} remarks; --warnings shows them")
    lines.append(f"{'passed' if outcome.passed else 'failed'} in {outcome.seconds:.1f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
