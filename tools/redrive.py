"""Hand what a function's dead-letter queue holds to the function again.

``.venv/bin/python -m tools.redrive QUEUE_URL FUNCTION``, with the credentials of whoever may read the queue
and invoke the function, after what was wrong has been repaired. It is the code that the rehearsal runs.
"""

from __future__ import annotations

import argparse
import sys

import boto3.session
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.redrive import RedriveError, redrive


def main(arguments: list[str]) -> int:
    """Hand the events over; exit status 1 when one could not be."""
    parser = argparse.ArgumentParser(prog="python -m tools.redrive", description=__doc__)
    parser.add_argument("queue_url", help="URL of the dead-letter queue")
    parser.add_argument("function", help="name or ARN of the function")
    parser.add_argument("--most", type=int, default=1_000, help="events at most; default: 1000")
    parser.add_argument("--profile")
    parser.add_argument("--region")
    options = parser.parse_args(arguments)
    session = boto3.session.Session(profile_name=options.profile, region_name=options.region)
    try:
        done = redrive(
            session.client("sqs"),
            session.client("lambda"),
            queue_url=options.queue_url,
            function=options.function,
            most=options.most,
        )
    except (RedriveError, ClientError, BotoCoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{done.events} events were handed to {options.function} again")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
