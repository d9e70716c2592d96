"""Analysis: asking the lake."""

from ml_lifecycle.analysis.athena import QueryWorkgroup, SavedQuery
from ml_lifecycle.analysis.dashboards import TableDashboard
from ml_lifecycle.analysis.questions import questions, sentiment_by_label
from ml_lifecycle.analysis.redshift import RedshiftWarehouse
from ml_lifecycle.analysis.search import DocumentSearch

__all__ = [
    "DocumentSearch",
    "QueryWorkgroup",
    "RedshiftWarehouse",
    "SavedQuery",
    "TableDashboard",
    "questions",
    "sentiment_by_label",
]
