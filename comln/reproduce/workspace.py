"""Where a reproduction keeps what it has computed so far, and how much it may spend."""

__all__ = ["Budget", "Workspace"]

import enum
import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from comln.reproduce.page import as_json, write_files


class Budget(enum.StrEnum):
    """How much to spend: enough to see that it works, what the committed results had, or as much as the paper."""

    SMOKE = "smoke"
    COMMITTED = "committed"
    FULL = "full"


def _say_nothing(what: str, done: float) -> None:
    pass


@dataclass(frozen=True)
class Workspace:
    """A folder of parts that are computed once, and a budget.

    - `folder`: where the parts are kept, as JSON.
    - `budget`: how much to spend.
    - `on_progress`: called with what is being done, and the share of the whole that is done.
    """

    folder: Path
    budget: Budget = Budget.COMMITTED
    on_progress: Callable[[str, float], None] = field(default_factory=lambda: _say_nothing)

    def kept(self, name: str, configuration: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return what `compute` returns: from the disk, if it was computed with this configuration before.

        - `name`: of the part, and of its file.
        - `configuration`: all that determines the part. It and what `compute` returns can be JSON.
        """
        # What comes from JSON has lists for tuples; so must what it is compared with.
        wanted = json.loads(json.dumps(configuration))
        try:
            part = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            part = None
        if not isinstance(part, dict) or part.get("configuration") != wanted or "result" not in part:
            part = {"configuration": wanted, "result": compute()}
            # The compiled programs of a part are of no use to the next, and a process may hold only so many of them:
            # their memory maps are counted by the operating system (65,530 on Linux).
            jax.clear_caches()
            gc.collect()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_files(self.folder, {f"{name}.json": as_json(part)})
        return part["result"]
