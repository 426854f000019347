"""What becomes of a signal to stop: after the running step, or at once."""

__all__ = ["Stopping"]

import os
import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Takes SIGINT and SIGTERM while it is entered.

    - `gently`: whether the first signal only sets `requested`, for whoever asks after each step. Otherwise, and at the
      second signal, `KeyboardInterrupt` is raised at once.
    """

    def __init__(self) -> None:
        self.requested, self.gently = False, False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stopping":
        self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.gently:
            raise KeyboardInterrupt
        self.requested = True
        # Not by `print`, which may be what is interrupted.
        os.write(2, b"comln: stopping after this step; a second signal stops at once.\n")
