"""Quick Sight: a data set over a table of the lake and a dashboard on it, as code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_quicksight as quicksight
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle.analysis.athena import QueryWorkgroup
from ml_lifecycle.pseudo import arn

__all__ = ["TableDashboard"]

#: Hive type -> type of a Quick Sight input column.
_TYPES = {
    "bigint": "INTEGER",
    "double": "DECIMAL",
    "string": "STRING",
    "boolean": "BOOLEAN",
    "date": "DATETIME",
    "timestamp": "DATETIME",
}
_DATA_SET_READ = (
    "quicksight:DescribeDataSet",
    "quicksight:DescribeDataSetPermissions",
    "quicksight:PassDataSet",
    "quicksight:DescribeIngestion",
    "quicksight:ListIngestions",
)
_DASHBOARD_READ = (
    "quicksight:DescribeDashboard",
    "quicksight:ListDashboardVersions",
    "quicksight:QueryDashboard",
)
_SOURCE_READ = (
    "quicksight:DescribeDataSource",
    "quicksight:DescribeDataSourcePermissions",
    "quicksight:PassDataSource",
)
_DATA = "table"


class TableDashboard(Construct):
    """Define a Quick Sight data source on an Athena workgroup, a data set of one table, and its dashboard.

    The dashboard is made from the contract: records by month of their event time, records by label and the
    mean of the first numbers by label; for a label that is a number, its mean by month and by the first
    categories. Columns that identify a person are left out of the data
    set. ``readers`` are ARNs of Quick Sight users or groups of an account that has subscribed to it. What
    they see is what Quick Sight's service role may read through the workgroup.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        name: str,
        title: str,
        workgroup: QueryWorkgroup,
        database: str,
        table: str,
        readers: Sequence[str],
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # Amazon Quick Sight API Reference, CreateDashboard: DashboardId.
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,512}", name):
            problems.append(f"name must be 1 to 512 letters, digits, hyphens and underscores, got {name!r}")
        # CreateDataSource: Permissions, 1 to 64 entries.
        if not 1 <= len(readers) <= 64:
            problems.append(
                f"readers must hold 1 to 64 ARNs of Quick Sight users or groups, got {len(readers)}; "
                "without one nobody could open it"
            )
        if problems:
            raise ValueError("table dashboard: " + "; ".join(problems))
        hidden = {c.name for c in contract.columns if c.sensitive == "pii"}
        columns = [(n, _TYPES[kind]) for n, kind in contract.glue_columns() if n not in hidden]
        self.source = quicksight.CfnDataSource(
            self,
            "Source",
            aws_account_id=cdk.Aws.ACCOUNT_ID,
            data_source_id=name,
            name=title,
            type="ATHENA",
            data_source_parameters=quicksight.CfnDataSource.DataSourceParametersProperty(
                athena_parameters=quicksight.CfnDataSource.AthenaParametersProperty(work_group=workgroup.name)
            ),
            permissions=[
                quicksight.CfnDataSource.ResourcePermissionProperty(principal=p, actions=list(_SOURCE_READ))
                for p in readers
            ],
        )
        self.source.node.add_dependency(workgroup)
        props = quicksight.CfnDataSet
        self.data_set = props(
            self,
            "DataSet",
            aws_account_id=cdk.Aws.ACCOUNT_ID,
            data_set_id=name,
            name=title,
            import_mode="DIRECT_QUERY",
            physical_table_map={
                "records": props.PhysicalTableProperty(
                    relational_table=props.RelationalTableProperty(
                        data_source_arn=self.source.attr_arn,
                        catalog="AwsDataCatalog",
                        schema=database,
                        name=table,
                        input_columns=[
                            props.InputColumnProperty(name=column, type=kind) for column, kind in columns
                        ],
                    )
                )
            },
            permissions=[
                props.ResourcePermissionProperty(principal=p, actions=list(_DATA_SET_READ)) for p in readers
            ],
        )
        self.dashboard = quicksight.CfnDashboard(
            self,
            "Dashboard",
            aws_account_id=cdk.Aws.ACCOUNT_ID,
            dashboard_id=name,
            name=title,
            definition=_definition(contract, title, self.data_set.attr_arn),
            permissions=[
                quicksight.CfnDashboard.ResourcePermissionProperty(principal=p, actions=list(_DASHBOARD_READ))
                for p in readers
            ],
        )
        self.dashboard_arn = arn("quicksight", f"dashboard/{name}")


