"""The people who work with the lake, as roles: what each sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from aws_cdk import aws_iam as iam
from aws_cdk import aws_lakeformation as lakeformation

from constructs import Construct
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.governance.tags import TAGS, LakeTags
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION
from ml_lifecycle.training.wildcards import acknowledge_wildcards

PersonaName = Literal["data_scientist", "data_engineer", "mlops_engineer", "auditor"]
PERSONAS: tuple[PersonaName, ...] = get_args(PersonaName)
#: Personas whose rows a workload may narrow; they are granted filtered tables by data-cell filters.
NARROWED: tuple[PersonaName, ...] = ("data_scientist", "mlops_engineer")
#: Zones whose tables a narrowed persona reads, and the sensitivities of the columns.
READS: Mapping[PersonaName, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "data_scientist": (("curated", "features"), ("none", "protected")),
    "mlops_engineer": (("features",), ("none",)),
}
_TITLES: Mapping[PersonaName, str] = {
    "data_scientist": "Reads curated rows and features, never what identifies a person",
    "data_engineer": "Reads and repairs every table of the lake",
    "mlops_engineer": "Reads features that say nothing of a person",
    "auditor": "Reads the audit trail and the descriptions of tables, no row of the lake",
}


class Personas(Construct):
    """Define the roles of the people, and what Lake Formation grants each by LF-tags.

    | Persona | Tables | Columns | Rows |
    |---|---|---|---|
    | data scientist | curated, features, classified ``readable`` | all but pii | those of its filter |
    | data engineer | raw, curated, features: reads and changes | all | all |
    | MLOps engineer | features, classified ``readable`` | neither pii nor protected | those of its filter |
    | auditor | descriptions only | | none; reads the audit trail |

    ``principals`` says who may assume a role (ARNs of roles or users). Without any, IAM policies of the
    account say so. A role has no permission on the buckets of the lake: rows are read through Athena, which
    asks Lake Formation. Queries are granted by `QueryWorkgroup`, the trail by `AuditTrail`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        tags: LakeTags,
        lake: DataLake,
        principals: Mapping[PersonaName, Sequence[str]] | None = None,
        readable: Sequence[str] = ("public", "internal", "confidential"),
    ) -> None:
        super().__init__(scope, construct_id)
        problems = [
            f"readable must hold some of {', '.join(TAGS['classification'])}, got {value!r}"
            for value in readable
            if value not in TAGS["classification"]
        ]
        if not lake.governed:
            problems.append("lake must be governed=True, got False; grants bind nobody while IAM decides")
        if problems:
            raise ValueError("personas: " + "; ".join(problems))
        self.readable = tuple(readable)
        self.roles: dict[PersonaName, iam.Role] = {}
        self._tag_databases(tags, lake)
        named = {} if principals is None else principals
        for persona in PERSONAS:
            self.roles[persona] = self._role(persona, named.get(persona, ()))
            # Athena commits a change of an Iceberg table by updating its catalog entry.
            changes = ["glue:UpdateTable"] if persona == "data_engineer" else []
            self._grant_catalog(self.roles[persona], lake, changes)
        self._grant(tags)

    def _tag_databases(self, tags: LakeTags, lake: DataLake) -> None:
        resource = lakeformation.CfnTagAssociation
        for zone in (lake.raw, lake.curated, lake.features):
            if zone.database_name is None:
                continue
            tags.associate(
                self,
                f"{zone.node.id}Zone",
                resource=resource.ResourceProperty(
                    database=resource.DatabaseResourceProperty(catalog_id=ACCOUNT, name=zone.database_name)
                ),
                zone=zone.node.id.lower(),
            ).node.add_dependency(zone)

    def _role(self, persona: PersonaName, principals: Sequence[str]) -> iam.Role:
        arns = [iam.ArnPrincipal(arn) for arn in principals]
        return iam.Role(
            self,
            "".join(part.title() for part in persona.split("_")),
            description=_TITLES[persona],
            assumed_by=iam.CompositePrincipal(*arns) if arns else iam.AccountRootPrincipal(),
        )

    def _grant_catalog(self, role: iam.Role, lake: DataLake, changes: Sequence[str]) -> None:
        base = f"arn:{PARTITION}:glue:{REGION}:{ACCOUNT}"
        databases = [
            zone.database_name for zone in (lake.raw, lake.curated, lake.features) if zone.database_name
        ]
        tables = [f"{base}:table/{database}/*" for database in databases]
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "glue:GetDatabase",
                "glue:GetDatabases",
                "glue:GetTable",
                "glue:GetTables",
                "glue:GetPartition",
                "glue:GetPartitions",
                "glue:BatchGetPartition",
                *changes,
            ],
            resource_arns=[
                f"{base}:catalog",
                *(f"{base}:database/{database}" for database in databases),
                *tables,
            ],
        )
        # Lake Formation hands out credentials for what it granted; the action knows no resource (Service
        # Authorization Reference, "AWS Lake Formation").
        iam.Grant.add_to_principal(grantee=role, actions=["lakeformation:GetDataAccess"], resource_arns=["*"])
        acknowledge_wildcards(
            role,
            "Which tables and columns of these databases the role sees is decided by Lake Formation, one by "
            "one; GetDataAccess takes no resource and gives what Lake Formation granted, no more.",
            resources=[*tables, "*"],
        )

    def _grant(self, tags: LakeTags) -> None:
        def grant(
            persona: PersonaName, kind: str, permissions: Sequence[str], **values: Sequence[str]
        ) -> None:
            role = self.roles[persona]
            tags.grant(
                role,
                f"{kind.title()}s",
                principal=role.role_arn,
                permissions=permissions,
                resource_type=kind,
                **values,
            )

        every = TAGS["zone"]
        for persona, (zones, sensitivities) in READS.items():
            grant(persona, "DATABASE", ["DESCRIBE"], zone=zones)
            grant(
                persona,
                "TABLE",
                ["SELECT", "DESCRIBE"],
                zone=zones,
                classification=self.readable,
                sensitivity=sensitivities,
                rows=["all"],
            )
        grant("data_engineer", "DATABASE", ["DESCRIBE"], zone=every)
        grant("data_engineer", "TABLE", ["SELECT", "DESCRIBE", "INSERT", "DELETE", "ALTER"], zone=every)
        grant("auditor", "DATABASE", ["DESCRIBE"], zone=every)
        grant("auditor", "TABLE", ["DESCRIBE"], zone=every)
