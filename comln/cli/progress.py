"""Progress of long work: a bar on a terminal, plain lines elsewhere. All of it on standard error."""

__all__ = ["TrainingProgress", "counting", "saying"]

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from comln.meta_train import StepReport

SECONDS_BETWEEN_LINES = 10.0
SMOOTHING = 0.95


class TrainingProgress:
    """Shows loss, accuracy, horizon, solver steps, tasks per second and the time left, smoothed over steps."""

    def __init__(self, steps: int, done: int) -> None:
        self._steps = steps
        self._smooth: dict[str, float] = {}
        self._console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._row = self._bar.add_task("training", total=steps, completed=done, text="compiling ...")
        self._began, self._first, self._last_line = time.monotonic(), done, 0.0

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, report: StepReport) -> None:
        """Take in one update."""
        for name, value in {**report.values, "tasks_per_second": report.tasks_per_second}.items():
            self._smooth[name] = SMOOTHING * self._smooth.get(name, value) + (1 - SMOOTHING) * value
        text = self._text()
        self._bar.update(self._row, completed=report.step, text=text)
        now = time.monotonic()
        due = now - self._last_line >= SECONDS_BETWEEN_LINES or report.step == self._steps
        if self._bar.disable and due:
            self._last_line = now
            pace = (now - self._began) / max(report.step - self._first, 1)
            left = pace * (self._steps - report.step)
            print(f"step {report.step}/{self._steps}  {text}  {left:.0f} s left", file=sys.stderr, flush=True)

    def _text(self) -> str:
        smooth = self._smooth
        horizon = f"  T {smooth['horizon']:.3g}" if "horizon" in smooth else ""
        dropped = f"  dropped {smooth['dropped_tasks']:.2g}" if smooth.get("dropped_tasks") else ""
        return (
            f"loss {smooth['loss']:.3f}  accuracy {100 * smooth['accuracy']:.1f} %{horizon}"
            f"  solver steps {smooth['solver_steps']:.0f}  {smooth['tasks_per_second']:.0f} tasks/s{dropped}"
        )


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many of `total` are done."""
    console = Console(file=sys.stderr)
    columns = (TextColumn(what), BarColumn(bar_width=24), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task(what, total=total)
        if bar.disable:
            print(f"{what} ...", file=sys.stderr, flush=True)
        yield lambda done: bar.update(row, completed=done)


@contextmanager
def saying(what: str) -> Iterator[Callable[[str, float], None]]:
    """Yield a function that takes what is being done, and the share of the whole that is done."""
    console = Console(file=sys.stderr)
    columns = (
        TextColumn(what),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:.0f} %"),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task(what, total=1.0, text="")
        if bar.disable:
            print(f"{what} ...", file=sys.stderr, flush=True)
        last_line = time.monotonic()

        def say(text: str, done: float) -> None:
            nonlocal last_line
            bar.update(row, completed=done, text=text)
            if bar.disable and time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                print(f"{100 * done:.0f} %  {text}", file=sys.stderr, flush=True)

        yield say
