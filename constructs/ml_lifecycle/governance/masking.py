"""A view of a table in which nobody can be recognised, for people who must not see who it is about."""

# ruff: noqa: S608 - names in the view come from a checked contract
from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lakeformation as lakeformation

from constructs import Construct, IDependable
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

#: Where the key of the masks lies in the zone that holds it.
KEY_PREFIX = "governance/mask-key/"


class MaskKey(Construct):
    """Define the key that masks are made with: 32 random bytes, made once, in a table only ``definer`` reads.

    A function draws the key when the stack is first deployed; no template, log or state of a deployment holds
    it. It lies in ``zone``, encrypted by the zone's key, in the table ``mask_key`` of ``database_name``.
    Whoever may read the zone's objects below ``governance/`` could read it: no job and no persona is granted
    that prefix. A new key would break joins with what was masked before, so an update keeps it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        zone: Zone,
        database_name: str,
        log_key: kms.IKey,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        self.database_name = database_name
        function = zip_function(
            self,
            "Draw",
            package="mask_key",
            description="Draws the key of the masked views, once",
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        if function.role is None:
            raise TypeError("the function must have a role")
        zone.grant_write(function.role, KEY_PREFIX)
        drawn = cdk.CustomResource(
            self,
            "Key",
            resource_type="Custom::MaskKey",
            service_token=function.function_arn,
            properties={"Bucket": zone.bucket.bucket_name, "Object": f"{KEY_PREFIX}key.csv"},
        )
        drawn.node.add_dependency(function.role)
        database = glue.CfnDatabase(
            self,
            "Database",
            catalog_id=ACCOUNT,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=database_name,
                description="What governs the lake; no persona reads it",
                create_table_default_permissions=[],
            ),
        )
        props = glue.CfnTable
        self.table = props(
            self,
            "Table",
            catalog_id=ACCOUNT,
            database_name=database_name,
            table_input=props.TableInputProperty(
                name="mask_key",
                table_type="EXTERNAL_TABLE",
                parameters={"classification": "csv", "EXTERNAL": "TRUE"},
                storage_descriptor=props.StorageDescriptorProperty(
                    columns=[props.ColumnProperty(name="secret", type="string")],
                    location=zone.uri(KEY_PREFIX),
                    input_format="org.apache.hadoop.mapred.TextInputFormat",
                    output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                    serde_info=props.SerdeInfoProperty(
                        serialization_library="org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"
                    ),
                ),
            ),
        )
        self.table.add_resource_dependency(database)
        self.table.node.add_dependency(drawn)
        self.definer = iam.Role(
            self,
            "Definer",
            description="Masked views read through it what their readers must not",
            # Lake Formation, "Requirements for creating views": the definer trusts both services.
            assumed_by=iam.CompositePrincipal(service_principal("glue"), service_principal("lakeformation")),
        )
        self.let_define(database_name, "mask_key")
        granted = select_grant(
            self,
            "DefinerReadsKey",
            role=self.definer,
            database_name=database_name,
            table_name=self.table.ref,
        )
        granted.node.add_dependency(self.definer)
        # Lake Formation hands out credentials for what it granted; the action knows no resource (Service
        # Authorization Reference, "AWS Lake Formation").
        iam.Grant.add_to_principal(
            grantee=self.definer, actions=["lakeformation:GetDataAccess"], resource_arns=["*"]
        )
        acknowledge_wildcards(
            self.definer,
            "GetDataAccess takes no resource and gives what Lake Formation granted to the definer, no more.",
            resources=["*"],
        )

    def let_define(self, database_name: str, table_name: str) -> iam.Grant:
        """Let views be defined on a table: the definer may look it up."""
        base = f"arn:{PARTITION}:glue:{REGION}:{ACCOUNT}"
        return iam.Grant.add_to_principal(
            grantee=self.definer,
            actions=["glue:GetDatabase", "glue:GetTable"],
            resource_arns=[
                f"{base}:catalog",
                f"{base}:database/{database_name}",
                f"{base}:table/{database_name}/{table_name}",
            ],
        )


class MaskedView(Construct):
    """Define the view ``<table>_masked``; ``masks`` says how each column that identifies a person stands.

    ``hash`` is HMAC-SHA-256 under the environment's key, in hexadecimal: equal values give equal texts, so
    joins and counts still work, and without the key nobody can try values out. ``redact`` is NULL. Every
    other column stands as it is: a rare combination of them may still point to a person, so this is
    pseudonymised, not anonymous, data. ``condition`` narrows the rows.

    It is a Data Catalog view (Lake Formation, "Building AWS Glue Data Catalog views") whose definer reads the
    table and the key; a reader needs permission on the view only, and asks through Athena engine version 3.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: MaskKey,
        zone: Zone,
        table_name: str,
        columns: Sequence[tuple[str, str]],
        masks: Mapping[str, str],
        condition: str | None = None,
        depends_on: Sequence[IDependable] = (),
    ) -> None:
        super().__init__(scope, construct_id)
        names = [name for name, _ in columns]
        problems = [f"masks names {name!r}, which is no column" for name in masks if name not in names]
        problems += [
            f"masks must be hash or redact, got {kind!r} for {name}"
            for name, kind in masks.items()
            if kind not in ("hash", "redact")
        ]
        if zone.database_name is None:
            problems.append(f"zone must have a database, got zone {zone.node.id} without one")
        if problems:
            raise ValueError("masked view: " + "; ".join(problems))
        database = str(zone.database_name)
        self.name = f"{table_name}_masked"
        self.columns = [(name, "string" if name in masks else kind) for name, kind in columns]
        self.sql = _view_sql(
            f'"{database}"."{table_name}"', f'"{key.database_name}"."mask_key"', names, masks, condition
        )
        reads = select_grant(
            self, "DefinerReads", role=key.definer, database_name=database, table_name=table_name
        )
        reads.node.add_dependency(*depends_on)
        key.let_define(database, table_name)
        sources = [
            arn("glue", f"table/{database}/{table_name}"),
            arn("glue", f"table/{key.database_name}/mask_key"),
        ]
        props = glue.CfnTable
        self.table = props(
            self,
            "View",
            catalog_id=ACCOUNT,
            database_name=database,
            table_input=props.TableInputProperty(
                name=self.name,
                description=f"{table_name} without what identifies a person",
                table_type="VIRTUAL_VIEW",
                storage_descriptor=props.StorageDescriptorProperty(
                    columns=[props.ColumnProperty(name=name, type=kind) for name, kind in self.columns]
                ),
                view_definition=props.ViewDefinitionProperty(
                    definer=key.definer.role_arn,
                    is_protected=True,
                    sub_objects=sources,
                    representations=[
                        props.ViewRepresentationProperty(
                            dialect="ATHENA",
                            dialect_version="3",
                            view_original_text=self.sql,
                            view_expanded_text=self.sql,
                        )
                    ],
                ),
            ),
        )
        self.table.node.add_dependency(reads)


