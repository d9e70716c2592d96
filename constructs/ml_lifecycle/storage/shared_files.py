"""EFS: files that jobs share, and that stay."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_efs as efs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge

__all__ = ["SharedFiles"]

_NFS = ec2.Port.tcp(2049)


class SharedFiles(Construct):
    """Define an elastic file system that jobs of the VPC mount: checkpoints, datasets of many small files.

    Encrypted with ``key`` and in transit; its policy refuses who does not use TLS and who does not come
    through a mount target. Members of ``clients`` reach it; an access point gives them ``/training`` as one
    POSIX user. Defaults: elastic throughput, files that nobody read for 30 days move to infrequent access
    and come back when read, daily backups, retained with its data.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        clients: ec2.ISecurityGroup,
        backups: bool = True,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        if not subnets:
            raise ValueError("shared files: subnets must name one subnet per availability zone, got none")
        self.security_group = ec2.SecurityGroup(
            self, "SecurityGroup", vpc=vpc, description="NFS servers", allow_all_outbound=False
        )
        self.security_group.add_ingress_rule(clients, _NFS, "NFS")
        # A resource of this construct's stack: the clients' group may stand in another one.
        ec2.CfnSecurityGroupEgress(
            self,
            "Clients",
            group_id=clients.security_group_id,
            ip_protocol="tcp",
            from_port=2049,
            to_port=2049,
            destination_security_group_id=self.security_group.security_group_id,
            description="NFS",
        )
        self.file_system = efs.CfnFileSystem(
            self,
            "FileSystem",
            encrypted=True,
            kms_key_id=key.key_arn,
            throughput_mode="elastic",
            backup_policy=efs.CfnFileSystem.BackupPolicyProperty(status="ENABLED" if backups else "DISABLED"),
            lifecycle_policies=[
                efs.CfnFileSystem.LifecyclePolicyProperty(transition_to_ia="AFTER_30_DAYS"),
                efs.CfnFileSystem.LifecyclePolicyProperty(
                    transition_to_primary_storage_class="AFTER_1_ACCESS"
                ),
            ],
            file_system_policy=iam.PolicyDocument(
                statements=[
                    iam.PolicyStatement(
                        sid="TlsOnly",
                        effect=iam.Effect.DENY,
                        principals=[iam.AnyPrincipal()],
                        actions=["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
                        resources=["*"],
                        conditions={"Bool": {"aws:SecureTransport": "false"}},
                    ),
                    iam.PolicyStatement(
                        sid="ByMountTarget",
                        principals=[iam.AnyPrincipal()],
                        actions=["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
                        resources=["*"],
                        conditions={"Bool": {"elasticfilesystem:AccessedViaMountTarget": "true"}},
                    ),
                ]
            ),
        )
        if backups:
            acknowledge(
                self.file_system,
                "EFSInBackupPlan",
                "EFS puts a file system with automatic backups into AWS Backup's default plan.",
                packs=("HIPAA.Security", "NIST.800.53.R5"),
            )
        self.file_system.apply_removal_policy(removal_policy)
        for index, subnet in enumerate(subnets):
            efs.CfnMountTarget(
                self,
                f"Target{index}",
                file_system_id=self.file_system.ref,
                subnet_id=subnet.subnet_id,
                security_groups=[self.security_group.security_group_id],
            )
        props = efs.CfnAccessPoint
        # 755: a training job mounts the root, and EFS makes its root user nobody; it may read, not write.
        self.access_point = props(
            self,
            "Training",
            file_system_id=self.file_system.ref,
            posix_user=props.PosixUserProperty(uid="1000", gid="1000"),
            root_directory=props.RootDirectoryProperty(
                path="/training",
                creation_info=props.CreationInfoProperty(
                    owner_uid="1000", owner_gid="1000", permissions="755"
                ),
            ),
        )

    def channel(self, path: str = "/training") -> dict[str, object]:
        """Return the ``DataSource`` of a training channel that reads ``path``, counted from the root.

        Source: Amazon SageMaker API Reference, FileSystemDataSource; it knows no access point.
        """
        return {
            "FileSystemDataSource": {
                "FileSystemId": self.file_system.ref,
                "FileSystemType": "EFS",
                "FileSystemAccessMode": "ro",
                "DirectoryPath": "/" + path.strip("/"),
            }
        }

    def grant_mount(self, grantee: iam.IGrantable, *, write: bool = False) -> iam.Grant:
        """Grant mounting, and describing what a training job looks up."""
        actions = ["elasticfilesystem:ClientMount", "elasticfilesystem:DescribeMountTargets"]
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=[*actions, "elasticfilesystem:ClientWrite"] if write else actions,
            resource_arns=[self.file_system.attr_arn],
        )

    def metric(
        self, metric_name: str, *, statistic: str = "Sum", period: cdk.Duration | None = None
    ) -> cloudwatch.Metric:
        """Return a metric of the file system, e.g. ``TotalIOBytes``."""
        return cloudwatch.Metric(
            namespace="AWS/EFS",
            metric_name=metric_name,
            dimensions_map={"FileSystemId": self.file_system.ref},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )
