"""The window job: runs the SQL statements beside it on Managed Service for Apache Flink.

``job.sql`` is made from the workload's contract; its ``${...}`` are the application's properties of the
group ``job``. The zip of the application holds both files and the Kinesis connector.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from string import Template

from pyflink.table import EnvironmentSettings, TableEnvironment

#: Where Managed Flink puts the properties of a running application (its Developer Guide, "Use runtime
#: properties").
PROPERTIES_FILE = "/etc/flink/application_properties.json"
GROUP = "job"


def properties(path: Path) -> dict[str, str]:
    """The application's properties of our group.

    Raises KeyError when there is no such group: the application was made without it.
    """
    for group in json.loads(path.read_text(encoding="utf-8")):
        if group["PropertyGroupId"] == GROUP:
            found: dict[str, str] = group["PropertyMap"]
            return found
    raise KeyError(f"{path} holds no property group {GROUP!r}")


def statements(text: str, values: dict[str, str]) -> list[str]:
    """The statements of a job; raises KeyError for a property that is not given."""
    filled = Template(text).substitute(values)
    return [statement.strip() for statement in filled.split(";\n") if statement.strip()]


def main() -> None:
    """Submit the job; it runs until the application is stopped."""
    values = properties(Path(os.environ.get("APPLICATION_PROPERTIES", PROPERTIES_FILE)))
    job = Path(__file__).resolve().parent / "job.sql"
    environment = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for statement in statements(job.read_text(encoding="utf-8"), values):
        environment.execute_sql(statement)


if __name__ == "__main__":
    main()