def select_grant(
    scope: Construct, construct_id: str, *, role: iam.IRole, database_name: str, table_name: str
) -> lakeformation.CfnPrincipalPermissions:
    """Define SELECT on a whole table with the right to pass it on, as the definer of a view needs."""
    name = lakeformation.CfnPrincipalPermissions
    return name(
        scope,
        construct_id,
        principal=name.DataLakePrincipalProperty(data_lake_principal_identifier=role.role_arn),
        resource=name.ResourceProperty(
            table=name.TableResourceProperty(catalog_id=ACCOUNT, database_name=database_name, name=table_name)
        ),
        permissions=["SELECT", "DESCRIBE"],
        permissions_with_grant_option=["SELECT", "DESCRIBE"],
    )


def _view_sql(
    table: str, key: str, columns: Sequence[str], masks: Mapping[str, str], condition: str | None
) -> str:
    def column(name: str) -> str:
        kind = masks.get(name)
        if kind == "hash":
            text = f'to_utf8(CAST(t."{name}" AS VARCHAR))'
            return f'lower(to_hex(hmac_sha256({text}, from_hex(k.secret)))) AS "{name}"'
        if kind == "redact":
            return f'CAST(NULL AS VARCHAR) AS "{name}"'
        return f't."{name}"'

    where = "" if condition is None else f" WHERE {condition}"
    return f"SELECT {', '.join(column(name) for name in columns)} FROM {table} t CROSS JOIN {key} k{where}"
