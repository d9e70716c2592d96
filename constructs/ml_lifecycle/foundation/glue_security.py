"""How Glue encrypts what its jobs and crawlers write."""

from __future__ import annotations

import hashlib
import json

from aws_cdk import aws_glue as glue
from aws_cdk import aws_kms as kms

from constructs import Construct

__all__ = ["glue_security"]

_MODES = {"logs": "SSE-KMS", "bookmarks": "CSE-KMS", "s3": "SSE-KMS"}


def glue_security(
    scope: Construct,
    construct_id: str,
    *,
    name: str,
    log_key: kms.IKey,
    bookmark_key: kms.IKey,
    data_key: kms.IKey,
) -> glue.CfnSecurityConfiguration:
    """Define a security configuration: logs, job bookmarks and objects, each with a customer-managed key.

    Glue cannot change a security configuration, CloudFormation replaces it: its name, ``name`` and a hash,
    changes with the content.
    """
    props = glue.CfnSecurityConfiguration
    content = hashlib.sha256(json.dumps(_MODES, sort_keys=True).encode()).hexdigest()[:8]
    return glue.CfnSecurityConfiguration(
        scope,
        construct_id,
        name=f"{name}-{content}",
        encryption_configuration=props.EncryptionConfigurationProperty(
            cloud_watch_encryption=props.CloudWatchEncryptionProperty(
                cloud_watch_encryption_mode=_MODES["logs"], kms_key_arn=log_key.key_arn
            ),
            job_bookmarks_encryption=props.JobBookmarksEncryptionProperty(
                job_bookmarks_encryption_mode=_MODES["bookmarks"], kms_key_arn=bookmark_key.key_arn
            ),
            s3_encryptions=[
                props.S3EncryptionProperty(s3_encryption_mode=_MODES["s3"], kms_key_arn=data_key.key_arn)
            ],
        ),
    )
