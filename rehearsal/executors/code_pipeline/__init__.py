"""CodePipeline: the deployed definition is run, action by action, as the roles that it names.

Sources come from S3; one that lies outside of the rehearsal (a repository) starts nothing and is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.executors.code_pipeline import operations
from rehearsal.executors.code_pipeline.operations import started_by_an_event

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install", "operations"]


def install(runtime: Runtime) -> None:
    """Let rules of EventBridge start pipelines."""

    def start(target: dict[str, Any], event: dict[str, Any], account: str, region: str) -> None:
        del event, account
        runtime.background(f"event for {target['Arn']}", started_by_an_event, runtime, target, region)

    bridge.route_event_target(lambda arn: arn.startswith("arn:aws:codepipeline:"), start)
