"""FSx for Lustre, linked to the lake."""

from __future__ import annotations

from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_fsx as fsx
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import ACCOUNT, PARTITION

__all__ = ["LustreCache"]

#: Lustre's own ports (FSx for Lustre User Guide, "File system access control with Amazon VPC").
_RANGES = ((988, 988), (1018, 1023))
_PORTS = tuple(ec2.Port.tcp_range(first, last) for first, last in _RANGES)


class LustreCache(Construct):
    """Define a Lustre file system that shows what lies below a prefix of a zone, for many epochs over it.

    It is a cache: files come from S3 when they are first read, new objects appear by themselves, nothing is
    written back unless ``export``. Members of ``clients`` mount it; ``channel`` is what a training job's
    input says. FSx enters event notifications of its own into the bucket and reads it by a service-linked
    role; the zone's key lets that role decrypt.

    Defaults: PERSISTENT_2 on SSD, 1,200 GiB (the least), 125 MB/s per TiB, encrypted with ``key``, compressed
    with LZ4, no backups (S3 has the data), and deleted with its stack.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        zone: Zone,
        prefix: str,
        key: kms.IKey,
        vpc: ec2.IVpc,
        subnet: ec2.ISubnet,
        clients: ec2.ISecurityGroup,
        capacity_gib: int = 1_200,
        throughput_mbps_per_tib: Literal[125, 250, 500, 1000] = 125,
        export: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # Amazon FSx API Reference, CreateFileSystem, StorageCapacity: PERSISTENT_2 SSD.
        if capacity_gib != 1_200 and (capacity_gib < 2_400 or capacity_gib % 2_400):
            problems.append(f"capacity_gib must be 1200 or a multiple of 2400, got {capacity_gib}")
        if throughput_mbps_per_tib not in (125, 250, 500, 1000):
            problems.append(
                f"throughput_mbps_per_tib must be 125, 250, 500 or 1000, got {throughput_mbps_per_tib}"
            )
        if not prefix.endswith("/") or prefix.startswith("/"):
            problems.append(f"prefix must end with '/' and not start with it, got {prefix!r}")
        if problems:
            raise ValueError("lustre cache: " + "; ".join(problems))
        self.prefix = prefix
        self.security_group = ec2.SecurityGroup(
            self, "SecurityGroup", vpc=vpc, description="Lustre servers", allow_all_outbound=False
        )
        for (first, last), port in zip(_RANGES, _PORTS, strict=True):
            for peer in (clients, self.security_group):
                self.security_group.add_ingress_rule(peer, port, "Lustre")
            self.security_group.add_egress_rule(self.security_group, port, "Lustre")
            # A resource of this construct's stack: the clients' group may stand in another one.
            ec2.CfnSecurityGroupEgress(
                self,
                f"Clients{first}",
                group_id=clients.security_group_id,
                ip_protocol="tcp",
                from_port=first,
                to_port=last,
                destination_security_group_id=self.security_group.security_group_id,
                description="Lustre",
            )
        self.file_system = fsx.CfnFileSystem(
            self,
            "FileSystem",
            file_system_type="LUSTRE",
            file_system_type_version="2.15",
            storage_capacity=capacity_gib,
            storage_type="SSD",
            subnet_ids=[subnet.subnet_id],
            security_group_ids=[self.security_group.security_group_id],
            kms_key_id=key.key_arn,
            lustre_configuration=fsx.CfnFileSystem.LustreConfigurationProperty(
                deployment_type="PERSISTENT_2",
                per_unit_storage_throughput=throughput_mbps_per_tib,
                data_compression_type="LZ4",
                automatic_backup_retention_days=0,
            ),
        )
        self._let_fsx_decrypt(zone, write=export)
        # FSx refuses servers whose group does not let Lustre in yet; rules are resources of their own.
        self.file_system.node.add_dependency(self.security_group)
        policies = ["NEW", "CHANGED", "DELETED"]
        props = fsx.CfnDataRepositoryAssociation
        self.link = props(
            self,
            "Link",
            file_system_id=self.file_system.ref,
            file_system_path="/lake",
            data_repository_path=zone.uri(prefix),
            batch_import_meta_data_on_create=True,
            s3=props.S3Property(
                auto_import_policy=props.AutoImportPolicyProperty(events=policies),
                auto_export_policy=props.AutoExportPolicyProperty(events=policies) if export else None,
            ),
        )

    def _let_fsx_decrypt(self, zone: Zone, *, write: bool) -> None:
        # FSx for Lustre User Guide, "Using server-side encrypted Amazon S3 buckets": the key's own policy
        # must name the service-linked role, which is made with the file system and ends in its id.
        role = (
            f"arn:{PARTITION}:iam::{ACCOUNT}:role/aws-service-role/s3.data-source.lustre.fsx.amazonaws.com/"
        )
        actions = ["kms:Decrypt", "kms:DescribeKey"]
        added = zone.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LustreLink" + ("Export" if write else ""),
                principals=[iam.AnyPrincipal()],
                actions=[*actions, "kms:Encrypt", "kms:GenerateDataKey"] if write else actions,
                resources=["*"],
                conditions={
                    "StringEquals": {"aws:PrincipalAccount": ACCOUNT},
                    "ArnLike": {"aws:PrincipalArn": f"{role}AWSServiceRoleForFSxS3Access_fs-*"},
                },
            )
        )
        if not added.statement_added:
            cdk.Annotations.of(self).add_warning_v2(
                "ml-lifecycle:lustre-key",
                "the zone's key is not of this app: let AWSServiceRoleForFSxS3Access_fs-* decrypt with it in "
                "its own policy, or the link to the bucket fails",
            )

    @property
    def mount_name(self) -> str:
        """Name under which clients mount it."""
        return self.file_system.attr_lustre_mount_name

    def channel(self, path: str = "") -> dict[str, object]:
        """Return the ``DataSource`` of a training channel that reads ``path`` below the linked prefix.

        Source: Amazon SageMaker API Reference, FileSystemDataSource.
        """
        return {
            "FileSystemDataSource": {
                "FileSystemId": self.file_system.ref,
                "FileSystemType": "FSxLustre",
                "FileSystemAccessMode": "ro",
                "DirectoryPath": f"/{self.mount_name}/lake/{path.strip('/')}".rstrip("/"),
            }
        }

    def grant_describe(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant what the role of a training job needs to find the file system."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["fsx:DescribeFileSystems"],
            resource_arns=[self.file_system.attr_resource_arn],
        )

    def metric(
        self, metric_name: str, *, statistic: str = "Sum", period: cdk.Duration | None = None
    ) -> cloudwatch.Metric:
        """Return a metric of the file system, e.g. ``DataReadBytes``."""
        return cloudwatch.Metric(
            namespace="AWS/FSx",
            metric_name=metric_name,
            dimensions_map={"FileSystemId": self.file_system.ref},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )
