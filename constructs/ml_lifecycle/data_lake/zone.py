"""One zone of the lake: a bucket, its key, its Glue database, and exact ways in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lakeformation as lakeformation
from aws_cdk import aws_s3 as s3

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, service_principal, stack_of
from ml_lifecycle.training.wildcards import acknowledge_wildcards

_OBJECTS_REASON = (
    "S3 names objects below a prefix by a wildcard only, and their keys are unknown before they exist; "
    "the prefix has one owner, the actions are spelled out, and the bucket's key must be granted too"
)


class Zone(Construct):
    """Define a versioned, encrypted bucket that only TLS 1.2 reaches, and its Glue database.

    Every change is recoverable: replaced and deleted objects stay as noncurrent versions for
    ``noncurrent_version_days``. S3 sends "Object Created" and other events to EventBridge. ``database`` is
    None without a ``database_name``.

    ``bucket.grant_*`` of the CDK gives more than a job needs (``s3:GetObject*`` on the whole bucket): use
    ``grant_read`` and ``grant_write`` of this class, which take a prefix and spell actions out. All that they
    grant stands in the one default policy of the principal, so the ``iam.Grant`` they return (to depend on,
    to assert) stands for the whole.

    ``governed`` leaves new tables of the database to Lake Formation alone: no policy of IAM opens them. The
    ``grant_*`` methods for tables grant in both, so a role that works without it works with it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        access_logs: s3.IBucket,
        database_name: str | None = None,
        lifecycle_rules: Sequence[s3.LifecycleRule] = (),
        noncurrent_version_days: int = 90,
        noncurrent_to_deep_archive_days: int | None = None,
        analyse_storage_class: bool = False,
        governed: bool = False,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        self._zone_id = construct_id
        self._stack = stack_of(self)
        self.key = key
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            # One data key per bucket and while instead of one KMS request per object.
            bucket_key_enabled=True,
            versioned=True,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="Housekeeping",
                    noncurrent_version_expiration=cdk.Duration.days(noncurrent_version_days),
                    noncurrent_version_transitions=None
                    if noncurrent_to_deep_archive_days is None
                    else [
                        s3.NoncurrentVersionTransition(
                            storage_class=s3.StorageClass.DEEP_ARCHIVE,
                            transition_after=cdk.Duration.days(noncurrent_to_deep_archive_days),
                        )
                    ],
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                    expired_object_delete_marker=True,
                ),
                *lifecycle_rules,
            ],
            removal_policy=removal_policy,
        )
        # Each look at a construct's property asks the jsii kernel; these are looked at for every grant.
        self._bucket_name, self._bucket_arn = self.bucket.bucket_name, self.bucket.bucket_arn
        self._key_arn = key.key_arn
        self._acknowledged: WeakKeyDictionary[Construct, set[str]] = WeakKeyDictionary()
        resource = self.bucket.node.default_child
        if not isinstance(resource, s3.CfnBucket):
            raise TypeError(f"the bucket's default child must be a CfnBucket, got {type(resource).__name__}")
        self._log_access(resource, access_logs, f"{construct_id.lower()}/")
        # Not event_bridge_enabled: it brings a Lambda-backed custom resource for what is one property of
        # the bucket.
        resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(
                event_bridge_enabled=True
            )
        )
        if analyse_storage_class:
            resource.analytics_configurations = [
                s3.CfnBucket.AnalyticsConfigurationProperty(
                    id="StorageClass", storage_class_analysis=s3.CfnBucket.StorageClassAnalysisProperty()
                )
            ]
        self.database_name = database_name
        self.governed = governed
        #: The zone's registration with Lake Formation, once the lake has made it.
        self.registration: lakeformation.CfnResource | None = None
        self.database: glue.CfnDatabase | None = None
        if database_name is not None:
            self.database = glue.CfnDatabase(
                self,
                "Database",
                catalog_id=ACCOUNT,
                database_input=glue.CfnDatabase.DatabaseInputProperty(
                    name=database_name,
                    location_uri=self.uri(),
                    description=f"{construct_id} zone of the data lake",
                    # None keeps the account's default, which is ALL to IAM_ALLOWED_PRINCIPALS unless somebody
                    # changed it (Lake Formation, "Changing the default settings for your data lake").
                    create_table_default_permissions=[] if governed else None,
                ),
            )

    def _log_access(self, resource: s3.CfnBucket, access_logs: s3.IBucket, prefix: str) -> None:
        # Not server_access_logs_bucket: an app's feature flag decides whether it writes ACL or policy.
        resource.logging_configuration = s3.CfnBucket.LoggingConfigurationProperty(
            destination_bucket_name=access_logs.bucket_name, log_file_prefix=prefix
        )
        access_logs.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[service_principal("logging.s3")],
                actions=["s3:PutObject"],
                resources=[access_logs.arn_for_objects(f"{prefix}*")],
                # Not the bucket's own ARN: it would tie the two buckets in a circle.
                conditions={"StringEquals": {"aws:SourceAccount": ACCOUNT}},
            )
        )

    def uri(self, prefix: str = "") -> str:
        """Return ``s3://<bucket>/<prefix>``."""
        return f"s3://{self._bucket_name}/{prefix}"

    def arn(self, prefix: str = "") -> str:
        """Return the ARN of every object below ``prefix``, for policies."""
        return f"{self._bucket_arn}/{prefix}*"

    def grant_read(self, grantee: iam.IGrantable, prefix: str) -> iam.Grant:
        """Grant listing and reading what is below ``prefix``, and decrypting it."""
        grant = self._objects(grantee, prefix, ["s3:GetObject"])
        self._bucket(grantee, prefix)
        self._key(grantee, ["kms:Decrypt"])
        return grant

    def share_read(self, accounts: Sequence[str], prefix: str) -> None:
        """Let other accounts read what is below ``prefix``, by the policies of the bucket and of its key.

        Whom of theirs they let is their own policies' matter. The key is opened through S3 only.
        """
        principals: list[iam.IPrincipal] = [iam.AccountPrincipal(account) for account in accounts]
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid=f"Share{''.join(part.title() for part in prefix.replace('-', '/').split('/'))}",
                principals=principals,
                actions=["s3:GetObject"],
                resources=[self.arn(prefix)],
            )
        )
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                principals=principals,
                actions=["kms:Decrypt"],
                resources=["*"],
                conditions={"StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}},
            )
        )

    def grant_write(self, grantee: iam.IGrantable, prefix: str, *, delete: bool = False) -> iam.Grant:
        """Grant writing below ``prefix``, multipart uploads and encryption included.

        ``delete`` adds deleting. The bucket is versioned: a deleted object stays as a noncurrent version.
        """
        actions = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        grant = self._objects(grantee, prefix, [*actions, "s3:DeleteObject"] if delete else actions)
        # Multipart uploads decrypt what they wrote (Amazon S3, "Uploading and copying objects using
        # multipart upload").
        self._key(grantee, ["kms:Decrypt", "kms:GenerateDataKey"])
        return grant

    def grant_folder(self, grantee: iam.IGrantable, prefix: str, *, write: bool = False) -> iam.Grant:
        """Grant what Hadoop's file systems ask of the folder ``prefix`` and of those above it, as Spark does.

        They treat keys as paths: before a file is opened, listed or written they ask for the key of every
        folder without its slash, and a "not found" is an answer only to who may list the whole bucket; else
        S3 says 403 (GetObject, "Permissions"). What writes also leaves empty objects, ``<folder>/`` or
        ``<folder>_$folder$``, that stand for the folders. ``prefix`` itself is granted by ``grant_read`` and
        ``grant_write``.
        """
        parts = prefix.strip("/").split("/")
        folders = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        markers = [marker for folder in folders for marker in (f"{folder}/", f"{folder}_$folder$")]
        grant = iam.Grant.add_to_principal(
            grantee=grantee, actions=["s3:ListBucket"], resource_arns=[self._bucket_arn]
        )
        iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["s3:GetObject"],
            resource_arns=[f"{self._bucket_arn}/{key}" for key in (*folders, *markers)],
        )
        if write:
            iam.Grant.add_to_principal(
                grantee=grantee,
                actions=["s3:DeleteObject", "s3:PutObject"],
                resource_arns=[f"{self._bucket_arn}/{key}" for key in markers],
            )
        return grant

    def grant_describe_table(self, role: iam.Role, table: str, *, select: bool = False) -> iam.Grant:
        """Grant reading the schema of ``table``, in IAM and in Lake Formation; ``select``: its rows as well.

        Pass the table's reference (``table.ref``): Lake Formation refuses a table that is not there yet.
        """
        self._lake_formation(role, "Describe", table, ["SELECT", "DESCRIBE"] if select else ["DESCRIBE"])
        return iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:GetTable", "glue:GetTableVersion", "glue:GetTableVersions"],
            resource_arns=self._catalog_arns(table),
        )

    def grant_maintain_partitions(self, role: iam.Role, table: str) -> iam.Grant:
        """Grant adding and updating partitions of ``table``, as a crawler does, in IAM and in Lake Formation.

        Pass the table's reference, as for ``grant_describe_table``.
        """
        self._lake_formation(role, "Maintain", table, ["DESCRIBE", "ALTER", "INSERT"])
        return iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "glue:GetDatabase",
                "glue:GetTable",
                "glue:UpdateTable",
                "glue:GetPartition",
                "glue:GetPartitions",
                "glue:BatchGetPartition",
                "glue:BatchCreatePartition",
                "glue:CreatePartition",
                "glue:UpdatePartition",
                "glue:BatchUpdatePartition",
            ],
            resource_arns=self._catalog_arns(table),
        )

    def grant_query_table(self, role: iam.Role, table: str, *, in_lake_formation: bool = True) -> iam.Grant:
        """Grant finding an Iceberg table's current metadata; ``grant_read`` grants the files themselves.

        In IAM and, where Lake Formation is in force, there as well; elsewhere it leaves tables to IAM, and
        who deploys could grant nothing on a table that another role has made. Pass the table's reference.
        ``in_lake_formation=False`` is for a table that a later stack makes: that stack grants it there.
        """
        if self.governed and in_lake_formation:
            self._lake_formation(role, "Query", table, ["SELECT", "DESCRIBE"])
        return iam.Grant.add_to_principal(
            grantee=role, actions=["glue:GetTable"], resource_arns=self._catalog_arns(table)
        )

    def grant_alter_table(self, role: iam.Role, table: str) -> iam.Grant:
        """Grant reading ``table`` and changing its catalog entry, as a commit to an Iceberg table does.

        In IAM and, as for ``grant_query_table``, in Lake Formation; the files themselves are granted by
        ``grant_read`` and ``grant_write``. Pass the table's reference, or depend on what makes it.
        """
        if self.governed:
            self._lake_formation(role, "Alter", table, ["SELECT", "DESCRIBE", "INSERT", "DELETE", "ALTER"])
        return iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:GetDatabase", "glue:GetTable", "glue:UpdateTable"],
            resource_arns=self._catalog_arns(table),
        )

    def grant_create_tables(self, role: iam.Role, *names: str) -> iam.Grant:
        """Grant making, changing and reading tables of the zone's database over data in its bucket.

        ``names`` are the tables' names; without any they are not known before. Lake Formation, where it is in
        force, gives who makes a table every permission on it; on tables of others it gives none here.
        """
        self._grant_creation(role)
        tables = sorted({arn for name in names or ("*",) for arn in self._catalog_arns(name)})
        if not names:
            acknowledge_wildcards(
                role,
                "the tables are not known before the role makes them; the database is this zone's own, and "
                "Lake Formation lets the role change those tables only that it made",
                resources=tables,
            )
        return iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:CreateTable", "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable"],
            resource_arns=tables,
        )

    def _grant_creation(self, role: iam.Role) -> None:
        if not self.governed or role.node.try_find_child(f"{self._zone_id}CreateTables") is not None:
            return
        name = lakeformation.CfnPrincipalPermissions
        database = self._permissions(
            role,
            f"{self._zone_id}CreateTables",
            name.ResourceProperty(
                database=name.DatabaseResourceProperty(catalog_id=ACCOUNT, name=self._known_database())
            ),
            ["CREATE_TABLE", "DESCRIBE"],
        )
        if self.database is not None and stack_of(role) is self._stack:
            database.add_resource_dependency(self.database)
        location = self._permissions(
            role,
            f"{self._zone_id}Location",
            name.ResourceProperty(
                data_location=name.DataLocationResourceProperty(
                    catalog_id=ACCOUNT, resource_arn=self._bucket_arn
                )
            ),
            ["DATA_LOCATION_ACCESS"],
        )
        if self.registration is not None and stack_of(role) is self._stack:
            location.add_resource_dependency(self.registration)

    def grant_drop_table(self, role: iam.Role, table: str) -> iam.Grant:
        """Grant taking a table that the role has made out of the catalog; its files stay."""
        return iam.Grant.add_to_principal(
            grantee=role, actions=["glue:DeleteTable"], resource_arns=self._catalog_arns(table)
        )

    def _lake_formation(self, role: iam.Role, verb: str, table: str, permissions: list[str]) -> None:
        name = lakeformation.CfnPrincipalPermissions
        self._permissions(
            role,
            f"{self._zone_id}{verb}",
            name.ResourceProperty(
                table=name.TableResourceProperty(
                    catalog_id=ACCOUNT, database_name=self._known_database(), name=table
                )
            ),
            permissions,
        )

    def _permissions(
        self,
        role: iam.Role,
        construct_id: str,
        resource: lakeformation.CfnPrincipalPermissions.ResourceProperty,
        permissions: list[str],
    ) -> lakeformation.CfnPrincipalPermissions:
        return lakeformation.CfnPrincipalPermissions(
            role,
            construct_id,
            principal=lakeformation.CfnPrincipalPermissions.DataLakePrincipalProperty(
                data_lake_principal_identifier=role.role_arn
            ),
            resource=resource,
            permissions=permissions,
            permissions_with_grant_option=[],
        )

    def _known_database(self) -> str:
        if self.database_name is None:
            raise ValueError(f"zone {self._zone_id} must have a database_name to hold tables, got None")
        return self.database_name

    def _catalog_arns(self, table: str) -> list[str]:
        # Glue checks the catalog, the database and the table for each call on a table.
        base = f"arn:{PARTITION}:glue:{REGION}:{ACCOUNT}"
        database = self._known_database()
        return [f"{base}:catalog", f"{base}:database/{database}", f"{base}:table/{database}/{table}"]

    def _objects(self, grantee: iam.IGrantable, prefix: str, actions: list[str]) -> iam.Grant:
        if prefix.startswith("/"):
            raise ValueError(f"prefix must not start with '/', got {prefix!r}; S3 keys have no leading slash")
        self._acknowledge_objects(grantee, prefix)
        return iam.Grant.add_to_principal(grantee=grantee, actions=actions, resource_arns=[self.arn(prefix)])

    def _bucket(self, grantee: iam.IGrantable, prefix: str) -> iam.Grant:
        listing = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["s3:ListBucket"],
            resource_arns=[self._bucket_arn],
            # No condition for the whole bucket: a request without a prefix would not meet "*".
            conditions={"StringLike": {"s3:prefix": [prefix, f"{prefix}*"]}} if prefix else None,
        )
        iam.Grant.add_to_principal(
            grantee=grantee, actions=["s3:GetBucketLocation"], resource_arns=[self._bucket_arn]
        )
        return listing

    def _key(self, grantee: iam.IGrantable, actions: list[str]) -> iam.Grant:
        return iam.Grant.add_to_principal(grantee=grantee, actions=actions, resource_arns=[self._key_arn])

    def _acknowledge_objects(self, grantee: iam.IGrantable, prefix: str) -> None:
        principal = grantee if isinstance(grantee, iam.Role) else grantee.grant_principal
        if not isinstance(principal, Construct):
            return
        done = self._acknowledged.setdefault(principal, set())
        if prefix not in done:
            done.add(prefix)
            own = stack_of(principal) is self._stack
            text = self._own_finding if own else self._foreign_finding
            acknowledge(principal, f"IAM5[Resource::{text}/{prefix}*]", _OBJECTS_REASON)

    # The pack names a finding by the resource as it stands in the grantee's template.

    @cached_property
    def _own_finding(self) -> str:
        bucket = self.bucket.node.default_child
        if not isinstance(bucket, cdk.CfnElement):
            raise TypeError(f"the bucket's default child must be a CfnElement, got {type(bucket).__name__}")
        return f"<{self._stack.get_logical_id(bucket)}.Arn>"

    @cached_property
    def _foreign_finding(self) -> str:
        # The same export that the reference itself makes.
        name: str = self._stack.resolve(self._stack.export_value(self._bucket_arn))["Fn::ImportValue"]
        return name
