"""``python -m rehearsal load-test``: from a rehearsal's model to the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_contract.load import LoadedWorkload

from rehearsal.inputs import load_inputs
from rehearsal.load_test.container import newest_model, running, serving_image
from rehearsal.load_test.drawn import document, page
from rehearsal.load_test.knee import Curve, search
from rehearsal.load_test.offered import Burst, Target, offer

__all__ = ["LoadTest", "load_test"]

#: Records that take turns.
_RECORDS = 200
#: The generator shares the machine with what it measures; beyond this part of what it can do at all, what
#: bends may be the generator.
_TRUSTED = 0.7


@dataclass(frozen=True, kw_only=True)
class LoadTest:
    """What is asked for; ``model`` is a ``model.tar.gz``, the one that ``out``'s rehearsal trained last when
    not given.
    """

    loaded: LoadedWorkload
    out: Path
    model: Path | None = None
    workers: int = 1
    seconds: float = 2.0
    seed: int = 7


def load_test(wanted: LoadTest, tell: Callable[[str], None]) -> tuple[Curve, Path]:
    """Run the container under load, write ``load-test.json`` and ``load-test.html``; return the page's path.

    Raises:
        LoadTestError: no rehearsal has left an image and a model, or the container does not start.
    """
    state = wanted.out / "state"
    image = serving_image(state)
    model = wanted.model or newest_model(state)
    workload = wanted.loaded.workload
    label = wanted.loaded.compiled.label_column.source
    records = load_inputs(wanted.loaded, data=None, records=_RECORDS, seed=wanted.seed).initial
    bodies = [json.dumps({k: v for k, v in record.items() if k != label}).encode() for record in records]
    with running(state, image, model, workers=wanted.workers) as (host, port):
        target = Target(host=host, port=port, bodies=bodies)
        # What the generator can offer at all: the server does next to nothing for such a request.
        idle = Target(host=host, port=port, path="/execution-parameters")
        ceiling = _ceiling(idle)
        tell(f"the generator sends up to {ceiling:,.0f} requests a second")
        offer(target, 100, 1.0)

        def measure(rate: float) -> Burst:
            burst = offer(target, rate, wanted.seconds)
            tell(
                f"{rate:8,.0f} a second offered, {burst.answered_rate:8,.0f} answered, "
                f"p99 {burst.quantile(0.99) * 1_000:8.1f} ms"
            )
            return burst

        limit = workload.serving.rollout.max_latency_ms / 1_000
        curve = search(measure, limit, most=ceiling * _TRUSTED)
    about: dict[str, Any] = {
        "workload": workload.name,
        "workers": wanted.workers,
        "records a request": 1,
        "generator's ceiling a second": round(ceiling),
    }
    wanted.out.mkdir(parents=True, exist_ok=True)
    (wanted.out / "load-test.json").write_text(json.dumps(document(curve, about), indent=1) + "\n")
    target_page = wanted.out / "load-test.html"
    target_page.write_text(page(curve, about), encoding="utf-8")
    return curve, target_page


def _ceiling(target: Target) -> float:
    """Requests a second that the generator gets answered when the server has nothing to do.

    They are refused (405), which costs the server least; the generator counts them all the same.
    """
    burst = offer(target, 50_000, 0.5)
    return (len(burst.latencies) + burst.failed) / burst.took
