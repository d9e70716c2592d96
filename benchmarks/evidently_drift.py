"""Run by ``bench_drift`` in an environment of its own that has Evidently: print the seconds of one report."""

import sys
import time

import pandas as pd
from evidently import Report  # type: ignore[import-not-found]
from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]


def main() -> None:
    """Read both tables and compute the drift of every column by the population stability index."""
    before, live = sys.argv[1:]
    started = time.perf_counter()
    reference, current = pd.read_parquet(before), pd.read_parquet(live)
    result = Report([DataDriftPreset(method="psi")]).run(current, reference)
    if not result.dict()["metrics"]:
        raise RuntimeError("Evidently gave no metric")
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
