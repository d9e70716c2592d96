"""Every python block of the data constructs' pages runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cdk_support import ROOT, cdk_context

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = (
    "foundation",
    "data-lake",
    "iceberg-table",
    "governance",
    "query-workgroup",
    "stream-ingestion",
    "stream-consumer",
    "streaming-transform",
    "batch-sources",
    "feature-group",
    "point-in-time",
    "batch-transform",
    "batch-engines",
    "gpu-batch-queue",
    "databrew-profile",
    "text-enrichment",
    "labelling",
    "windows",
    "redshift-warehouse",
    "document-search",
    "table-dashboard",
    "training-storage",
    "kafka-source",
    "video-source",
    "idle-stop",
    "audit-services",
    "studio-domain",
    "trial-catalog",
)
PAGES = [*(ROOT / f"docs/constructs/{name}.md" for name in NAMES), ROOT / "docs/extending.md"]


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.stem}-{number}", code)
        for page in PAGES
        for number, code in enumerate(BLOCK.findall(page.read_text()), 1)
    ]


@pytest.mark.parametrize(("name", "code"), blocks(), ids=[name for name, _ in blocks()])
def test_should_run_the_example(
    name: str, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import aws_cdk as cdk

    made: list[cdk.App] = []

    def app(**options: Any) -> cdk.App:
        made.append(cdk.App(context=cdk_context(), outdir=str(tmp_path), **options))
        return made[-1]

    class Module:
        """``aws_cdk`` whose App has this project's context and writes where the test may."""

        App = staticmethod(app)

        def __getattr__(self, attribute: str) -> Any:
            return getattr(cdk, attribute)

    monkeypatch.chdir(ROOT)
    source = code.replace("import aws_cdk as cdk\n", "")
    exec(compile(source, name, "exec"), {"__name__": name, "cdk": Module()})
    assert made, f"{name} makes no app"
    # The example must synthesise, validation of the templates included.
    made[-1].synth()


def test_should_show_an_example_on_every_page() -> None:
    bare = [page.name for page in PAGES if not BLOCK.search(page.read_text())]
    assert bare == []
