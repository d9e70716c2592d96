"""What a source logs in with: a secret, never a variable."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge


def login(
    scope: Construct,
    construct_id: str,
    *,
    arn: str | None,
    key: kms.IKey,
    description: str,
    beside: Mapping[str, str | int] | None = None,
) -> secretsmanager.ISecret:
    """Return the secret at ``arn``, or define one with the keys ``username`` and ``password`` to be filled.

    The one that is made holds a placeholder and a generated password: nothing that anybody can log in with
    until the owner of the source writes the true ones. ``beside`` is written beside them,
    what a reader looks for in the same secret.
    """
    if arn is not None:
        return secretsmanager.Secret.from_secret_complete_arn(scope, construct_id, arn)
    secret = secretsmanager.Secret(
        scope,
        construct_id,
        description=description,
        encryption_key=key,
        generate_secret_string=secretsmanager.SecretStringGenerator(
            secret_string_template=json.dumps({"username": "to-be-filled", **(beside or {})}),
            generate_string_key="password",
            exclude_punctuation=True,
            password_length=32,
        ),
    )
    acknowledge(
        secret,
        "SMG4",
        "The login belongs to the source's owner, who rotates it there; readers ask for it at each run.",
    )
    acknowledge(
        secret,
        "SecretsManagerRotationEnabled",
        "The login belongs to the source's owner, who rotates it there; readers ask for it at each run.",
        packs=("HIPAA.Security", "NIST.800.53.R5"),
    )
    return secret
