"""Wake up what serves a workload, or stop it now: it was stopped because nobody used it.

``make start ENV=dev WORKLOAD=claims`` calls it, with the credentials of your shell. The stack of the
workload's operations knows the function that does it; an endpoint takes some minutes to come back.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

OUTPUT = "IdleFunctionName"


def stack_name(environment: str, workload: str) -> str:
    """Name of a workload's operations stack: ``Dev-ClaimsOperations``."""
    pascal = "".join(part[:1].upper() + part[1:] for part in workload.split("_"))
    return f"{environment[:1].upper()}{environment[1:]}-{pascal}Operations"


def main(given: Sequence[str] | None = None) -> int:
    """Ask the function; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/start.py", description=__doc__)
    parser.add_argument("environment", help="its name: dev")
    parser.add_argument("workload", help="its name: claims")
    parser.add_argument("--stop", action="store_true", help="stop it instead")
    asked = parser.parse_args(given)

    import boto3

    name = stack_name(asked.environment, asked.workload)
    stack = boto3.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    functions = [o["OutputValue"] for o in stack.get("Outputs", ()) if o.get("OutputKey") == OUTPUT]
    if not functions:
        print(
            f"error: {name} stops nothing: its environment has no cost.stop_idle_after_hours", file=sys.stderr
        )
        return 2
    answer = boto3.client("lambda").invoke(
        FunctionName=functions[0], Payload=json.dumps({"action": "stop" if asked.stop else "start"}).encode()
    )
    said: Any = json.loads(answer["Payload"].read())
    print(json.dumps(said, indent=2))
    return 1 if "FunctionError" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
