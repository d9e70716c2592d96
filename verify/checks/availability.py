"""Services that are closed, retired, or not in a stack's region."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import boto3

from verify.assembly import Stack
from verify.checks.parameters import calls
from verify.context import Context
from verify.finding import Check, Finding
from verify.models import operation_named
from verify.schemas import types_of
from verify.tables.services import CHECKED, CLOSED, GLUE, RUNTIMES, Closed

_ID = "availability"
#: Services that botocore lists with a pseudo region, or with one of their own.
_GLOBAL = frozenset({"iam", "sts", "budgets", "ce", "route53", "cloudfront", "organizations", "s3control"})


def run(context: Context) -> Iterator[Finding]:
    """Look every type, every call, every runtime and every region up."""
    for resource in context.assembly.resources():
        closed = CLOSED.get(resource.type)
        if closed is not None:
            yield _finding(resource.place, resource.type, closed)
        if resource.type == "AWS::Lambda::Function":
            runtime = str(resource.properties.get("Runtime"))
            if runtime in RUNTIMES:
                yield _old(f"{resource.place}: Runtime", runtime, RUNTIMES[runtime], "python3.13")
        elif resource.type == "AWS::Glue::Job":
            version = str(resource.properties.get("GlueVersion", "0.9"))
            if version in GLUE:
                yield _old(f"{resource.place}: GlueVersion", version, GLUE[version], "5.1")
    for resource, service, operation in calls(context):
        name = operation_named(service, operation)
        closed = CLOSED.get(f"{service} {name}")
        if closed is not None:
            yield _finding(resource.place, f"{service} {name}", closed)
    for stack in context.assembly.stacks.values():
        if stack.region is not None:
            yield from _regional(context, stack, stack.region)


def _finding(place: str, what: str, closed: Closed) -> Finding:
    return Finding(
        check=_ID,
        place=place,
        value=f"{what}: {closed.what} is {closed.state} since {closed.since}",
        allowed=f"what an account can begin with today ({closed.source})",
        fix=f"build on {closed.instead}",
        # Who had a closed service keeps it.
        severity="error" if closed.state == "retired" else "warning",
    )


def _old(place: str, value: str, since: str, newest: str) -> Finding:
    return Finding(
        check=_ID,
        place=place,
        value=f"{value} can make nothing new since {since}",
        allowed=f"a supported version, such as {newest}",
        fix="take a newer version",
    )


def _regional(context: Context, stack: Stack, region: str) -> Iterator[Finding]:
    """Types that CloudFormation does not have in a region, services that botocore does not know there."""
    types = types_of(region)
    if types is None:
        yield Finding(
            check=_ID,
            place=stack.id,
            value=f"{region} is no region",
            allowed="a region of AWS",
            fix="name another region for the environment",
        )
        return
    known = types_of() or {}
    for resource in stack.resources.values():
        if resource.type in known and resource.type not in types:
            yield Finding(
                check=_ID,
                place=resource.place,
                value=f"CloudFormation has no {resource.type} in {region}",
                allowed="types of the region",
                fix="switch the option off in this environment, or choose another region",
            )
    for resource, service, operation in calls(context):
        if resource.stack is stack and service not in _GLOBAL and region not in _regions(service):
            yield Finding(
                check=_ID,
                place=resource.place,
                value=f"{service} ({operation}) is not in {region}",
                allowed=", ".join(sorted(_regions(service))) or "no region that botocore knows",
                fix="switch the option off in this environment, or choose another region",
            )


@functools.cache
def _regions(service: str) -> frozenset[str]:
    """Regions of a service, of every partition, by botocore's endpoint data."""
    session = boto3.session.Session()
    return frozenset(
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions(service, partition_name=partition)
    )


CHECK = Check(
    id=_ID,
    title="Availability: closed, retired, not in the region",
    proves="nothing is built on what AWS has retired or closed, on runtimes past their end, or on what the "
    "stack's region does not have",
    source=f"AWS's announcements as dated in verify/tables/services.py, {CHECKED}; CloudFormation's registry "
    "by region; botocore's endpoint data",
    run=run,
)
