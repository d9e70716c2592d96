"""From raw rows to curated rows to features: Glue jobs in a workflow."""

from __future__ import annotations

import json
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract
from ml_contract.quality.rules import dqdl

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.code import contract_file, glue_library, glue_script
from ml_lifecycle.data_lake import DataLake, Zone
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.foundation import glue_security, log_group
from ml_lifecycle.processing.engine import TabledEngine
from ml_lifecycle.processing.modules import grant_wheels, module_arguments
from ml_lifecycle.processing.zones import BatchTables
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

#: Spark 3.5, Python 3.11 (AWS Glue Developer Guide, "AWS Glue versions").
GLUE_VERSION = "5.0"
WorkerType = Literal["G.1X", "G.2X", "G.4X", "G.8X"]


class BatchTransform(TabledEngine):
    """Define how raw rows become curated rows and features.

    A Glue workflow of a crawler on the raw table (new partitions), the ``curate`` job (duplicates, quality
    rules, a report per run) and the ``build_features`` job (features zone and Feature Store). It starts
    when data lands below ``raw_prefix`` (``on_landing``: after ten objects or five minutes), on a
    ``schedule`` (EventBridge ``cron(...)`` or ``rate(...)``, UTC), and by hand. The next step starts only
    when the one before it succeeded; one run at a time.

    Defaults: Glue 5.0, two G.1X workers (4 vCPU, 16 GB each) of the standard execution class (``flex`` is
    cheaper, may start late and may be interrupted), job bookmarks off because each run reads the
    whole table, no retry because a failed quality rule fails again. Everything a job writes, its logs
    included, is encrypted with customer-managed keys. The jobs install pyiceberg, pinned, from PyPI when they
    start; ``wheels`` (``s3://bucket/key.gluewheels.zip``) is where they take it from instead. With ``labels``
    the newest label that people gave a record takes the place of its own.
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
        feature_group: FeatureGroup,
        log_key: kms.IKey,
        worker_type: WorkerType = "G.1X",
        workers: int = 2,
        execution_class: Literal["standard", "flex"] = "standard",
        timeout: cdk.Duration | None = None,
        schedule: str | None = "cron(0 2 * * ? *)",
        on_landing: bool = True,
        labels: bool = False,
        log_retention_days: int = 90,
        failure_topic: sns.ITopic | None = None,
        wheels: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # AWS Glue, CreateJob: NumberOfWorkers.
        if not 2 <= workers <= 299:
            problems.append(f"workers must be between 2 and 299, got {workers}")
        # AWS Glue Developer Guide, "Flexible execution class".
        if execution_class == "flex" and worker_type not in ("G.1X", "G.2X"):
            problems.append(
                f"execution_class flex runs on G.1X and G.2X workers, got {worker_type}; choose one of them"
            )
        if schedule is not None and not schedule.startswith(("cron(", "rate(")):
            problems.append(f"schedule must be cron(...), rate(...) or None, got {schedule!r}")
        if not raw_prefix.endswith("/"):
            problems.append(f"raw_prefix must end with '/', got {raw_prefix!r}")
        if problems:
            raise ValueError("batch transform: " + "; ".join(problems))
        self.lake, self.contract = lake, contract
        self._name_prefix, self._wheels = name_prefix, wheels
        self._raw_table = raw_table
        self.raw_prefix = raw_prefix
        self._execution_class, self._workers = execution_class, (worker_type, workers)
        self.tables = BatchTables(
            self,
            contract=contract,
            lake=lake,
            log_key=log_key,
            log_retention_days=log_retention_days,
            labels=labels,
        )
        self.ruleset = glue.CfnDataQualityRuleset(
            self,
            "Ruleset",
            name=name_prefix,
            description=f"Rules of {contract.name}, made from its contract",
            ruleset=dqdl(contract),
        )
        self.log_groups = self._log_groups(log_key, log_retention_days)
        self.security_configuration = glue_security(
            self,
            "Security",
            name=name_prefix,
            log_key=log_key,
            bookmark_key=lake.key,
            data_key=lake.key,
        )
        self.contract_asset = s3_assets.Asset(self, "Contract", path=str(contract_file(contract)))
        self.library_asset = s3_assets.Asset(self, "Library", path=str(glue_library()))
        self.crawler_role = self._crawler_role()
        self.crawler = self._crawler()

        minutes = 120 if timeout is None else int(timeout.to_minutes())
        self.curate_role = self._job_role(
            "CurateRole", "Reads raw rows, writes curated rows and quality reports"
        )
        grant_spark(self.curate_role, lake.raw, raw_prefix)
        grant_spark(self.curate_role, lake.curated, self.data_prefix, write=True)
        self.curated_table.grant_commit(self.curate_role)
        lake.artifacts.grant_write(self.curate_role, self.quality_prefix)
        lake.raw.grant_read(self.curate_role, self.tables.quarantine_prefix)
        lake.raw.grant_write(self.curate_role, self.tables.quarantine_prefix, delete=True)
        iam.Grant.add_to_principal(
            grantee=self.curate_role,
            actions=["glue:GetDataQualityRuleset"],
            resource_arns=[self._glue_arn("dataQualityRuleset", name_prefix)],
        )
        self.curate_job = self._job(
            "Curate",
            self.curate_role,
            script="curate",
            worker_type=worker_type,
            workers=workers,
            minutes=minutes,
            arguments={
                "--raw_uri": lake.raw.uri(raw_prefix),
                "--curated_uri": lake.curated.uri(self.data_prefix),
                "--curated_database": self.curated_table.database_name,
                "--curated_table": self.curated_table.name,
                "--quality_uri": lake.artifacts.uri(self.quality_prefix),
                "--quarantine_uri": lake.raw.uri(self.tables.quarantine_prefix),
                "--ruleset_name": self.ruleset.ref,
            },
        )
        self.features_role = self._job_role(
            "FeaturesRole", "Reads curated rows, writes features and feature records"
        )
        grant_spark(self.features_role, lake.curated, self.data_prefix)
        self.tables.grant_build(self.features_role)
        grant_spark(self.features_role, lake.features, self.data_prefix, write=True)
        grant_spark(self.features_role, lake.features, self.tables.snapshots_prefix, write=True)
        feature_group.grant_put_records(self.features_role)
        self.features_job = self._job(
            "BuildFeatures",
            self.features_role,
            script="build_features",
            worker_type=worker_type,
            workers=workers,
            minutes=minutes,
            arguments={
                f"--{name}": value
                for name, value in self.tables.features_arguments(feature_group.name).items()
            },
        )
        self.workflow = glue.CfnWorkflow(
            self,
            "Workflow",
            description=f"{contract.name}: crawl, curate, build features",
            max_concurrent_runs=1,
        )
        self._triggers(on_landing)
        if on_landing:
            self._start_on_landing()
        if schedule is not None:
            self._start_on_schedule(schedule)
        if failure_topic is not None:
            self._tell_failures(failure_topic)

    @property
    def workflow_name(self) -> str:
        """Name of the workflow."""
        return self.workflow.ref

    @property
    def crawler_name(self) -> str:
        """Name of the crawler."""
        return self.crawler.ref

    @property
    def ruleset_name(self) -> str:
        """Name of the data-quality ruleset."""
        return self.ruleset.ref

    @property
    def curate_job_name(self) -> str:
        """Name of the job that curates."""
        return self.curate_job.ref

    @property
    def features_job_name(self) -> str:
        """Name of the job that builds features; its success means new training data."""
        return self.features_job.ref

    @property
    def new_data_event(self) -> dict[str, object]:
        """Pattern of the event that says: there are new features."""
        return {
            "source": ["aws.glue"],
            "detail-type": ["Glue Job State Change"],
            "detail": {"jobName": [self.features_job_name], "state": ["SUCCEEDED"]},
        }

    @property
    def outputs(self) -> dict[str, str]:
        """Names under which an operator finds the engine."""
        return {
            "WorkflowName": self.workflow_name,
            "CrawlerName": self.crawler_name,
            "RulesetName": self.ruleset_name,
            "CurateQuarantineUri": self.lake.raw.uri(self.tables.quarantine_prefix),
        }

    # --- jobs -----------------------------------------------------------------------------------------------

    def _log_groups(self, key: kms.IKey, days: int) -> tuple[logs.LogGroup, ...]:
        # Glue writes to <prefix>/output and <prefix>/error (AWS Glue Developer Guide, "Logging for AWS Glue
        # jobs").
        self._log_prefix = f"/aws-glue/jobs/{self._name_prefix}"
        return tuple(
            log_group(
                self, f"{kind.title()}Logs", key=key, retention_days=days, name=f"{self._log_prefix}/{kind}"
            )
            for kind in ("output", "error")
        )

    def _glue_role(self, construct_id: str, description: str) -> iam.Role:
        return iam.Role(
            self,
            construct_id,
            description=description,
            assumed_by=service_principal("glue", own_account=True),
        )

    def _job_role(self, construct_id: str, description: str) -> iam.Role:
        role = self._glue_role(construct_id, description)
        for asset in (self.contract_asset, self.library_asset):
            _grant_asset(asset, role)
        grant_wheels(self._wheels, role)
        # With a security configuration Glue puts its name, and the role's, into the group's name, makes that
        # group and ties it to the key in the role's name (AWS Glue Developer Guide, "Security configuration
        # with continuous logging"). Both begin with our prefix, since the configuration's name does.
        groups = self._logs_arn(f"{self._log_prefix}*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
                "logs:AssociateKmsKey",
            ],
            resource_arns=[groups],
        )
        acknowledge_wildcards(
            role,
            "Glue puts the names of security configuration and role into the name of a job's log group; the "
            "wildcard begins with this workload's own prefix.",
            resources=[groups],
        )
        _grant_glue_metrics(role)
        return role

    def _job(
        self,
        construct_id: str,
        role: iam.Role,
        *,
        script: str,
        worker_type: WorkerType,
        workers: int,
        minutes: int,
        arguments: dict[str, str],
    ) -> glue.CfnJob:
        asset = s3_assets.Asset(self, f"{construct_id}Script", path=str(glue_script(script)))
        _grant_asset(asset, role)
        job = glue.CfnJob(
            self,
            construct_id,
            role=role.role_arn,
            command=glue.CfnJob.JobCommandProperty(
                name="glueetl", python_version="3", script_location=asset.s3_object_url
            ),
            glue_version=GLUE_VERSION,
            worker_type=worker_type,
            number_of_workers=workers,
            execution_class=self._execution_class.upper(),
            timeout=minutes,
            max_retries=0,
            execution_property=glue.CfnJob.ExecutionPropertyProperty(max_concurrent_runs=1),
            security_configuration=self.security_configuration.ref,
            default_arguments={
                "--job-language": "python",
                "--job-bookmark-option": "job-bookmark-disable",
                **module_arguments(self._wheels),
                "--enable-metrics": "true",
                "--enable-observability-metrics": "true",
                "--custom-logGroup-prefix": self._log_prefix,
                "--extra-py-files": self.library_asset.s3_object_url,
                "--aws_region": REGION,
                "--contract": self.contract_asset.s3_object_url,
                **arguments,
            },
        )
        job.node.add_dependency(role)
        for group in self.log_groups:
            job.node.add_dependency(group)
        return job

    def add_job(
        self, construct_id: str, *, script: str, description: str, arguments: dict[str, str], minutes: int
    ) -> tuple[iam.Role, glue.CfnJob]:
        """Define another job of this workload, outside the workflow, with a role that may read its own code.

        ``glue/<script>/main.py`` is run on as many workers as the jobs of the workflow, with their logs and
        encryption. What it reads and writes the caller grants.
        """
        role = self._job_role(f"{construct_id}Role", description)
        job = self._job(
            construct_id,
            role,
            script=script,
            worker_type=self._workers[0],
            workers=self._workers[1],
            minutes=minutes,
            arguments=arguments,
        )
        return role, job

    # --- crawler --------------------------------------------------------------------------------------------

    def _crawler_role(self) -> iam.Role:
        role = self._glue_role("CrawlerRole", "Registers new partitions of the raw table")
        grant_spark(role, self.lake.raw, self.raw_prefix)
        self.lake.raw.grant_maintain_partitions(role, self._raw_table.ref)
        group = self._logs_arn("/aws-glue/crawlers*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
                "logs:AssociateKmsKey",
            ],
            resource_arns=[group],
        )
        acknowledge(
            role,
            "IAM5[Resource::arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:/aws-glue/crawlers*]",
            "Glue makes the crawler's log group and puts role and security configuration into its name; "
            "the grant ends at Glue's own crawler groups and only lets the role write",
        )
        _grant_glue_metrics(role)
        return role

    def _crawler(self) -> glue.CfnCrawler:
        crawler = glue.CfnCrawler(
            self,
            "Crawler",
            description=f"Registers new partitions of {self.contract.name} in the raw zone",
            role=self.crawler_role.role_arn,
            crawler_security_configuration=self.security_configuration.ref,
            targets=glue.CfnCrawler.TargetsProperty(
                # A table that stands in the catalog keeps its schema: the contract says it, no crawler
                # guesses it.
                catalog_targets=[
                    glue.CfnCrawler.CatalogTargetProperty(
                        database_name=self.lake.raw.database_name, tables=[self.contract.name]
                    )
                ]
            ),
            # With a catalog target Glue takes these values only (CreateCrawler).
            schema_change_policy=glue.CfnCrawler.SchemaChangePolicyProperty(
                update_behavior="LOG", delete_behavior="LOG"
            ),
            recrawl_policy=glue.CfnCrawler.RecrawlPolicyProperty(recrawl_behavior="CRAWL_EVERYTHING"),
            configuration=json.dumps(
                {
                    "Version": 1.0,
                    "CrawlerOutput": {"Partitions": {"AddOrUpdateBehavior": "InheritFromTable"}},
                    "Grouping": {"TableGroupingPolicy": "CombineCompatibleSchemas"},
                },
                sort_keys=True,
            ),
        )
        crawler.node.add_dependency(self.crawler_role)
        crawler.add_resource_dependency(self._raw_table)
        return crawler

    # --- what starts what -----------------------------------------------------------------------------------

    def _triggers(self, on_landing: bool) -> None:
        props = glue.CfnTrigger
        start = [props.ActionProperty(crawler_name=self.crawler.ref)]
        if on_landing:
            glue.CfnTrigger(
                self,
                "OnLanding",
                type="EVENT",
                workflow_name=self.workflow.ref,
                actions=start,
                event_batching_condition=props.EventBatchingConditionProperty(
                    batch_size=10, batch_window=300
                ),
            )
        else:
            glue.CfnTrigger(
                self, "OnDemand", type="ON_DEMAND", workflow_name=self.workflow.ref, actions=start
            )
        self._after(
            "AfterCrawl",
            props.ConditionProperty(
                logical_operator="EQUALS", crawler_name=self.crawler.ref, crawl_state="SUCCEEDED"
            ),
            self.curate_job,
        )
        self._after(
            "AfterCurate",
            props.ConditionProperty(
                logical_operator="EQUALS", job_name=self.curate_job.ref, state="SUCCEEDED"
            ),
            self.features_job,
        )

    def _after(
        self, construct_id: str, condition: glue.CfnTrigger.ConditionProperty, job: glue.CfnJob
    ) -> None:
        glue.CfnTrigger(
            self,
            construct_id,
            type="CONDITIONAL",
            workflow_name=self.workflow.ref,
            start_on_creation=True,
            predicate=glue.CfnTrigger.PredicateProperty(logical="AND", conditions=[condition]),
            actions=[glue.CfnTrigger.ActionProperty(job_name=job.ref)],
        )

    def _start_on_landing(self) -> None:
        role = self._service_role("LandingRole", "events", "Tells the workflow that data landed")
        workflow_arn = self._glue_arn("workflow", self.workflow.ref)
        iam.Grant.add_to_principal(grantee=role, actions=["glue:NotifyEvent"], resource_arns=[workflow_arn])
        rule = events.CfnRule(
            self,
            "Landing",
            description=f"New objects below {self.raw_prefix} of the raw zone",
            event_pattern={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [self.lake.raw.bucket.bucket_name]},
                    "object": {"key": [{"prefix": self.raw_prefix}]},
                },
            },
            targets=[events.CfnRule.TargetProperty(id="Workflow", arn=workflow_arn, role_arn=role.role_arn)],
        )
        rule.node.add_dependency(role)

    def _start_on_schedule(self, expression: str) -> None:
        role = self._service_role("ScheduleRole", "scheduler", "Starts the workflow on its schedule")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:StartWorkflowRun"],
            resource_arns=[self._glue_arn("workflow", self.workflow.ref)],
        )
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Runs the workflow of {self.contract.name}",
            schedule_expression=expression,
            schedule_expression_timezone="UTC",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=f"arn:{PARTITION}:scheduler:::aws-sdk:glue:startWorkflowRun",
                role_arn=role.role_arn,
                input=json.dumps({"Name": self.workflow.ref}),
            ),
        )
        schedule.node.add_dependency(role)

    def _tell_failures(self, topic: sns.ITopic) -> None:
        events.CfnRule(
            self,
            "Failures",
            description=f"Glue jobs of {self.contract.name} that failed or ran too long",
            event_pattern={
                "source": ["aws.glue"],
                "detail-type": ["Glue Job State Change"],
                "detail": {
                    "jobName": [self.curate_job.ref, self.features_job.ref],
                    "state": ["FAILED", "TIMEOUT"],
                },
            },
            targets=[events.CfnRule.TargetProperty(id="Topic", arn=topic.topic_arn)],
        )

    def _service_role(self, construct_id: str, service: str, description: str) -> iam.Role:
        return iam.Role(
            self,
            construct_id,
            description=description,
            assumed_by=service_principal(service, own_account=True),
        )

    # --- surface --------------------------------------------------------------------------------------------

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting the workflow and looking at its runs."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=[
                "glue:StartWorkflowRun",
                "glue:GetWorkflow",
                "glue:GetWorkflowRun",
                "glue:GetWorkflowRuns",
            ],
            resource_arns=[self._glue_arn("workflow", self.workflow.ref)],
        )

    def metric_job(
        self,
        job: Literal["curate", "build_features"],
        metric_name: str,
        *,
        period: cdk.Duration | None = None,
    ) -> cloudwatch.Metric:
        """Return a metric of all runs of a job, e.g. ``glue.driver.aggregate.elapsedTime`` (milliseconds)."""
        name = self.curate_job_name if job == "curate" else self.features_job_name
        return cloudwatch.Metric(
            namespace="Glue",
            metric_name=metric_name,
            dimensions_map={"JobName": name, "JobRunId": "ALL", "Type": "count"},
            statistic="Sum",
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    def _glue_arn(self, kind: str, name: str) -> str:
        return f"arn:{PARTITION}:glue:{REGION}:{ACCOUNT}:{kind}/{name}"

    def _logs_arn(self, name: str) -> str:
        return f"arn:{PARTITION}:logs:{REGION}:{ACCOUNT}:log-group:{name}"


def grant_spark(role: iam.Role, zone: Zone, prefix: str, *, write: bool = False) -> None:
    """Grant Spark, and a crawler, reading below ``prefix`` and, with ``write``, replacing what is there."""
    zone.grant_read(role, prefix)
    if write:
        zone.grant_write(role, prefix, delete=True)
    zone.grant_folder(role, prefix, write=write)


def _grant_asset(asset: s3_assets.Asset, grantee: iam.IGrantable) -> None:
    """Grant reading one asset; the CDK's own ``grant_read`` opens the whole bucket of assets."""
    arn = f"arn:{PARTITION}:s3:::{asset.s3_bucket_name}/{asset.s3_object_key}"
    iam.Grant.add_to_principal(grantee=grantee, actions=["s3:GetObject"], resource_arns=[arn])


def _grant_glue_metrics(role: iam.Role) -> None:
    iam.Grant.add_to_principal(
        grantee=role,
        actions=["cloudwatch:PutMetricData"],
        resource_arns=["*"],
        conditions={"StringEquals": {"cloudwatch:namespace": "Glue"}},
    )
    acknowledge(
        role,
        "IAM5[Resource::*]",
        "PutMetricData has no resource to name; the condition on the namespace ends the grant at Glue's own",
    )
