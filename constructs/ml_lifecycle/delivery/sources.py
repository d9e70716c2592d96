"""Where the code that is delivered comes from, and what starts a delivery."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_codepipeline_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_s3 as s3
from aws_cdk import pipelines

from constructs import Construct

__all__ = ["CodeCommitSource", "ConnectionSource", "S3Source", "Source"]

#: Name of the source action of a connection; triggers name it.
_ACTION = "Source"
#: AWS CodePipeline, "Quotas": filters of one kind in a trigger.
_MOST_TAGS = 8


@dataclass(frozen=True, kw_only=True)
class ConnectionSource:
    """A branch on GitHub, GitLab, Bitbucket or Azure DevOps, through AWS CodeConnections.

    The connection is made once, by hand, in the console: its owner must agree at the provider.

    ``tags`` deliver releases instead of commits: a delivery begins when a tag is pushed that fits one of the
    patterns (``v*``), with the commit that it names. Without any, each push to ``branch`` begins one.
    """

    connection_arn: str
    repository: str
    branch: str = "main"
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        problems = []
        # Connections made before the rename of CodeStar Connections keep their ARNs.
        if not re.fullmatch(
            r"arn:aws[a-z-]*:(codeconnections|codestar-connections):[a-z0-9-]+:[0-9]{12}:connection/[0-9a-f-]+",
            self.connection_arn,
        ):
            problems.append(f"connection_arn must be the ARN of a connection, got {self.connection_arn!r}")
        if not re.fullmatch(r"[^/\s]+(/[^/\s]+)+", self.repository):
            problems.append(f"repository must look like owner/name, got {self.repository!r}")
        if isinstance(self.tags, str) or len(self.tags) > _MOST_TAGS:
            problems.append(f"tags must be a list of at most {_MOST_TAGS} patterns, got {self.tags!r}")
        else:
            problems += [
                f"tags must hold patterns of 1 to 255 characters without spaces, got {tag!r}"
                for tag in self.tags
                if not re.fullmatch(r"\S{1,255}", tag)
            ]
        _refuse_branch(problems, self.branch)
        _refuse(problems)

    def input(self, scope: Construct) -> pipelines.CodePipelineSource:  # noqa: ARG002
        """Source action of the pipeline."""
        return pipelines.CodePipelineSource.connection(
            self.repository,
            self.branch,
            connection_arn=self.connection_arn,
            action_name=_ACTION,
            # A filter on tags takes the place of the push to the branch.
            trigger_on_push=not self.tags,
        )

    def start(self, scope: Construct, pipeline: codepipeline.Pipeline) -> None:  # noqa: ARG002
        """Have the source start the pipeline where its action does not by itself."""
        if not self.tags:
            return
        declared = pipeline.node.default_child
        assert isinstance(declared, codepipeline.CfnPipeline)
        # CDK Pipelines makes the source action itself, so that the trigger can only name it.
        declared.add_property_override(
            "Triggers",
            [
                {
                    "ProviderType": "CodeStarSourceConnection",
                    "GitConfiguration": {
                        "SourceActionName": _ACTION,
                        "Push": [{"Tags": {"Includes": list(self.tags)}}],
                    },
                }
            ],
        )


@dataclass(frozen=True, kw_only=True)
class CodeCommitSource:
    """A branch of an existing CodeCommit repository in the pipeline's account and Region.

    CodePipeline follows branches of CodeCommit, not tags: keep a branch that releases are merged to.
    """

    repository_name: str
    branch: str = "main"

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"[\w.-]{1,100}", self.repository_name):
            problems.append(
                "repository_name must be 1 to 100 letters, digits, dots, dashes and underscores, "
                f"got {self.repository_name!r}"
            )
        _refuse_branch(problems, self.branch)
        _refuse(problems)

    def input(self, scope: Construct) -> pipelines.CodePipelineSource:
        """Source action of the pipeline."""
        repository = codecommit.Repository.from_repository_name(scope, "Repository", self.repository_name)
        return pipelines.CodePipelineSource.code_commit(
            repository, self.branch, trigger=actions.CodeCommitTrigger.EVENTS
        )

    def start(self, scope: Construct, pipeline: codepipeline.Pipeline) -> None:
        """Its action has its own rule."""


@dataclass(frozen=True, kw_only=True)
class S3Source:
    """A zip in an existing bucket, for code that arrives from elsewhere.

    The bucket must be versioned, and its events must go to EventBridge (``EventBridgeConfiguration``): a new
    version of the object begins a delivery. ``kms_key_arn`` is the key that encrypts it, where there is one.
    """

    bucket_name: str
    key: str = "source.zip"
    kms_key_arn: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket_name):
            problems.append(f"bucket_name must be the name of a bucket, got {self.bucket_name!r}")
        if not self.key or self.key.startswith("/"):
            problems.append(f"key must not be empty or start with a slash, got {self.key!r}")
        if self.kms_key_arn is not None and not re.fullmatch(
            r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[\w-]+", self.kms_key_arn
        ):
            problems.append(f"kms_key_arn must be the ARN of a key or None, got {self.kms_key_arn!r}")
        _refuse(problems)

    def input(self, scope: Construct) -> pipelines.CodePipelineSource:
        """Source action of the pipeline."""
        from aws_cdk import aws_kms as kms

        key = None if self.kms_key_arn is None else kms.Key.from_key_arn(scope, "SourceKey", self.kms_key_arn)
        bucket = s3.Bucket.from_bucket_attributes(
            scope, "Source", bucket_name=self.bucket_name, encryption_key=key
        )
        # The CDK's own events would come from a trail with data events of that bucket; `start` needs none.
        return pipelines.CodePipelineSource.s3(bucket, self.key, trigger=actions.S3Trigger.NONE)

    def start(self, scope: Construct, pipeline: codepipeline.Pipeline) -> None:
        """Start the pipeline when a new version of the object is there."""
        events.Rule(
            scope,
            "SourceArrived",
            description=f"s3://{self.bucket_name}/{self.key} begins a delivery",
            event_pattern=events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={"bucket": {"name": [self.bucket_name]}, "object": {"key": [self.key]}},
            ),
            targets=[targets.CodePipeline(pipeline)],
        )


Source = ConnectionSource | CodeCommitSource | S3Source


def _refuse_branch(problems: list[str], branch: str) -> None:
    if not re.fullmatch(r"[^\s~^:?*\[\\]+", branch):
        problems.append(f"branch must be the name of a branch, got {branch!r}")


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))
