"""Write the README's table of capabilities from ``docs/capabilities.yaml``."""

from __future__ import annotations

import pathlib
from typing import Any

from ruamel.yaml import YAML

ROOT = pathlib.Path(__file__).resolve().parent.parent
START, END = "<!-- capabilities:start -->", "<!-- capabilities:end -->"


HEAD = ("Capability", "Where", "Switched by", "In the rehearsal", "What it is, and is not")


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown table, a line per row."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for row in rows:
        switch = f"`{row['switch']}`" if row["switch"] else "always on"
        cells = (row["id"], f"`{row['where']}`", switch, row["rehearsal"], row["note"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_table(readme: str, rows: list[dict[str, Any]]) -> str:
    """The README's text with the table of these rows between its two marks."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise ValueError(f"README.md must hold {START} and {END}, in this order")
    return f"{before}{START}\n\n{table(rows)}\n\n{END}{after}"


def main() -> None:
    """Write the table in place."""
    rows = YAML(typ="safe").load((ROOT / "docs" / "capabilities.yaml").read_text())
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), rows))


if __name__ == "__main__":
    main()
