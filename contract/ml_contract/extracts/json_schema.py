"""The JSON Schema of ``workload.yaml``, from the same model that validates it. Editors complete from it."""

from __future__ import annotations

import json
from typing import Any

from ml_contract.spec.workload import Workload

__all__ = ["schema_text", "workload_json_schema"]


def workload_json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Workload.model_json_schema(mode="validation"),
        "title": "workload.yaml",
    }


def schema_text() -> str:
    """The schema as it is checked in."""
    return json.dumps(workload_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
