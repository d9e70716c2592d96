"""The story on a terminal: a live line while a step runs, one line when it ended; plain text without one."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rehearsal.report import StepResult
from rehearsal.story.telling import Step

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Terminal"]

MARKS = {"passed": ("green", "ok"), "recorded": ("yellow", "recorded"), "failed": ("red", "FAILED")}
NOTE_SECONDS = 0.2
#: What went wrong around a failed step: key of its evidence -> how it is called on the terminal.
DIAGNOSES = {
    "refused": "permission refused",
    "failed_in_the_background": "failed meanwhile",
    "functions_said": "a function said",
}
DIAGNOSES_SHOWN = 3


class Terminal:
    """Prints what happens."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console as RichConsole

        self.console: Console = RichConsole(file=sys.stdout, highlight=False) if console is None else console
        self._status: Any = None
        self._chapter = ""
        self._title = ""
        self._noted = 0.0

    def begin(self, step: Step, number: int, total: int) -> None:
        """A step begins."""
        from rich.markup import escape

        if step.chapter != self._chapter:
            self._chapter = step.chapter
            self.console.print(f"[bold]{escape(step.chapter)}[/bold]")
        self._title = f"{number}/{total} {escape(step.title)}"
        if self.console.is_terminal:
            self._status = self.console.status(self._title, spinner="dots")
            self._status.start()

    def note(self, line: str) -> None:
        """Something happened within the step; only a terminal that can overwrite it shows it."""
        from rich.markup import escape

        if self._status is None or time.monotonic() - self._noted < NOTE_SECONDS:
            return
        self._noted = time.monotonic()
        width = max(20, self.console.width - 8)
        self._status.update(f"{self._title}\n  [dim]{escape(line.strip()[:width])}[/dim]")

    def end(self, result: StepResult) -> None:
        """The step ended."""
        from rich.markup import escape

        self.stop()
        colour, word = MARKS[result.status]
        self.console.print(
            f"  [{colour}]{word:<8}[/{colour}] {escape(result.title)} [dim]{result.seconds:.1f} s[/dim]",
            soft_wrap=True,
        )
        if result.status == "failed":
            self.console.print(f"  [red]{escape(str(result.evidence.get('reason')))}[/red]", soft_wrap=True)
            for kind, name in DIAGNOSES.items():
                for line in result.evidence.get(kind, [])[:DIAGNOSES_SHOWN]:
                    self.console.print(f"  {name}: {escape(str(line))}", soft_wrap=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True, markup=False)

    def stop(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
