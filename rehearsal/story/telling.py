"""How a story is told: steps in order, each with its evidence; one that fails ends it, unless it is alone.

A step is a function of the `Tale` that fills a dict of evidence as it goes, so that a step which fails has
shown how far it came.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from rehearsal.report import StepResult

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

    from rehearsal.story.tale import Tale

__all__ = [
    "Evidence",
    "Listener",
    "Step",
    "StoryError",
    "require",
    "require_no_new_failure",
    "tell",
    "wait_until",
]

Evidence: TypeAlias = dict[str, Any]


class StoryError(Exception):
    """What was to be shown did not happen; the text is the reason in one line."""


def require(condition: object, reason: str) -> None:
    """Fail the step with ``reason`` unless ``condition`` holds."""
    if not condition:
        raise StoryError(reason)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the story.

    ``capabilities`` says which rows of ``docs/capabilities.yaml`` it exercises for a workload. ``recorded``
    marks a step whose programs only an account runs. ``applies`` says whether the workload has switched on
    what the step shows; the others are not told. ``when`` says so of what is deployed, right before the step.
    ``alone``: nothing rests on the step, so that the story goes on when it fails.
    """

    id: str
    title: str
    chapter: str
    run: Callable[[Tale, Evidence], None]
    capabilities: Callable[[Workload], Sequence[str]]
    recorded: bool = False
    applies: Callable[[Workload], bool] = lambda _: True
    when: Callable[[Tale], bool] = lambda _: True
    alone: bool = False


class Listener(Protocol):
    """Who watches the story being told."""

    def begin(self, step: Step, number: int, total: int) -> None:
        """A step begins."""

    def note(self, line: str) -> None:
        """Something happened within the step."""

    def end(self, result: StepResult) -> None:
        """The step ended."""

    def say(self, text: str) -> None:
        """Something to be read, apart from any step."""


def tell(steps: Sequence[Step], tale: Tale, listener: Listener) -> Iterable[StepResult]:
    """Run the steps that apply; yield the result of each. Ends after the first that failed and is not alone.

    A failed step's evidence holds the ``reason``. KeyboardInterrupt passes through.
    """
    told = [step for step in steps if step.applies(tale.workload)]
    for number, step in enumerate(told, start=1):
        if not step.when(tale):
            continue
        listener.begin(step, number, len(told))
        evidence: Evidence = {}
        started = time.monotonic()
        reason = None
        try:
            step.run(tale, evidence)
            require_no_new_failure(tale)
        except StoryError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this step's failure and is told as such
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            tale.log(traceback.format_exc())
        if reason is not None:
            evidence["reason"] = reason
            evidence |= _diagnosis(tale)
        result = StepResult(
            id=step.id,
            title=step.title,
            chapter=step.chapter,
            status="failed" if reason is not None else "recorded" if step.recorded else "passed",
            seconds=round(time.monotonic() - started, 3),
            capabilities=tuple(step.capabilities(tale.workload)),
            evidence=evidence,
        )
        listener.end(result)
        yield result
        if reason is not None and not step.alone:
            return


def require_no_new_failure(tale: Tale) -> None:
    """Fail when something has failed behind the step's back, even if all that it looked at was right."""
    if tale.server is None or tale.server.process.poll() is not None:
        return
    failed = [e for e in tale.cloud.ledger() if e["outcome"] == "failed"]
    seen: int = tale.known.get("failures told", 0)
    tale.known["failures told"] = len(failed)
    new = [f"{e['kind']} {e['name']}: {e['why']}" for e in failed[seen:]]
    require(not new, f"failed in the background: {'; '.join(new[:3])}")


def _diagnosis(tale: Tale) -> Evidence:
    """What the server knows that may explain a failure: what failed in the background, what was refused."""
    if tale.server is None or tale.server.process.poll() is not None:
        return {}
    try:
        failed = [e for e in tale.cloud.ledger() if e["outcome"] == "failed"]
        # They are this step's; a step that stands after it is not to be blamed for them.
        tale.known["failures told"] = len(failed)
        refused = [
            f"{r['action']} on {r['resource']} for {role['role'].rsplit('/', 1)[-1]}"
            for role in tale.cloud.permissions()
            for r in role["refused"]
        ]
        lines = tale.cloud.function_errors()
    except Exception as error:  # noqa: BLE001 - the step's own reason matters more than a failing look-up
        tale.log(traceback.format_exc())
        return {"diagnosis_failed": str(error)}
    return {
        "failed_in_the_background": [f"{e['kind']} {e['name']}: {e['why']}" for e in failed[-5:]],
        "refused": refused[-5:],
        "functions_said": lines,
    }


def wait_until(
    what: str,
    probe: Callable[[], Any],
    *,
    seconds: float,
    every: float = 0.25,
    ending: Callable[[], str | None] = lambda: None,
) -> Any:
    """Wait (real seconds) until ``probe`` returns something true, and return it.

    Args:
        what: what is waited for, named when it does not come.
        ending: returns why it can no longer come, which ends the wait at once.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        why = ending()
        if why is not None:
            raise StoryError(f"{what} cannot happen any more: {why}")
        if time.monotonic() > deadline:
            raise StoryError(f"{what} did not happen within {seconds:g} s")
        time.sleep(every)
