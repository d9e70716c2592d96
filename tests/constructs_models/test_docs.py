"""The examples of docs/constructs, executed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cdk_support import ROOT, cdk_context

PAGES = [
    "training",
    "alternatives",
    "orchestration",
    "registry",
    "serving",
    "serving-styles",
    "edge-component",
    "monitoring",
    "retraining",
    "delivery",
]


@pytest.mark.parametrize("page", PAGES)
def test_should_run_the_example(page: str) -> None:
    text = (ROOT / "docs" / "constructs" / f"{page}.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, page, "exec"), {"CONTEXT": cdk_context(), "WORKLOADS": Path(ROOT, "workloads")})
