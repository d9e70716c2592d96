"""What every stack of an environment has."""

from __future__ import annotations

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload

from constructs import Construct
from environments import Environment

ENVIRONMENT_TAG = "ml-lifecycle:environment"
WORKLOAD_TAG = "ml-lifecycle:workload"


class LifecycleStack(cdk.Stack):
    """A stack whose resources carry the tags of its environment and workload.

    The tags are on the resources, not on the stack: a changed stack tag makes CloudFormation update every
    resource, and an update of the approval parameter would write the template's value over the promoted
    one.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload | None = None,
        description: str | None = None,
        termination_protection: bool = False,
        synthesizer: cdk.IStackSynthesizer | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description=description,
            termination_protection=termination_protection,
            synthesizer=synthesizer,
        )
        tags = {ENVIRONMENT_TAG: environment.name}
        if workload is not None:
            tags[WORKLOAD_TAG] = workload.workload.name
        for key, value in tags.items():
            cdk.Tags.of(self).add(key, value, exclude_resource_types=["aws:cdk:stack"])
