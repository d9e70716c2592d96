"""IAM actions of API calls where they are not the service's prefix and the operation's name.

Source: Service Authorization Reference, "Actions, resources, and condition keys", read on 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ACTIONS", "PREFIXES", "TRANSFERS"]

#: Prefix of a service's actions where it is not the name it signs with.
PREFIXES: Mapping[str, str] = {"cloudwatch": "cloudwatch", "resourcegroupstaggingapi": "tag", "ses": "ses"}
#: Actions that a call needs; all of them, save where several are joined by ``|``: one of those.
ACTIONS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("s3", "ListObjects"): ("s3:ListBucket",),
    ("s3", "ListObjectsV2"): ("s3:ListBucket",),
    ("s3", "HeadBucket"): ("s3:ListBucket",),
    ("s3", "ListObjectVersions"): ("s3:ListBucketVersions",),
    ("s3", "HeadObject"): ("s3:GetObject",),
    ("s3", "CopyObject"): ("s3:GetObject", "s3:PutObject"),
    ("s3", "DeleteObjects"): ("s3:DeleteObject",),
    ("s3", "CreateMultipartUpload"): ("s3:PutObject",),
    ("s3", "UploadPart"): ("s3:PutObject",),
    ("s3", "UploadPartCopy"): ("s3:GetObject", "s3:PutObject"),
    ("s3", "CompleteMultipartUpload"): ("s3:PutObject",),
    ("s3", "SelectObjectContent"): ("s3:GetObject",),
    ("s3", "GetBucketNotificationConfiguration"): ("s3:GetBucketNotification",),
    ("s3", "PutBucketNotificationConfiguration"): ("s3:PutBucketNotification",),
    ("s3", "ListBuckets"): ("s3:ListAllMyBuckets",),
    ("lambda", "Invoke"): ("lambda:InvokeFunction",),
    ("sqs", "SendMessageBatch"): ("sqs:SendMessage",),
    ("sqs", "DeleteMessageBatch"): ("sqs:DeleteMessage",),
    ("sqs", "ChangeMessageVisibilityBatch"): ("sqs:ChangeMessageVisibility",),
    ("sns", "PublishBatch"): ("sns:Publish",),
    ("dynamodb", "TransactWriteItems"): (
        "dynamodb:PutItem|dynamodb:UpdateItem|dynamodb:DeleteItem|dynamodb:ConditionCheckItem",
    ),
    ("dynamodb", "TransactGetItems"): ("dynamodb:GetItem",),
    ("bedrock-runtime", "Converse"): ("bedrock:InvokeModel",),
    ("bedrock-runtime", "InvokeModel"): ("bedrock:InvokeModel",),
    # Refused to nobody.
    ("sts", "GetCallerIdentity"): (),
    ("sagemaker-runtime", "InvokeEndpointAsync"): ("sagemaker:InvokeEndpointAsync",),
    # The call names one package, version or group; IAM asks for the action of the same name.
    ("scheduler", "CreateSchedule"): ("scheduler:CreateSchedule",),
}
#: boto3's transfers and what they call. Source: boto3, "S3 Transfers".
TRANSFERS: Mapping[str, tuple[str, ...]] = {
    "upload_file": ("PutObject",),
    "upload_fileobj": ("PutObject",),
    "download_file": ("GetObject",),
    "download_fileobj": ("GetObject",),
}
