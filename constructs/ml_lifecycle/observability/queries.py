"""Questions that an operator asks of the logs, written down before he needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aws_cdk import aws_logs as logs

from constructs import Construct

__all__ = ["QUERIES", "Query", "SavedQueries"]

#: What writes the lines that a query reads. ``everything`` is what the operator chooses.
Source = Literal["ingestion", "decisions", "serving", "jobs", "everything"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """One question: its text, and whose logs it reads."""

    text: str
    reads: tuple[Source, ...]


#: By name. The lines are those of ``function_log`` and of the images: JSON with ``level``, ``message`` and
#: ``correlation_id``.
QUERIES: Mapping[str, Query] = {
    "failures": Query(
        reads=("ingestion", "decisions"),
        text=(
            "fields @timestamp, correlation_id, message, error, why, @log\n"
            '| filter level = "ERROR" or level = "WARNING"\n'
            "| sort @timestamp desc\n"
            "| limit 200"
        ),
    ),
    "follow one id": Query(
        reads=("ingestion", "decisions", "serving", "everything"),
        text=(
            "fields @timestamp, message, level, correlation_id, @log\n"
            "| filter @message like /REPLACE-WITH-THE-ID/\n"
            "| sort @timestamp asc\n"
            "| limit 1000"
        ),
    ),
    "quarantined records": Query(
        reads=("ingestion",),
        text=(
            "fields @timestamp, quarantined, received, quarantine, workload\n"
            "| filter quarantined > 0\n"
            "| sort @timestamp desc\n"
            "| limit 200"
        ),
    ),
    "quarantined per hour": Query(
        reads=("ingestion",),
        text=(
            "filter quarantined > 0\n"
            "| stats sum(quarantined) as refused, sum(received) as received by bin(1h)"
        ),
    ),
    "slow predictions": Query(
        reads=("serving",),
        text=(
            "fields @timestamp, correlation_id, milliseconds, failed, name\n"
            '| filter message = "span"\n'
            "| sort milliseconds desc\n"
            "| limit 100"
        ),
    ),
    "decisions": Query(
        reads=("decisions",),
        text=(
            "fields @timestamp, message, action, why, package, correlation_id\n"
            '| filter level = "INFO"\n'
            "| sort @timestamp desc\n"
            "| limit 200"
        ),
    ),
    "costly functions": Query(
        reads=("ingestion", "decisions"),
        text=(
            'filter @type = "REPORT"\n'
            "| stats sum(@billedDuration) as billed_ms, count(*) as runs, max(@maxMemoryUsed) as memory "
            "by @log"
        ),
    ),
    "long jobs": Query(
        reads=("jobs",),
        text=(
            "fields @timestamp, job, seconds, correlation_id\n"
            '| filter message = "job ended"\n'
            "| sort seconds desc\n"
            "| limit 50"
        ),
    ),
}
#: Logs Insights, PutQueryDefinition: log groups of one definition.
_MOST_GROUPS = 50


class SavedQueries(Construct):
    """Define the queries that read what some sources write, in Logs Insights below ``folder``.

    ``groups`` are the names of each source's log groups. A query is saved once and reads the groups of all
    its sources that are given: an account keeps 1,000 queries in a Region and no more (CloudWatch Logs,
    Quotas), so each source of a hundred workloads cannot have its own. Where none of its groups is known it
    reads those that the operator chooses. Saved queries cost nothing; what a query scans does (CloudWatch
    pricing).
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, folder: str, groups: Mapping[Source, Sequence[str]]
    ) -> None:
        super().__init__(scope, construct_id)
        for name, query in QUERIES.items():
            if not any(source in groups for source in query.reads):
                continue
            read = list(dict.fromkeys(group for source in query.reads for group in groups.get(source, ())))
            if len(read) > _MOST_GROUPS:
                raise ValueError(f"groups of {name!r} must be at most {_MOST_GROUPS}, got {len(read)}")
            logs.CfnQueryDefinition(
                self,
                "".join(word.title() for word in name.split()),
                name=f"{folder}/{name}",
                query_string=query.text,
                log_group_names=read or None,
            )
