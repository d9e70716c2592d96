"""Texts of a workload that Comprehend is asked about: the enrichment, its upkeep, who sees what it found."""

from __future__ import annotations

from ml_contract.load import LoadedWorkload
from ml_lifecycle.analysis import SavedQuery, sentiment_by_label
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.processing import TextEnrichment, Transform

from constructs import Construct
from environments import Environment
from stacks.foundation import FoundationStack
from stacks.governance import GovernanceStack
from stacks.table_upkeep import table_upkeep
from stacks.workload_governance import govern_table

__all__ = ["text_enrichment"]


def text_enrichment(
    scope: Construct,
    *,
    environment: Environment,
    workload: LoadedWorkload,
    foundation: FoundationStack,
    lake: DataLake,
    batch: Transform,
    governance: GovernanceStack | None,
) -> TextEnrichment | None:
    """Define the enrichment that the workload wants; ``None`` where it wants none."""
    spec, contract = workload.workload, workload.compiled
    wanted = spec.batch.enrich
    if wanted is None:
        return None
    made = TextEnrichment(
        scope,
        "Texts",
        contract=contract,
        name_prefix=f"{environment.name}-{spec.slug}",
        lake=lake,
        curated_table=batch.curated_table,
        field=wanted.field,
        language=wanted.language,
        sentiment=wanted.sentiment,
        entities=wanted.entities,
        most_texts=wanted.most_texts,
        started_by=batch.new_data_event,
        log_key=foundation.keys.logs,
        log_retention_days=environment.retention.log_days,
        alarm_topic=foundation.notices.topic,
    )
    table_upkeep(scope, "TextsUpkeep", environment, made.table)
    if governance is None:
        return made
    sensitive = {"entities": "pii"}  # names of people and places, word by word
    if (mark := contract.by_name[contract.identifier].sensitive) is not None:
        sensitive["identifier"] = mark
    govern_table(
        scope,
        "TextsGovernance",
        workload=workload,
        governance=governance,
        zone=lake.curated,
        table_name=f"{contract.name}_texts",
        columns=[name for name, _ in made.table.columns],
        sensitive=sensitive,
        depends_on=[made.table],
    )
    if wanted.sentiment:
        asked: SavedQuery = sentiment_by_label(contract, curated=str(lake.curated.database_name))
        governance.workgroups["data_engineer"].save([asked], scope=made)
    return made
