"""One Spark session for all tests of this folder: starting one takes seconds."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rehearsal.executors.glue import SHIM
from rehearsal.executors.spark import spark_environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

sys.path.insert(0, str(SHIM))


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    # PySpark leaves its sockets to the JVM to the garbage collector, which may meet them in any later test.
    warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
    request.config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")
    root: Path = tmp_path_factory.mktemp("spark")
    os.environ.update(spark_environment(root))
    from pyspark.sql import SparkSession

    session = SparkSession.builder.getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
