"""What a source is: a name, an owner, a folder of the drop, an alarm when it is stale."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.sources.landing import BatchLanding


class BatchSource(Construct):
    """Define a batch source: its folder of the drop bucket and the alarm on its freshness.

    Kinds (``DropFolder``, ``JdbcTable``, ``DmsReplication``, ``DataSyncTask``, ``ThirdPartyWriter``) add who
    brings the files. ``fresh_within_hours`` None means no alarm.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        landing: BatchLanding,
        fresh_within_hours: int | None = 24,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        known = [spec.name for spec in landing.sources]
        if name not in known:
            raise ValueError(f"name must be a source of the landing ({', '.join(known)}), got {name!r}")
        self.name = name
        self.landing = landing
        self.prefix = landing.folder(name)
        self.uri = landing.drop.uri(self.prefix)
        self.stale_alarm: cloudwatch.CfnAlarm | None = None
        if fresh_within_hours is not None:
            self.stale_alarm = landing.alarm_when_stale(
                self, name, hours=fresh_within_hours, topic=alarm_topic
            )

    def grant_drop(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant dropping files of this source: writing into its folder, no reading."""
        return self.landing.grant_drop(grantee, self.name)


class DropFolder(BatchSource):
    """Define a folder that somebody of this account drops files into; they need ``grant_drop``."""


class ThirdPartyWriter(BatchSource):
    """Define a source that another account drops into, through a role it takes with an external id.

    The role writes into the source's folder and does nothing else; a session lasts an hour. The external id
    keeps the other account from being made to act for a third one (IAM User Guide, "The confused deputy
    problem").
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        landing: BatchLanding,
        account: str,
        external_id: str,
        fresh_within_hours: int | None = 24,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            name=name,
            landing=landing,
            fresh_within_hours=fresh_within_hours,
            alarm_topic=alarm_topic,
        )
        self.role = _third_party_role(self, account, external_id, f"Drops files of {name}")
        self.grant_drop(self.role)


class ThirdPartyReader(Construct):
    """Define a role by which another account reads ``prefix`` of a zone, and nothing else.

    It is taken with an external id, for an hour. It reads objects; what Lake Formation says of tables is not
    its matter.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        zone: Zone,
        prefix: str,
        account: str,
        external_id: str,
    ) -> None:
        super().__init__(scope, construct_id)
        if not prefix.endswith("/"):
            raise ValueError(f"prefix must end with '/', got {prefix!r}; a reader gets one folder")
        self.role = _third_party_role(self, account, external_id, f"Reads {prefix}")
        zone.grant_read(self.role, prefix)


def _third_party_role(scope: Construct, account: str, external_id: str, description: str) -> iam.Role:
    return iam.Role(
        scope,
        "Role",
        description=description,
        assumed_by=iam.AccountPrincipal(account),
        external_ids=[external_id],
        max_session_duration=cdk.Duration.hours(1),
    )
