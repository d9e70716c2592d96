"""Statistics of a table, the constraints they suggest, and how live data is compared with them.

Written once for two images: processing makes the baseline, monitoring judges against it. The files have the
schema of SageMaker Model Monitor (``statistics.json``, ``constraints.json``,
``constraint_violations.json``), so that either engine reads what the other wrote.
"""
