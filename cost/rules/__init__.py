"""What each type of resource bills: one function per type, found by its name.

A rule yields `Usage`s. A type without a rule is either in ``FREE``, with the reason, or the forecast lists it
as not priced: nothing is taken for free silently.
"""

from cost.rules import compute, data, machine_learning, platform, streams
from cost.rules.base import FREE, RULES, Context, Usage

__all__ = ["FREE", "RULES", "Context", "Usage", "compute", "data", "machine_learning", "platform", "streams"]
