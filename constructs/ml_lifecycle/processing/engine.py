"""What the batch engines share: where their rows lie, who may read them, how they are started."""

from __future__ import annotations

from aws_cdk import aws_iam as iam

from constructs import Construct
from ml_lifecycle.data_lake import IcebergTable
from ml_lifecycle.processing.workflow import BatchWorkflow
from ml_lifecycle.processing.zones import BatchTables

__all__ = ["TabledEngine", "WorkflowEngine"]


class TabledEngine(Construct):
    """A batch engine over the tables that every engine makes; it sets ``tables``."""

    tables: BatchTables

    @property
    def curated_table(self) -> IcebergTable:
        """The curated rows."""
        return self.tables.curated

    @property
    def data_prefix(self) -> str:
        """Prefix of the curated and of the features zone."""
        return self.tables.data_prefix

    @property
    def quality_prefix(self) -> str:
        """Prefix of the reports in the artifacts zone."""
        return self.tables.quality_prefix

    @property
    def features_uri(self) -> str:
        """Where the feature rows lie."""
        return self.tables.features_uri

    def grant_read_features(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the feature rows."""
        return self.tables.lake.features.grant_read(grantee, self.data_prefix)


class WorkflowEngine(TabledEngine):
    """A batch engine whose jobs a Step Functions state machine starts; it sets ``workflow``."""

    workflow: BatchWorkflow

    @property
    def state_machine_arn(self) -> str:
        """ARN of the state machine."""
        return self.workflow.state_machine.ref

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting the workflow and looking at its runs."""
        return self.workflow.grant_start(grantee)
