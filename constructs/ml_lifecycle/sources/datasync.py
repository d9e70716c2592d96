"""Files on a server that AWS DataSync brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from aws_cdk import aws_datasync as datasync
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.foundation import log_group
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.sources.batch_source import BatchSource
from ml_lifecycle.sources.credentials import login
from ml_lifecycle.sources.landing import BatchLanding

Location = Literal["nfs", "smb", "object_storage"]


class DataSyncTask(BatchSource):
    """Define a source whose files DataSync copies from a file server or an object store, what changed only.

    They arrive in the source's folder of the drop; what is deleted on the server stays here. The agents must
    reach the server. An SMB share or an object store takes a login: ``user`` (or access key) here, the
    password (or secret key) as the text of a secret.

    Defaults: daily; each file is verified after it was copied; every transferred file is in the log.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        landing: BatchLanding,
        location: Location,
        server: str,
        agent_arns: Sequence[str],
        key: kms.IKey,
        log_key: kms.IKey,
        folder: str = "/",
        bucket: str | None = None,
        user: str | None = None,
        secret_arn: str | None = None,
        schedule: str = "rate(1 day)",
        log_retention_days: int = 90,
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
        problems = []
        if location not in ("nfs", "smb", "object_storage"):
            problems.append(f"location must be nfs, smb or object_storage, got {location!r}")
        # DataSync, CreateLocationNfs and its like: 1 to 4 agents.
        if not 1 <= len(agent_arns) <= 4:
            problems.append(f"agent_arns must be 1 to 4, got {len(agent_arns)}")
        if (location == "object_storage") != (bucket is not None):
            problems.append(f"bucket goes with object_storage, got {bucket!r} with {location}")
        if (location == "nfs") == (user is not None):
            problems.append(f"user goes with smb and object_storage, got {user!r} with {location}")
        if not schedule.startswith(("cron(", "rate(")):
            problems.append(f"schedule must be cron(...) or rate(...), got {schedule!r}")
        if problems:
            raise ValueError("datasync task: " + "; ".join(problems))
        self.log_group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.source_arn = self._source(
            location, server, list(agent_arns), folder, bucket, user=user, secret_arn=secret_arn, key=key
        )
        self.role = self._role()
        target = datasync.CfnLocationS3(
            self,
            "Target",
            s3_bucket_arn=landing.drop.bucket.bucket_arn,
            subdirectory=f"/{self.prefix}",
            s3_config=datasync.CfnLocationS3.S3ConfigProperty(bucket_access_role_arn=self.role.role_arn),
        )
        target.node.add_dependency(self.role)
        logs.ResourcePolicy(
            self,
            "LogPolicy",
            policy_statements=[
                iam.PolicyStatement(
                    principals=[service_principal("datasync", own_account=True)],
                    actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                    resources=[self.log_group.log_group_arn],
                )
            ],
        )
        self.task = datasync.CfnTask(
            self,
            "Task",
            source_location_arn=self.source_arn,
            destination_location_arn=target.ref,
            # Without the ":*", every stream of it, that the group's own attribute ends in.
            cloud_watch_log_group_arn=arn("logs", f"log-group:{self.log_group.log_group_name}"),
            options=datasync.CfnTask.OptionsProperty(
                transfer_mode="CHANGED",
                verify_mode="ONLY_FILES_TRANSFERRED",
                overwrite_mode="ALWAYS",
                preserve_deleted_files="PRESERVE",
                log_level="TRANSFER",
            ),
            schedule=datasync.CfnTask.TaskScheduleProperty(schedule_expression=schedule),
        )

    def _source(
        self,
        location: Location,
        server: str,
        agents: list[str],
        folder: str,
        bucket: str | None,
        *,
        user: str | None,
        secret_arn: str | None,
        key: kms.IKey,
    ) -> str:
        if location == "nfs":
            return datasync.CfnLocationNFS(
                self,
                "Source",
                server_hostname=server,
                subdirectory=folder,
                on_prem_config=datasync.CfnLocationNFS.OnPremConfigProperty(agent_arns=agents),
            ).ref
        secret = login(
            self, "Login", arn=secret_arn, key=key, description=f"DataSync reads the source {self.name}"
        )
        role = iam.Role(
            self,
            "LoginRole",
            description=f"DataSync: the login of the source {self.name}",
            assumed_by=service_principal("datasync", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
            resource_arns=[secret.secret_arn],
        )
        iam.Grant.add_to_principal(grantee=role, actions=["kms:Decrypt"], resource_arns=[key.key_arn])
        if location == "smb":
            made = datasync.CfnLocationSMB(
                self,
                "Source",
                server_hostname=server,
                subdirectory=folder,
                agent_arns=agents,
                user=user,
                custom_secret_config=datasync.CfnLocationSMB.CustomSecretConfigProperty(
                    secret_arn=secret.secret_arn, secret_access_role_arn=role.role_arn
                ),
            )
            made.node.add_dependency(role)
            return made.ref
        store = datasync.CfnLocationObjectStorage(
            self,
            "Source",
            server_hostname=server,
            subdirectory=folder,
            bucket_name=bucket,
            agent_arns=agents,
            access_key=user,
            server_protocol="HTTPS",
            custom_secret_config=datasync.CfnLocationObjectStorage.CustomSecretConfigProperty(
                secret_arn=secret.secret_arn, secret_access_role_arn=role.role_arn
            ),
        )
        store.node.add_dependency(role)
        return store.ref

    def _role(self) -> iam.Role:
        role = iam.Role(
            self,
            "TargetRole",
            description=f"DataSync: writes the source {self.name} into its folder of the drop",
            assumed_by=service_principal("datasync", own_account=True),
        )
        drop = self.landing.drop
        drop.grant_read(role, self.prefix)
        drop.grant_write(role, self.prefix, delete=True)
        # AWS DataSync User Guide, "Providing DataSync access to S3 buckets": of the bucket itself, and tags.
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"],
            resource_arns=[drop.bucket.bucket_arn],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["s3:GetObjectTagging", "s3:PutObjectTagging"],
            resource_arns=[drop.arn(self.prefix)],
        )
        return role
