"""Destroy an environment: say first what stays and why; delete that too where two consents say so.

``make destroy ENV=dev`` calls it. It reads the templates of the last synth, lists what goes, what stays and
what that costs, and asks for the environment's name. What holds data stays, unless its environment says
``destroy_data=True`` (first consent, kept in git) and ``--data dev`` is given (second consent, typed by a
person): then it is emptied and deleted after the stacks. Keys are scheduled for deletion in 30 days, and can
be taken back until then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from cost import Announcement, AssemblyError, announce, read_stacks  # noqa: E402
from cost.assembly import Stack  # noqa: E402

CDK = str(ROOT / "tools" / "cdk")
#: AWS KMS API Reference, ScheduleKeyDeletion: 7 to 30 days.
KEY_DAYS: Final = 30
#: Codes with which services say that there is no such thing (any more).
ABSENT: Final = ("notfound", "nosuch", "nonexistent", "does not exist", "404", "recordnotfound")

Clients = Callable[[str], Any]


def _bucket(client: Clients, name: str) -> None:
    s3 = client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        keys = [
            {"Key": item["Key"], "VersionId": item["VersionId"]}
            for kind in ("Versions", "DeleteMarkers")
            for item in page.get(kind, ())
        ]
        if keys:
            failed = s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True}).get("Errors", ())
            if failed:
                raise RuntimeError(f"{len(failed)} objects: {failed[0].get('Message')}")
    s3.delete_bucket(Bucket=name)


def _pool(client: Clients, pool_id: str) -> None:
    cognito = client("cognito-idp")
    pool = cognito.describe_user_pool(UserPoolId=pool_id)["UserPool"]
    if pool.get("Domain"):
        cognito.delete_user_pool_domain(Domain=pool["Domain"], UserPoolId=pool_id)
    if pool.get("DeletionProtection") == "ACTIVE":
        cognito.update_user_pool(UserPoolId=pool_id, DeletionProtection="INACTIVE")
    cognito.delete_user_pool(UserPoolId=pool_id)


def _table(client: Clients, name: str) -> None:
    dynamodb = client("dynamodb")
    if dynamodb.describe_table(TableName=name)["Table"].get("DeletionProtectionEnabled"):
        dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
        dynamodb.get_waiter("table_exists").wait(TableName=name)
    dynamodb.delete_table(TableName=name)


def _model_versions(client: Clients, name: str) -> None:
    sagemaker = client("sagemaker")
    group = name.rsplit("/", 1)[-1]
    pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    for page in pages:
        for package in page["ModelPackageSummaryList"]:
            sagemaker.delete_model_package(ModelPackageName=package["ModelPackageArn"])
    sagemaker.delete_model_package_group(ModelPackageGroupName=group)


def _features(client: Clients, name: str) -> None:
    """The group, and the table that Feature Store has made for it; its data lies in the features bucket."""
    sagemaker = client("sagemaker")
    store = sagemaker.describe_feature_group(FeatureGroupName=name).get("OfflineStoreConfig", {})
    sagemaker.delete_feature_group(FeatureGroupName=name)
    catalog = store.get("DataCatalogConfig")
    if catalog:
        client("glue").delete_table(DatabaseName=catalog["Database"], Name=catalog["TableName"])


def _iceberg_table(client: Clients, name: str) -> None:
    database, _, table = name.partition(".")
    client("glue").delete_table(DatabaseName=database, Name=table)


def _nothing(_client: Clients, _name: str) -> None:
    """It goes with the bucket, the pool or the key that it belongs to."""


#: How what a template retains is deleted, in this order: what others need comes last.
DELETERS: Final[Mapping[str, Callable[[Clients, str], object]]] = {
    "AWS::Kinesis::Stream": lambda c, n: c("kinesis").delete_stream(
        StreamName=n, EnforceConsumerDeletion=True
    ),
    "AWS::SageMaker::FeatureGroup": _features,
    "AWS::SageMaker::ModelPackageGroup": _model_versions,
    "Custom::IcebergTable": _iceberg_table,
    "AWS::DynamoDB::Table": _table,
    "AWS::Cognito::UserPoolDomain": _nothing,
    "AWS::Cognito::UserPool": _pool,
    "AWS::SecretsManager::Secret": lambda c, n: c("secretsmanager").delete_secret(
        SecretId=n, RecoveryWindowInDays=KEY_DAYS
    ),
    "AWS::Logs::LogGroup": lambda c, n: c("logs").delete_log_group(logGroupName=n),
    "Custom::ApprovalParameter": lambda c, n: c("ssm").delete_parameter(Name=n),
    "Custom::MaskKey": _nothing,
    "AWS::S3::Bucket": _bucket,
    "AWS::KMS::Key": lambda c, n: c("kms").schedule_key_deletion(KeyId=n, PendingWindowInDays=KEY_DAYS),
}


def physical_ids(client: Clients, announced: Announcement) -> dict[tuple[str, str], str]:
    """Name of each resource that stays, by stack and logical id; a stack that is not deployed has none."""
    found: dict[tuple[str, str], str] = {}
    wanted = {(one.stack_name, one.logical_id) for one in announced.stays}
    for name in dict.fromkeys(stack for stack, _ in wanted):
        with suppress_absent():
            for page in (
                client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
            ):
                for one in page["StackResourceSummaries"]:
                    if (name, one["LogicalResourceId"]) in wanted and one.get("PhysicalResourceId"):
                        found[name, one["LogicalResourceId"]] = one["PhysicalResourceId"]
    return found


def delete(client: Clients, announced: Announcement, names: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Delete what stayed; yield a line for each, which begins with "left" where it could not be deleted."""
    order = list(DELETERS)
    stays = sorted(
        announced.stays, key=lambda one: order.index(one.type) if one.type in order else len(order)
    )
    for one in stays:
        name = names.get((one.stack_name, one.logical_id))
        if name is None:
            continue
        deleter = DELETERS.get(one.type)
        if deleter is None:
            yield f"left: {one.type} {name}: this program cannot delete it"
            continue
        try:
            with suppress_absent():
                deleter(client, name)
        except Exception as error:  # noqa: BLE001 - the others are deleted all the same, and this one is told
            yield f"left: {one.type} {name}: {' '.join(str(error).split())}"
        else:
            yield f"deleted: {one.type} {name}"


