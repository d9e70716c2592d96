"""What anyone asks of a workload's tables, made from its contract."""

# ruff: noqa: S608 - names in the queries come from a checked contract
from __future__ import annotations

from ml_contract.compiled import Column, CompiledContract

from ml_lifecycle.analysis.athena import SavedQuery

#: Fields with more different values than this say nothing in a table of shares; those are left out.
_MOST_FIELDS = 60


def questions(
    contract: CompiledContract, *, raw: str, curated: str, quarantine: str | None = None
) -> list[SavedQuery]:
    """Return the saved queries of a workload over its tables in the databases named.

    Rows per month, missing values per field, balance of the label, drift of numbers by month and, with
    a ``quarantine`` table, the reasons of refusal. None of them reads a field that identifies a person.
    """
    name = contract.name
    rows = f'"{curated}"."{name}"'
    month = f"date_format(CAST({_quoted(contract.event_time)} AS timestamp), '%Y-%m')"

    def query(query_id: str, title: str, description: str, database: str, sql: str) -> SavedQuery:
        return SavedQuery(
            id=query_id, name=f"{name}: {title}", description=description, database=database, sql=sql
        )

    seen = [column for column in contract.columns if column.sensitive != "pii"]
    found = [
        query(
            "RowsPerMonth",
            "rows per month",
            "Curated rows by month of the event",
            curated,
            f"SELECT {month} AS month, count(*) AS number_of_rows FROM {rows} GROUP BY 1 ORDER BY 1",
        ),
        query(
            "MissingValues",
            "missing values",
            "Share of curated rows without a value, per field",
            curated,
            _missing(seen[:_MOST_FIELDS], rows),
        ),
        query(
            "LabelBalance",
            "label by month",
            "How often each value of the label stands, by month of the event",
            curated,
            _label(contract, rows, month),
        ),
    ]
    numbers = [c for c in seen if c.type in ("integer", "number") and c.name != contract.identifier]
    if numbers:
        found.append(
            query(
                "DriftByMonth",
                "drift by month",
                "Mean and spread of each number by month, and how far the mean is from that of all months",
                curated,
                _drift(numbers[:_MOST_FIELDS], rows, month),
            )
        )
    if quarantine is not None:
        found.append(
            query(
                "QuarantineReasons",
                "reasons of refusal",
                "Why records were refused at the door, and how many",
                raw,
                f"SELECT reason.field AS field, reason.message AS message, count(*) AS records "
                f'FROM "{raw}"."{quarantine}" CROSS JOIN UNNEST(reasons) AS r(reason) '
                f"GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 50",
            )
        )
    return found


def sentiment_by_label(contract: CompiledContract, *, curated: str) -> SavedQuery:
    """Return the saved query that sets the sentiment of texts (``TextEnrichment``) beside the label."""
    label = f"c.{_quoted(contract.label.field)}"
    shown = f"CAST({label} AS varchar)"
    if contract.label.task == "regression":
        shown = f"CASE WHEN {label} IS NULL THEN 'none' ELSE 'known' END"
    mean = f", avg({label}) AS mean_label" if contract.label.task == "regression" else ""
    return SavedQuery(
        id="SentimentByLabel",
        name=f"{contract.name}: sentiment by label",
        description="How texts sound for each value of the label; texts without an answer count as none",
        database=curated,
        sql=f"SELECT {shown} AS label, coalesce(t.sentiment, 'none') AS sentiment, count(*) AS texts, "
        f"avg(t.negative) AS mean_negative{mean} "
        f'FROM "{curated}"."{contract.name}_texts" t '
        f'JOIN "{curated}"."{contract.name}" c ON c.{_quoted(contract.identifier)} = t.identifier '
        f"GROUP BY 1, 2 ORDER BY 1, 3 DESC",
    )


def _quoted(name: str) -> str:
    return f'"{name}"'


def _missing(columns: list[Column], rows: str) -> str:
    shares = ", ".join(
        f"1.0 - count({_quoted(c.name)}) / CAST(count(*) AS double) AS {_quoted(c.name)}" for c in columns
    )
    names = ", ".join(f"'{column.name}'" for column in columns)
    values = ", ".join(_quoted(column.name) for column in columns)
    return (
        f"WITH shares AS (SELECT {shares} FROM {rows}) "
        f"SELECT field, share_missing FROM shares "
        f"CROSS JOIN UNNEST(ARRAY[{names}], ARRAY[{values}]) AS t(field, share_missing) "
        f"ORDER BY share_missing DESC, field"
    )


def _label(contract: CompiledContract, rows: str, month: str) -> str:
    label = _quoted(contract.label.field)
    if contract.label.task == "regression":
        return (
            f"SELECT {month} AS month, count({label}) AS labelled, avg({label}) AS mean, "
            f"stddev({label}) AS spread FROM {rows} GROUP BY 1 ORDER BY 1"
        )
    return (
        f"SELECT {month} AS month, CAST({label} AS varchar) AS label, count(*) AS number_of_rows, "
        f"count(*) / CAST(sum(count(*)) OVER (PARTITION BY {month}) AS double) AS share "
        f"FROM {rows} GROUP BY {month}, CAST({label} AS varchar) ORDER BY 1, 2"
    )


def _drift(columns: list[Column], rows: str, month: str) -> str:
    names = ", ".join(f"'{column.name}'" for column in columns)
    values = ", ".join(f"CAST({_quoted(column.name)} AS double)" for column in columns)
    return (
        f"WITH numbers AS (SELECT {month} AS month, field, number FROM {rows} "
        f"CROSS JOIN UNNEST(ARRAY[{names}], ARRAY[{values}]) AS t(field, number) WHERE number IS NOT NULL), "
        f"whole AS (SELECT field, avg(number) AS mean, stddev(number) AS spread FROM numbers GROUP BY field) "
        f"SELECT n.field, n.month, count(*) AS number_of_rows, avg(n.number) AS mean, "
        f"stddev(n.number) AS spread, "
        f"(avg(n.number) - max(w.mean)) / nullif(max(w.spread), 0) AS shift_in_deviations "
        f"FROM numbers n JOIN whole w ON w.field = n.field GROUP BY n.field, n.month ORDER BY 1, 2"
    )
