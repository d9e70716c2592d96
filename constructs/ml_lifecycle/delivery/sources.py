"""Where the code that is delivered comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_codepipeline_actions as actions
from aws_cdk import aws_s3 as s3
from aws_cdk import pipelines

from constructs import Construct

__all__ = ["CodeCommitSource", "ConnectionSource", "S3Source", "Source"]


@dataclass(frozen=True, kw_only=True)
class ConnectionSource:
    """A branch on GitHub, GitLab, Bitbucket or Azure DevOps, through AWS CodeConnections.

    The connection is made once, by hand, in the console: its owner must agree at the provider.
    """

    connection_arn: str
    repository: str
    branch: str = "main"

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
        _refuse_branch(problems, self.branch)
        _refuse(problems)

    def input(self, scope: Construct) -> pipelines.CodePipelineSource:  # noqa: ARG002
        """Source action of the pipeline."""
        return pipelines.CodePipelineSource.connection(
            self.repository, self.branch, connection_arn=self.connection_arn
        )


@dataclass(frozen=True, kw_only=True)
class CodeCommitSource:
    """A branch of an existing CodeCommit repository in the pipeline's account and Region."""

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


@dataclass(frozen=True, kw_only=True)
class S3Source:
    """A zip in an existing, versioned bucket that is polled, for code that arrives from elsewhere."""

    bucket_name: str
    key: str = "source.zip"

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket_name):
            problems.append(f"bucket_name must be the name of a bucket, got {self.bucket_name!r}")
        if not self.key or self.key.startswith("/"):
            problems.append(f"key must not be empty or start with a slash, got {self.key!r}")
        _refuse(problems)

    def input(self, scope: Construct) -> pipelines.CodePipelineSource:
        """Source action of the pipeline."""
        bucket = s3.Bucket.from_bucket_name(scope, "Source", self.bucket_name)
        # Polling: an event would need a trail with data events of that bucket.
        return pipelines.CodePipelineSource.s3(bucket, self.key, trigger=actions.S3Trigger.POLL)


Source = ConnectionSource | CodeCommitSource | S3Source


def _refuse_branch(problems: list[str], branch: str) -> None:
    if not re.fullmatch(r"[^\s~^:?*\[\\]+", branch):
        problems.append(f"branch must be the name of a branch, got {branch!r}")


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))