class suppress_absent(suppress):  # noqa: N801 - used as contextlib's own
    """Pass over errors that say that something is gone already."""

    def __init__(self) -> None:
        from botocore.exceptions import ClientError

        super().__init__(ClientError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if error is None:
            return False
        text = f"{getattr(error, 'response', {}).get('Error', {}).get('Code', '')} {error}".lower()
        return bool(super().__exit__(kind, error, trace)) and any(word in text for word in ABSENT)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/destroy.py", description=__doc__)
    parser.add_argument("environment", help="its name: dev")
    parser.add_argument("--assembly", type=Path, default=ROOT / "cdk.out", help="the last synth")
    parser.add_argument("--data", metavar="NAME", help="second consent: delete what stays too")
    parser.add_argument("--yes", action="store_true", help="do not ask for the environment's name")
    parser.add_argument("--list", action="store_true", help="say what would stay, and end")
    parser.add_argument("--json", action="store_true", help="with --list: as JSON")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Announce, ask, destroy; return the exit code."""
    asked = _arguments(given)
    name = asked.environment
    stage = name[:1].upper() + name[1:]
    try:
        every = read_stacks(asked.assembly)
        stacks = [stack for stack in every if stack.stage == stage]
        announced = announce(stacks)
        _check(every, stacks, announced, asked)
    except (AssemblyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(announced.to_json(), indent=2) if asked.json else announced.text(), flush=True)
    if asked.list:
        return 0
    print()
    if asked.data is None:
        print("what stays is deleted as well with two consents: destroy_data=True in the environment, and")
        print(f"  make destroy ENV={name} DATA={name}")
    else:
        print(
            f"two consents are given: the {len(announced.stays)} resources that stay are deleted afterwards"
        )
    if not asked.yes and input(f"destroy {name}? type its name: ").strip() != name:
        print("nothing was done")
        return 1
    return _destroy(asked, stage, stacks, announced)


def _check(
    every: Sequence[Stack], stacks: Sequence[Stack], announced: Announcement, asked: argparse.Namespace
) -> None:
    name, second = asked.environment, asked.data
    if not stacks:
        known = sorted({stack.stage.lower() for stack in every if stack.stage})
        raise ValueError(f"environment must be one of {', '.join(known)}, got {name!r}")
    if second not in (None, name):
        raise ValueError(f"--data must be the environment's name, {name!r}, got {second!r}")
    if second is not None and not announced.consented:
        raise ValueError(
            f"{name} gives no first consent: set destroy_data=True in its environment, synthesise, try again"
        )


def _destroy(asked: argparse.Namespace, stage: str, stacks: Sequence[Stack], announced: Announcement) -> int:
    import boto3

    regions = {stack.region for stack in stacks if stack.region is not None}
    session: Any = boto3.session.Session(region_name=next(iter(regions), None))
    clients: dict[str, Any] = {}

    def client(service: str) -> Any:
        if service not in clients:
            clients[service] = session.client(service)
        return clients[service]

    names = {} if asked.data is None else physical_ids(client, announced)
    command = [
        CDK,
        "destroy",
        f"{stage}/*",
        "--app",
        str(asked.assembly.resolve()),
        "--force",
        "--no-notices",
    ]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code or asked.data is None:
        return code
    left = 0
    for line in delete(client, announced, names):
        print(line, flush=True)
        left += line.startswith("left")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
