"""The report of a rehearsal: ``report.json`` (the facts) and ``report.html`` (the same facts to look at)."""

from rehearsal.report.document import Report, ReportError, StepResult, read, write
from rehearsal.report.render import render

__all__ = ["Report", "ReportError", "StepResult", "read", "render", "write"]
