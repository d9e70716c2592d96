"""Arguments of a job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

#: Glue adds these to every run; a script gets them without asking.
GIVEN = ("JOB_ID", "JOB_RUN_ID", "SECURITY_CONFIGURATION", "TempDir", "WORKFLOW_NAME", "WORKFLOW_RUN_ID")


class GlueArgumentError(Exception):
    """A required argument is missing."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise GlueArgumentError(message)


def getResolvedOptions(args: Sequence[str], options: Sequence[str]) -> dict[str, str]:  # noqa: N802 - Glue's name
    """Read ``--name value`` pairs: the asked ``options``, which must be there, and what Glue adds."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in options:
        if name in GIVEN:
            continue
        if name.startswith("-"):
            raise ValueError(f"an option is named without its dashes, got {name!r}")
        parser.add_argument(f"--{name}", required=True, dest=name.replace("-", "_"))
    for name in GIVEN:
        parser.add_argument(f"--{name}", dest=name)
    found, _ = parser.parse_known_args(list(args)[1:])
    return {name: value for name, value in vars(found).items() if value is not None or name in options}
