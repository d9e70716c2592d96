"""Small functions of ours: a zip, the runtime's own boto3, a role with nothing but what is granted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_

from constructs import Construct
from ml_lifecycle import code
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.foundation import log_group
from ml_lifecycle.pseudo import service_principal

__all__ = ["zip_function"]


def zip_function(
    scope: Construct,
    construct_id: str,
    *,
    package: str,
    description: str,
    log_key: kms.IKey,
    log_retention_days: int = 90,
    environment: Mapping[str, str] | None = None,
    timeout: cdk.Duration | None = None,
    dead_letters: DeadLetterQueue | None = None,
    handler: str | None = None,
    folder: Path | None = None,
) -> lambda_.Function:
    """Define the function ``lambda/<package>`` with the handler ``<package>.handler.handler`` on Python 3.13.

    ``handler`` names another entry point, ``folder`` a folder that holds the package and what it reads.

    Its role may write to its own log group, encrypted with ``log_key``, and nothing else. Timeout: one
    minute. Asynchronous events that fail three times (Lambda's default of two retries) go to
    ``dead_letters``.
    """
    group = log_group(scope, f"{construct_id}Logs", key=log_key, retention_days=log_retention_days)
    role = iam.Role(
        scope,
        f"{construct_id}Role",
        description=description,
        assumed_by=service_principal("lambda"),
    )
    group.grant_write(role)
    if dead_letters is not None:
        dead_letters.grant_send(role)
    function = lambda_.Function(
        scope,
        construct_id,
        description=description,
        runtime=lambda_.Runtime.PYTHON_3_13,
        architecture=lambda_.Architecture.ARM_64,
        code=lambda_.Code.from_asset(str(code.lambda_package(package) if folder is None else folder)),
        handler=f"{package}.handler.handler" if handler is None else handler,
        environment=dict(environment or {}),
        timeout=cdk.Duration.minutes(1) if timeout is None else timeout,
        memory_size=256,
        role=role,
        log_group=group,
        dead_letter_queue=None if dead_letters is None else dead_letters.queue,
    )
    acknowledge(
        function,
        "L1",
        "Python 3.13 is what the functions are tested on; AWS supports it until 2029 or later.",
    )
    return function
