"""Analysis: asking the lake."""

from ml_lifecycle.analysis.athena import QueryWorkgroup, SavedQuery
from ml_lifecycle.analysis.questions import questions

__all__ = ["QueryWorkgroup", "SavedQuery", "questions"]
