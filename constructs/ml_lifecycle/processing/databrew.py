"""The raw table in DataBrew: a profile on a schedule, and a project for people who look at it by hand."""

from __future__ import annotations

import json
import re
from typing import Any

from aws_cdk import aws_databrew as databrew
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from ml_contract.compiled import Column, CompiledContract

from constructs import Construct
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.pseudo import ACCOUNT, arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["DataBrewProfile"]


class DataBrewProfile(Construct):
    """Define a DataBrew profile of the raw table, on a schedule, judged by the contract.

    A dataset on the raw table; a ruleset of the contract's ranges; a profile job that
    describes every column and validates it by the ruleset; a schedule. Beside it a project, for people who
    look at data in the console: its recipe begins by deleting the columns that identify a person. Results lie
    below ``<slug>/profile/`` of the artifacts zone, encrypted with its key.

    Default: a sample of 20,000 rows, every Sunday at four (UTC), five nodes at most, two hours at most.
    ``sample_rows`` None profiles every row.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        name_prefix: str,
        lake: DataLake,
        raw_table: glue.CfnTable,
        raw_prefix: str,
        schedule: str = "cron(0 4 ? * SUN *)",
        sample_rows: int | None = 20_000,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # CreateSchedule, CronExpression: DataBrew knows no rates.
        if not re.fullmatch(r"cron\([^()]+\)", schedule):
            problems.append(f"schedule must be cron(...), got {schedule!r}")
        if sample_rows is not None and sample_rows < 1:
            problems.append(f"sample_rows must be at least 1 or None for all, got {sample_rows}")
        if problems:
            raise ValueError("DataBrew profile: " + "; ".join(problems))
        self.prefix = f"{contract.slug}/profile/"
        self.role = self._role(lake, raw_table, raw_prefix)
        database = lake.raw.database_name
        if database is None:
            raise ValueError("DataBrew profile: the lake's raw zone must have a database_name, got None")
        props = databrew.CfnDataset
        self.dataset = databrew.CfnDataset(
            self,
            "Dataset",
            name=f"{name_prefix}-raw",
            input=props.InputProperty(
                data_catalog_input_definition=props.DataCatalogInputDefinitionProperty(
                    catalog_id=ACCOUNT, database_name=database, table_name=raw_table.ref
                )
            ),
        )
        dataset_arn = arn("databrew", f"dataset/{self.dataset.ref}")
        rules = [rule for column in contract.columns for rule in _rules(column)]
        self.ruleset: databrew.CfnRuleset | None = None
        if rules:
            self.ruleset = databrew.CfnRuleset(
                self,
                "Ruleset",
                name=f"{name_prefix}-ranges",
                description=f"What the contract of {contract.name} promises of its numbers",
                target_arn=dataset_arn,
                rules=rules,
            )
        self.job = self._job(f"{name_prefix}-profile", lake, sample_rows)
        self.schedule = databrew.CfnSchedule(
            self,
            "Schedule",
            name=f"{name_prefix}-profile",
            cron_expression=schedule,
            job_names=[self.job.ref],
        )
        self._project(f"{name_prefix}-look", contract)

    def _rule_configurations(self) -> list[Any] | None:
        if self.ruleset is None:
            return None
        return [
            databrew.CfnJob.ValidationConfigurationProperty(
                ruleset_arn=arn("databrew", f"ruleset/{self.ruleset.ref}"), validation_mode="CHECK_ALL"
            )
        ]

    def _job(self, name: str, lake: DataLake, sample_rows: int | None) -> databrew.CfnJob:
        props = databrew.CfnJob
        sample = props.JobSampleProperty(mode="FULL_DATASET")
        if sample_rows is not None:
            sample = props.JobSampleProperty(mode="CUSTOM_ROWS", size=sample_rows)
        job = databrew.CfnJob(
            self,
            "Job",
            name=name,
            type="PROFILE",
            role_arn=self.role.role_arn,
            dataset_name=self.dataset.ref,
            job_sample=sample,
            max_capacity=5,
            max_retries=0,
            timeout=120,
            log_subscription="ENABLE",
            encryption_mode="SSE-KMS",
            encryption_key_arn=lake.artifacts.key.key_arn,
            output_location=props.OutputLocationProperty(
                bucket=lake.artifacts.bucket.bucket_name, key=self.prefix
            ),
            validation_configurations=self._rule_configurations(),
        )
        job.node.add_dependency(self.role)
        return job

    def _project(self, name: str, contract: CompiledContract) -> None:
        personal = [column.name for column in contract.columns if column.sensitive == "pii"]
        steps = databrew.CfnRecipe
        self.recipe = databrew.CfnRecipe(
            self,
            "Recipe",
            name=name,
            description="Begins without what identifies a person or a delivery",
            steps=[
                steps.RecipeStepProperty(
                    action=steps.ActionProperty(
                        operation="DELETE",
                        parameters={"sourceColumns": json.dumps([*personal, "record_id", "received_at"])},
                    )
                )
            ],
        )
        self.project = databrew.CfnProject(
            self,
            "Project",
            name=name,
            dataset_name=self.dataset.ref,
            recipe_name=self.recipe.ref,
            role_arn=self.role.role_arn,
            sample=databrew.CfnProject.SampleProperty(type="RANDOM", size=500),
        )
        self.project.node.add_dependency(self.role)

    def _role(self, lake: DataLake, raw_table: glue.CfnTable, raw_prefix: str) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            description="Reads the raw table for DataBrew, writes its profiles",
            assumed_by=service_principal("databrew", own_account=True),
        )
        lake.raw.grant_read(role, raw_prefix)
        lake.raw.grant_describe_table(role, raw_table.ref)
        database = lake.raw.database_name
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:GetDatabase", "glue:GetPartitions"],
            resource_arns=[
                arn("glue", "catalog"),
                arn("glue", f"database/{database}"),
                arn("glue", f"table/{database}/{raw_table.ref}"),
            ],
        )
        lake.artifacts.grant_write(role, self.prefix)
        # DataBrew looks whether the result of an earlier run is there.
        lake.artifacts.grant_read(role, self.prefix)
        groups = arn("logs", "log-group:/aws-glue-databrew/*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            resource_arns=[groups],
        )
        acknowledge_wildcards(
            role,
            "DataBrew names its log groups itself; the wildcard begins with its own prefix.",
            resources=[groups],
        )
        return role


def _rules(column: Column) -> list[databrew.CfnRuleset.RuleProperty]:
    """The range that the contract gives a column (DataBrew Developer Guide, "Available checks")."""
    low, high = column.minimum, column.maximum
    if low is None and high is None:
        return []
    if low is not None and high is not None:
        expression = ":col1 is_between :val1 and :val2"
    else:
        expression = f":col1 {'>=' if low is not None else '<='} :val1"
    values = [bound for bound in (low, high) if bound is not None]
    props = databrew.CfnRuleset
    numbers = {f":val{i}": f"{value:g}" for i, value in enumerate(values, 1)}
    return [
        props.RuleProperty(
            name=f"range of {column.name}",
            check_expression=expression,
            substitution_map=[
                props.SubstitutionValueProperty(value_reference=name, value=value)
                for name, value in {":col1": f"`{column.name}`", **numbers}.items()
            ],
        )
    ]