def _definition(contract: CompiledContract, title: str, data_set_arn: str) -> dict[str, Any]:
    """One sheet. Plain objects under the API's names: the CDK's classes add nothing to so deep a tree."""
    label, event_time = contract.label.field, contract.event_time
    numbers = [
        c.name
        for c in contract.columns
        if c.type in ("integer", "number")
        and c.sensitive is None
        and c.name not in (label, contract.identifier)
    ]
    visuals = [_line("by-month", "Records by month", _month(event_time), _count("record_id"))]
    if contract.label.task == "regression":
        categories = [
            c.name
            for c in contract.columns
            if c.type in ("string", "boolean")
            and c.sensitive is None
            and c.name not in (label, contract.identifier)
        ]
        visuals.append(_line("label-by-month", f"Mean of {label} by month", _month(event_time), _mean(label)))
        visuals += [
            _bar(f"mean-{i}", f"Mean of {label} by {name}", _dimension(contract, name), _mean(label))
            for i, name in enumerate(categories[:6])
        ]
    else:
        by_label = _dimension(contract, label)
        visuals.append(_bar("by-label", f"Records by {label}", by_label, _count("record_id")))
        visuals += [
            _bar(f"mean-{i}", f"Mean of {name} by {label}", by_label, _mean(name))
            for i, name in enumerate(numbers[:6])
        ]
    return {
        "dataSetIdentifierDeclarations": [{"identifier": _DATA, "dataSetArn": data_set_arn}],
        "sheets": [{"sheetId": "records", "name": title[:2048], "visuals": visuals}],
    }


def _column(name: str) -> Mapping[str, str]:
    return {"dataSetIdentifier": _DATA, "columnName": name}


def _dimension(contract: CompiledContract, name: str) -> Mapping[str, object]:
    kind = contract.types[name]
    member = "numericalDimensionField" if kind in ("integer", "number") else "categoricalDimensionField"
    return {member: {"fieldId": f"dimension-{name}", "column": _column(name)}}


def _month(name: str) -> Mapping[str, object]:
    return {
        "dateDimensionField": {
            "fieldId": f"month-{name}",
            "column": _column(name),
            "dateGranularity": "MONTH",
        }
    }


def _count(name: str) -> Mapping[str, object]:
    return {
        "categoricalMeasureField": {
            "fieldId": f"count-{name}",
            "column": _column(name),
            "aggregationFunction": "COUNT",
        }
    }


def _mean(name: str) -> Mapping[str, object]:
    return {
        "numericalMeasureField": {
            "fieldId": f"mean-{name}",
            "column": _column(name),
            "aggregationFunction": {"simpleNumericalAggregation": "AVERAGE"},
        }
    }


def _titled(visual_id: str, title: str) -> dict[str, object]:
    return {
        "visualId": visual_id,
        "title": {"visibility": "VISIBLE", "formatText": {"plainText": title}},
    }


def _bar(
    visual_id: str, title: str, category: Mapping[str, object], value: Mapping[str, object]
) -> Mapping[str, object]:
    wells = {"barChartAggregatedFieldWells": {"category": [category], "values": [value]}}
    return {"barChartVisual": {**_titled(visual_id, title), "chartConfiguration": {"fieldWells": wells}}}


def _line(
    visual_id: str, title: str, category: Mapping[str, object], value: Mapping[str, object]
) -> Mapping[str, object]:
    wells = {"lineChartAggregatedFieldWells": {"category": [category], "values": [value]}}
    return {"lineChartVisual": {**_titled(visual_id, title), "chartConfiguration": {"fieldWells": wells}}}
