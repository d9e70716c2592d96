"""The semantic difference of two sets of stacks: what is replaced or lost, who may do more, what opens."""

from delivery.difference.compared import compare
from delivery.difference.findings import KINDS, Difference, Finding, StackDifference
from delivery.difference.rendered import as_html, as_json, as_text

__all__ = [
    "KINDS",
    "Difference",
    "Finding",
    "StackDifference",
    "as_html",
    "as_json",
    "as_text",
    "compare",
]
