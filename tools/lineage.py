"""Follow a prediction of an account back to the records that its model learned from.

``.venv/bin/python -m tools.lineage INFERENCE_ID [--endpoint NAME]``, with the credentials of whoever may read
the captures, the artifacts zone and SageMaker's descriptions. It is the code that the rehearsal runs.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

import boto3.session
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.lineage import LineageError, trace_and_show


def main(arguments: list[str]) -> int:
    """Print the trace; exit status 1 says where the chain ends."""
    parser = argparse.ArgumentParser(prog="python -m tools.lineage", description=__doc__)
    parser.add_argument("inference_id", help="InferenceId of the request, or the eventId that was captured")
    parser.add_argument("--endpoint", help="endpoint that was asked; needed where there are several")
    parser.add_argument("--day", help="YYYY-MM-DD in UTC: reads the captures of that day only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--versions", action="store_true", help="find each feature file's version in S3")
    parser.add_argument("--save", type=pathlib.Path, help="put trace and records into this folder")
    parser.add_argument("--profile")
    parser.add_argument("--region")
    options = parser.parse_args(arguments)
    session = boto3.session.Session(profile_name=options.profile, region_name=options.region)

    def client(service: str) -> Any:
        name: Any = service
        return session.client(name)

    try:
        print(
            trace_and_show(
                client,
                options.inference_id,
                endpoint=options.endpoint,
                day=options.day,
                as_json=options.json,
                versions=options.versions,
                save=options.save,
            )
        )
    except (LineageError, ClientError, BotoCoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
