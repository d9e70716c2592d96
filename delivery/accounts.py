"""Clients of the accounts that stacks go to: with the caller's credentials, or as a role there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from delivery.assemblies import Stack

__all__ = ["Accounts", "NoAccessError"]


class NoAccessError(Exception):
    """The role of an environment cannot be taken on: it is not there yet, or does not trust the caller."""


class Accounts:
    """boto3 clients by account and Region.

    ``role_name`` is a role in each stack's account that the caller takes on; without it the caller's own
    credentials are used, wherever the stack goes. ``{stage}`` in it stands for the stack's stage in lower
    case (``Dev/Foundation``: dev).
    """

    def __init__(self, session: Any, *, role_name: str | None = None) -> None:
        self._session = session
        self._role_name = role_name
        self._own: tuple[str, str] | None = None
        self._taken: dict[str, Any] = {}

    def client(self, service: str, stack: Stack) -> Any:
        """A client for where the stack is."""
        region = stack.region or self._session.region_name
        if self._role_name is None:
            return self._session.client(service, region_name=region)
        return self._as_role(self._role_arn(self._role_name, stack)).client(service, region_name=region)

    def of(self, service: str) -> Callable[[Stack], Any]:
        """Clients of one service by stack."""
        return lambda stack: self.client(service, stack)

    def _role_arn(self, name: str, stack: Stack) -> str:
        if self._own is None:
            # arn:<partition>:sts::<account>:...
            parts = self._session.client("sts").get_caller_identity()["Arn"].split(":")
            self._own = parts[1], parts[4]
        partition, account = self._own
        stage = stack.id.partition("/")[0].lower()
        return f"arn:{partition}:iam::{stack.account or account}:role/{name.format(stage=stage)}"

    def _as_role(self, arn: str) -> Any:
        import boto3.session
        from botocore.exceptions import ClientError

        if arn not in self._taken:
            try:
                given = self._session.client("sts").assume_role(RoleArn=arn, RoleSessionName="delivery")
            except ClientError as error:
                # What STS answers for a role that does not trust the caller, or is not there.
                if error.response["Error"]["Code"] == "AccessDenied":
                    raise NoAccessError(str(error)) from error
                raise
            credentials = given["Credentials"]
            self._taken[arn] = boto3.session.Session(
                aws_access_key_id=credentials["AccessKeyId"],
                aws_secret_access_key=credentials["SecretAccessKey"],
                aws_session_token=credentials["SessionToken"],
                region_name=self._session.region_name,
            )
        return self._taken[arn]
