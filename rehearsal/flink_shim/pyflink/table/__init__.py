"""``TableEnvironment`` for jobs that consist of SQL: each statement runs in a local Flink, as it stands.

Tables of the Kinesis connector are read from and written to files instead (``FLINK_STREAMS``: a JSON object
from stream ARN to path), because the connector's jar comes from no package index that a rehearsal can reach.
A source therefore ends, and with it the job: Flink then sends its last watermark and every record has its
row.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

__all__ = ["EnvironmentSettings", "TableEnvironment"]

_OPTIONS = re.compile(r"\bWITH\s*\((?P<options>[^()]*)\)\s*$", re.IGNORECASE)
_OPTION = re.compile(r"'((?:[^']|'')*)'\s*=\s*'((?:[^']|'')*)'")


class EnvironmentSettings:
    """How tables are run."""

    def __init__(self, *, streaming: bool) -> None:
        self.streaming = streaming

    @classmethod
    def in_streaming_mode(cls) -> EnvironmentSettings:
        """Continuous queries."""
        return cls(streaming=True)

    @classmethod
    def in_batch_mode(cls) -> EnvironmentSettings:
        """Queries over tables that end."""
        return cls(streaming=False)


class TableEnvironment:
    """A session of the local Flink."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._streams: dict[str, str] = json.loads(os.environ.get("FLINK_STREAMS", "{}"))

    @classmethod
    def create(cls, settings: EnvironmentSettings) -> TableEnvironment:
        """Start Flink in a Java process of its own, which ends with this one."""
        api = _gateway().jvm.org.apache.flink.table.api
        chosen = api.EnvironmentSettings.newInstance()
        chosen = chosen.inStreamingMode() if settings.streaming else chosen.inBatchMode()
        environment = api.TableEnvironment.create(chosen.build())
        # One slot is what a laptop has to spare, and gives the same order every time.
        environment.getConfig().set("parallelism.default", "1")
        environment.getConfig().set("table.local-time-zone", "UTC")
        return cls(environment)

    def execute_sql(self, statement: str) -> Any:
        """Run a statement; one that writes runs to its end."""
        result = self._environment.executeSql(self._on_files(statement))
        if statement.lstrip().upper().startswith("INSERT"):
            # "await" is a keyword of Python's, not of Java's.
            getattr(result, "await")()
        return result

    def _on_files(self, statement: str) -> str:
        found = _OPTIONS.search(statement)
        if found is None:
            return statement
        options = dict(_OPTION.findall(found["options"]))
        if options.get("connector") != "kinesis":
            return statement
        arn = options.get("stream.arn", "")
        if arn not in self._streams:
            known = ", ".join(self._streams) or "none"
            raise ValueError(f"stream.arn must be a stream of the application ({known}), got {arn!r}")
        kept = {k: v for k, v in options.items() if k == "format" or k.startswith("json.")}
        files = {"connector": "filesystem", "path": f"file://{self._streams[arn]}", **kept}
        written = ",\n".join(f"  '{key}' = '{value}'" for key, value in files.items())
        # Rows in files have no partitions worth a folder each.
        head = re.sub(r"\)\s*PARTITIONED BY \([^()]*\)\s*$", ") ", statement[: found.start()])
        return f"{head}WITH (\n{written}\n)"


def _gateway() -> Any:
    from py4j.java_gateway import (  # type: ignore[import-untyped]
        GatewayParameters,
        JavaGateway,
        launch_gateway,
    )

    jars = sorted(str(jar) for jar in Path(os.environ["FLINK_LIB"]).glob("*.jar"))
    port, token = launch_gateway(
        classpath=":".join([*jars, os.environ["FLINK_PY4J_JAR"]]),
        java_path=str(Path(os.environ["JAVA_HOME"]) / "bin" / "java"),
        javaopts=[
            "-Xmx512m",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
            "--add-opens=java.base/java.util=ALL-UNNAMED",
        ],
        die_on_exit=True,
        enable_auth=True,
    )
    parameters = GatewayParameters(port=port, auth_token=token, auto_convert=True)
    return JavaGateway(gateway_parameters=parameters)
