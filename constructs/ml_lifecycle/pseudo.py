"""What many constructs ask: the pseudo parameters, ARNs, service principals, the stack of a construct.

The jsii kernel is asked once for each: a call costs about half a millisecond, and an app makes thousands.
"""

from __future__ import annotations

import functools
from typing import Final
from weakref import WeakKeyDictionary

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from constructs import IConstruct

ACCOUNT: Final = cdk.Aws.ACCOUNT_ID
PARTITION: Final = cdk.Aws.PARTITION
REGION: Final = cdk.Aws.REGION
_stacks: WeakKeyDictionary[IConstruct, cdk.Stack] = WeakKeyDictionary()


def arn(service: str, resource: str) -> str:
    """Return the ARN of ``resource``, ``endpoint/claims``, in the account and region of the stack."""
    return f"arn:{PARTITION}:{service}:{REGION}:{ACCOUNT}:{resource}"


def stack_of(construct: IConstruct) -> cdk.Stack:
    """Return the stack that ``construct`` stands in."""
    stack = _stacks.get(construct)
    if stack is None:
        stack = _stacks[construct] = cdk.Stack.of(construct)
    return stack


@functools.cache
def service_principal(name: str, *, own_account: bool = False) -> iam.ServicePrincipal:
    """Return the principal ``<name>.amazonaws.com``.

    ``own_account`` lets it act for this account only (IAM User Guide, "The confused deputy problem").
    """
    conditions = {"StringEquals": {"aws:SourceAccount": ACCOUNT}} if own_account else None
    return iam.ServicePrincipal(f"{name}.amazonaws.com", conditions=conditions)
