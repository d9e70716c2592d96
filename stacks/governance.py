"""Who may see the lake of one environment, how they ask it, and the record of what they did."""

# ruff: noqa: S608 - names in the queries are our own
from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from ml_lifecycle.analysis import QueryWorkgroup, SavedQuery
from ml_lifecycle.data_lake import DataLake, Zone
from ml_lifecycle.governance import AuditTrail, LakeTags, MaskKey, PersonaName, Personas
from ml_lifecycle.security import PersonaWork

from constructs import Construct
from environments import Environment, Governance
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack


class GovernanceStack(LifecycleStack):
    """Tags, personas, their workgroups, the key of the masks, the audit trail."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        governance: Governance,
        foundation: FoundationStack,
        lake: DataLake,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Who may see the data of {environment.name}, and who did",
            termination_protection=environment.production,
        )
        named: Mapping[PersonaName, tuple[str, ...]] = {
            "data_scientist": governance.personas.data_scientist,
            "data_engineer": governance.personas.data_engineer,
            "mlops_engineer": governance.personas.mlops_engineer,
            "auditor": governance.personas.auditor,
        }
        self.tags_of_lake = LakeTags(self, "Tags", prefix=environment.name)
        self.personas = Personas(
            self,
            "Personas",
            tags=self.tags_of_lake,
            lake=lake,
            principals=named,
            readable=governance.readable,
        )
        self.mask_key = MaskKey(
            self,
            "MaskKey",
            zone=lake.curated,
            database_name=f"{environment.name}_governance",
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
        )
        key = kms.Key(
            self,
            "ResultsKey",
            description="Results of queries",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        self.results = Zone(
            self,
            "Results",
            key=key,
            access_logs=lake.access_logs,
            lifecycle_rules=[
                s3.LifecycleRule(id="Expire", expiration=cdk.Duration.days(governance.result_days))
            ],
            noncurrent_version_days=1,
            removal_policy=removal_policy,
        )
        self.workgroups: dict[PersonaName, QueryWorkgroup] = {}
        for persona, role in self.personas.roles.items():
            slug = persona.replace("_", "-")
            workgroup = QueryWorkgroup(
                self,
                f"{role.node.id}Queries",
                name=f"{environment.name}-{slug}",
                description=f"Queries of the persona {slug}",
                zone=self.results,
                prefix=f"{slug}/",
                scan_limit=cdk.Size.gibibytes(governance.scan_limit_gb),
            )
            workgroup.grant_query(role)
            self.workgroups[persona] = workgroup
            cdk.CfnOutput(self, f"{role.node.id}RoleArn", value=role.role_arn)
            cdk.CfnOutput(self, f"{role.node.id}Workgroup", value=workgroup.name)
        stage, rules = cdk.Stage.of(self), environment.security.organisation
        PersonaWork(
            self,
            "Work",
            roles=self.personas.roles,
            environment_name=environment.name,
            stack_prefix=stage.stage_name if stage is not None and stage.stage_name else environment.id,
            artifacts=lake.artifacts,
            boundary_arn=None if rules is None else rules.boundary_arn,
            studio=environment.studio is not None,
        )
        cdk.CfnOutput(self, "ResultsUri", value=self.results.uri())
        self.audit = None
        if governance.audit is not None:
            self.audit = AuditTrail(
                self,
                "Audit",
                name=f"{environment.name}-audit",
                access_logs=lake.access_logs,
                database_name=f"{environment.name}_audit",
                data_zones=lake.zones if governance.audit.data_events else (),
                retention_days=governance.audit.retention_days,
                removal_policy=removal_policy,
            )
            self.audit.grant_read(self.personas.roles["auditor"])
            self.workgroups["auditor"].save(_audit_questions(f"{environment.name}_audit"))
            cdk.CfnOutput(self, "TrailName", value=self.audit.name)
            cdk.CfnOutput(self, "TrailUri", value=self.audit.zone.uri(self.audit.prefix))
            cdk.CfnOutput(self, "AuditDatabase", value=str(self.audit.zone.database_name))


def _audit_questions(database: str) -> list[SavedQuery]:
    table = f'"{database}"."cloudtrail"'
    who = "coalesce(useridentity.sessioncontext.sessionissuer.arn, useridentity.arn, useridentity.invokedby)"
    where = "eventsource = 's3.amazonaws.com' AND eventcategory = 'Data'"
    return [
        SavedQuery(
            id="WhoReadObjects",
            name="who read or changed objects of the lake",
            description="Who did what in which bucket, how often, and whether it was refused",
            database=database,
            sql=(
                f"SELECT {who} AS who, eventname, json_extract_scalar(requestparameters, '$.bucketName') "
                f"AS bucket, errorcode, count(*) AS calls, min(eventtime) AS first_at, "
                f"max(eventtime) AS last_at "
                f"FROM {table} WHERE {where} GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2, 3"
            ),
        ),
        SavedQuery(
            id="WhoReadTables",
            name="who was let into or refused a table",
            description="For whom Lake Formation handed out credentials, for which table; who was refused",
            database=database,
            sql=(
                "SELECT json_extract_scalar(additionaleventdata, '$.lakeFormationPrincipal') AS who, "
                "json_extract_scalar(requestparameters, '$.tableArn') AS data_table, errorcode, "
                "count(*) AS calls, max(eventtime) AS last_at "
                f"FROM {table} WHERE eventname = 'GetDataAccess' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            ),
        ),
    ]
