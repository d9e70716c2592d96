"""Evidently's report for people, beside the monitor's own verdict: ``python -m tools.evidently``.

Evidently does not import under pandas 3 and brings eighty packages: it lives in an environment of its own,
which uv makes on demand. ``tables`` and ``account`` find the rows, here; ``report.py`` runs there.
"""
