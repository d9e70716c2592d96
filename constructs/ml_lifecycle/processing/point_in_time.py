"""Training sets of labels and of features as they were known at a moment."""

from __future__ import annotations

from aws_cdk import aws_iam as iam

from constructs import Construct
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.processing.batch import BatchTransform, grant_spark
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION

__all__ = ["PointInTime"]


class PointInTime(Construct):
    """Define the Glue job that joins labels with the history of a feature group (``glue/point_in_time``).

    For each label row it takes the newest feature record whose event is not after the label's moment and,
    with ``--cutoff``, that had been written by then. Labels lie below ``labels_prefix`` of the features zone,
    training sets go below ``target_prefix``, a folder each; a pipeline execution takes one as its
    ``FeaturesUri``. The job is started by hand or by whoever ``grant_start`` lets (two hours at most unless
    ``minutes`` says otherwise); it has the workers, the logs and the encryption of the batch jobs beside it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        batch: BatchTransform,
        feature_group: FeatureGroup,
        minutes: int = 120,
    ) -> None:
        super().__init__(scope, construct_id)
        # AWS Glue, CreateJob: Timeout, 1 to 10,080 minutes.
        if not 1 <= minutes <= 10_080:
            raise ValueError(f"minutes must be between 1 and 10080, got {minutes}")
        zone = batch.lake.features
        slug = batch.contract.slug
        self.labels_prefix = f"{slug}/point-in-time/labels/"
        self.target_prefix = f"{slug}/point-in-time/sets/"
        self.role, self.job = batch.add_job(
            "PointInTime",
            script="point_in_time",
            description="Joins labels with features as they were known at a moment",
            minutes=minutes,
            arguments={
                "--labels_uri": zone.uri(self.labels_prefix),
                "--feature_group_name": feature_group.name,
                "--target_uri": zone.uri(f"{self.target_prefix}latest/"),
            },
        )
        grant_spark(self.role, zone, self.labels_prefix)
        grant_spark(self.role, zone, self.target_prefix, write=True)
        grant_spark(self.role, zone, feature_group.offline_prefix)
        feature_group.grant_read_history(self.role)
        self.labels_uri = zone.uri(self.labels_prefix)
        self.target_uri = zone.uri(self.target_prefix)

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting the job and looking at its runs."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns"],
            resource_arns=[f"arn:{PARTITION}:glue:{REGION}:{ACCOUNT}:job/{self.job.ref}"],
        )
