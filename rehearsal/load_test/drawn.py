"""The curve as a page for people and as JSON for machines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rehearsal.load_test.knee import Curve, holds
from rehearsal.load_test.offered import Burst
from rehearsal.report import plots

__all__ = ["document", "page", "sentence"]

TEMPLATES = Path(plots.__file__).resolve().parent / "templates"
_QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def sentence(curve: Curve) -> str:
    """Say where the knee is."""
    limit = f"{curve.limit_seconds * 1_000:g} ms"
    if curve.knee is None:
        return f"No load was answered within {limit} (p99)."
    at = f"{curve.knee.rate:,.0f} requests a second (p99 {_ms(curve.knee, 0.99)} ms)"
    if curve.bounded:
        return f"The knee is at {at}: more is no longer answered at the pace it comes, or within {limit}."
    return f"At {at} nothing bends yet, and the generator can offer no more: the knee lies further on."


def document(curve: Curve, about: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements as JSON data; latencies in milliseconds, None where never answered."""
    return {
        **about,
        "limit_ms": curve.limit_seconds * 1_000,
        "knee_per_second": None if curve.knee is None else round(curve.knee.rate, 1),
        "bounded": curve.bounded,
        "sentence": sentence(curve),
        "points": [
            {
                "offered_per_second": round(burst.rate, 1),
                "answered_per_second": round(burst.answered_rate, 1),
                "failed": burst.failed,
                "unanswered": burst.unanswered,
                "holds": holds(burst, curve.limit_seconds),
                **{f"{name}_ms": _ms(burst, share) for share, name in _QUANTILES},
            }
            for burst in curve.bursts
        ],
    }


def _ms(burst: Burst, share: float) -> float | None:
    seconds = burst.quantile(share)
    return round(seconds * 1_000, 2) if math.isfinite(seconds) else None


def page(curve: Curve, about: dict[str, Any]) -> str:
    """Return a page with the plot and the numbers, which needs nothing from elsewhere."""
    import jinja2

    data = document(curve, about)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("load_test.html.j2").render(
        data=data,
        about=about,
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        # Our own markup, made from numbers.
        plot=plots.load(data),
    )
