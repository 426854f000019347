"""The numbers of a training run as it goes: lines of JSON always, TensorBoard events where it can be written for."""

__all__ = ["MetricsLog", "keep_until", "read_lines"]

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class MetricsLog:
    """Appends to `metrics.jsonl` in a folder and, where tensorboardX is installed, to events in `tensorboard/`.

    - `step`: the update to go on from; events of later ones, left by an interrupted run, are disregarded.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._file = (folder / "metrics.jsonl").open("a")
        self._events: Any = None
        if importlib.util.find_spec("tensorboardX") is not None:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1, flush_secs=10)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values of one update, by name."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)


def read_lines(folder: Path) -> Iterator[dict[str, float | int]]:
    """Yield the lines of `metrics.jsonl`; what follows a half-written one is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def keep_until(folder: Path, step: int) -> None:
    """Drop the lines of updates after `step`, which are about to be made again."""
    kept = [line for line in read_lines(folder) if line["step"] <= step]
    temporary = folder / ".metrics.jsonl.part"
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(temporary, folder / "metrics.jsonl")
