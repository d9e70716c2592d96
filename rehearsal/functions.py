"""Lambda functions: they run in ministack, with their own role's credentials and only their own code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.faults import FAULTS

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install"]

#: What Lambda itself does with a function's role for every invocation.
_LOGGING = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
#: And for the tracing that a function may ask for.
_TRACING = ("xray:PutTraceSegments", "xray:PutTelemetryRecords")


def _editable_roots() -> list[str]:
    """Return the import path entries that are this project's sources, not installed packages."""
    root = Path(__file__).resolve().parent.parent
    return [
        entry
        for entry in sys.path
        if entry and "site-packages" not in entry and Path(entry).is_relative_to(root)
    ]


def install(runtime: Runtime) -> None:
    """Wire ministack's functions into the rehearsal."""

    def credentials(role_arn: str, function: str) -> Mapping[str, str]:
        given = runtime.identities.for_role(role_arn, session=function)
        return {
            "AWS_ACCESS_KEY_ID": given.access_key_id,
            "AWS_SECRET_ACCESS_KEY": given.secret_access_key,
            "AWS_SESSION_TOKEN": str(given.session_token),
        }

    def watch(config: Mapping[str, Any], error: str | None) -> None:
        name = str(config["FunctionName"])
        if error is None:
            runtime.ledger.ran("lambda", name, package=config.get("PackageType", "Zip"))
        elif FAULTS.explain(name, error):
            runtime.ledger.ran("lambda", name, ended="killed on purpose")
        else:
            runtime.ledger.failed("lambda", name, error)
        group = (config.get("LoggingConfig") or {}).get("LogGroup", f"/aws/lambda/{name}")
        region = str(config["FunctionArn"]).split(":")[3]
        arn = f"arn:aws:logs:{region}:{runtime.account}:log-group:{group}:log-stream:rehearsal"
        runtime.authorizer.note_service_use(str(config["Role"]), _LOGGING, arn, region)
        if (config.get("TracingConfig") or {}).get("Mode") == "Active":
            runtime.authorizer.note_service_use(str(config["Role"]), _TRACING, "*", region)

    bridge.use_lambda_credentials(credentials)
    bridge.isolate_functions(_editable_roots())
    bridge.watch_functions(watch)
    bridge.try_events_again()
