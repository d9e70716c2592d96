"""The workload contract. Rooms, the lower ones first; a room imports none that stands below it in this list.

What every room may read stands beside them: ``problems`` (the words of every message), ``expressions`` (what
a feature is) and ``compiled`` (what code that runs in an account reads).

Runtime rooms need neither pydantic nor YAML:

- ``records``: records as they arrive, checked, typed, read from files.
- ``made_up``: records that nobody sent.
- ``windows``: features over time.
- ``features``: features and what is fitted.
- ``quality``: data quality rules.
- ``algorithms``: hyperparameters of each algorithm, for the images and for the checks.

Rooms of whoever writes and reads a ``workload.yaml``:

- ``spec``: its typed blocks.
- ``extracts``: what others read of it, beside the compiled contract.
- ``checks``: what holds between blocks.
- ``reading``: YAML with lines, errors with places.
- ``evolution``: lock files.

Above them stand ``load``, which reads a workload through all of these, ``commands`` and ``__main__``.
"""
