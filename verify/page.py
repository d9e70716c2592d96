"""The page for people: what was checked, what was found, what was accepted and why."""

from __future__ import annotations

from pathlib import Path

from verify.outcome import Outcome

__all__ = ["page"]

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def page(outcome: Outcome) -> str:
    """Return the page as HTML that stands alone."""
    # Imported here: the checks themselves need no templates.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("verify.html").render(outcome=outcome)
