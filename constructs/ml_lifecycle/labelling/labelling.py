"""Labelling with the engine that the workload names."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.labelling.ground_truth import GroundTruthLabelling
from ml_lifecycle.labelling.own import OwnLabelling

__all__ = ["Labelling"]


class Labelling(Construct):
    """Define how people label what the model is not sure of, with the engine of ``labelling.engine``.

    ``own`` (the default) is ``OwnLabelling``: anyone can run it. ``ground_truth`` is
    ``GroundTruthLabelling``, for accounts that used SageMaker Ground Truth before it closed to new ones
    (2026-07-30). Either way labels become rows of ``<database of curated>.<workload>_labels``, so that what
    reads them does not know the engine.

    ``capture_prefix`` is where data capture of the workload's endpoint writes, below ``artifacts``. The table
    of items and the user pool are retained unless ``removal_policy`` says otherwise.

    Example::

        Labelling(
            self, "Labelling",
            workload=workload, name_prefix="dev-claims-fraud", curated=lake.curated, artifacts=lake.artifacts,
            capture_prefix="claims-fraud/capture/", data_key=keys.data_key, message_key=keys.messages,
            log_key=keys.logs,
        )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        name_prefix: str,
        curated: Zone,
        artifacts: Zone,
        capture_prefix: str,
        data_key: kms.IKey,
        message_key: kms.IKey,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        rules = workload.workload.labelling
        if rules is None:
            raise ValueError(
                f"{workload.name} must have a labelling block, got none; add it or leave this out"
            )
        engine = OwnLabelling if rules.engine == "own" else GroundTruthLabelling
        self.engine: OwnLabelling | GroundTruthLabelling = engine(
            self,
            "Own" if rules.engine == "own" else "GroundTruth",
            workload=workload,
            name_prefix=name_prefix,
            curated=curated,
            artifacts=artifacts,
            capture_prefix=capture_prefix,
            data_key=data_key,
            message_key=message_key,
            log_key=log_key,
            log_retention_days=log_retention_days,
            alarm_topic=alarm_topic,
            removal_policy=removal_policy,
        )

    @property
    def label_table_name(self) -> str:
        """``database.table`` of the labels."""
        return self.engine.label_table_name

    @property
    def state_machine_arn(self) -> str:
        """The state machine: of one item (own) or of one labelling job (Ground Truth)."""
        return self.engine.state_machine.attr_arn

    def outputs(self) -> dict[str, str]:
        """What an operator needs to know, by the names of stack outputs."""
        own = self.engine
        shared = {
            "LabelTableName": self.label_table_name,
            "LabelUri": own.landing.uri,
            "LabelStateMachine": self.state_machine_arn,
            "LabelQueue": own.landing.queue.queue_url,
            "ItemTableName": own.items.name,
        }
        if isinstance(own, GroundTruthLabelling):
            return shared
        return {
            **shared,
            "ReviewUrl": own.site.url,
            "ReviewApiId": own.site.api.ref,
            "UserPoolId": own.site.pool.ref,
            "UserPoolClientId": own.site.client.ref,
            "SignInUrl": own.site.sign_in_url,
            "RouterFunction": own.router.function_name,
        }

    def grant_request(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for labels of records that nobody has labelled."""
        return self.engine.grant_request(grantee)
