"""All models of an account on one page: versions, approvals, numbers, what serves.

``.venv/bin/python -m tools.models [--out models.html]``, with the credentials of whoever may read SageMaker's
descriptions and the artifacts zone. It is the code that the rehearsal runs.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from datetime import UTC, datetime
from typing import Any

import boto3.session
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.models import collect, page


def main(arguments: list[str]) -> int:
    """Write the page; exit status 1 when AWS refuses."""
    parser = argparse.ArgumentParser(prog="python -m tools.models", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models.html"))
    parser.add_argument("--profile")
    parser.add_argument("--region")
    options = parser.parse_args(arguments)
    session = boto3.session.Session(profile_name=options.profile, region_name=options.region)

    def client(service: str) -> Any:
        name: Any = service
        return session.client(name)

    try:
        groups = collect(client)
    except (ClientError, BotoCoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.out.write_text(page(groups, when=datetime.now(UTC)), encoding="utf-8")
    print(f"{len(groups)} groups, {sum(len(g.versions) for g in groups)} versions: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
