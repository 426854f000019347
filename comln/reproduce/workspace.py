"""Where a reproduction keeps what it has computed so far, and how much it may spend."""

__all__ = ["Budget", "Workspace"]

import enum
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comln.reproduce.measure import COMMIT, environment, numerics
from comln.reproduce.page import as_json, write_files
from comln.reproduce.programs import forget_programs_if_many


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
    - `elsewhere`: folders of other reproductions, whose parts are used too, where they are what is wanted.
    - `data`, `root`: the data set to reproduce a result on, and the folder that it was prepared in, if not in the
      user's cache; for results that can be computed on several.
    """

    folder: Path
    budget: Budget = Budget.COMMITTED
    on_progress: Callable[[str, float], None] = field(default_factory=lambda: _say_nothing)
    elsewhere: Sequence[Path] = ()
    data: str = "glyphs"
    root: Path | None = None
    _commits: list[str] = field(default_factory=lambda: [COMMIT], init=False, repr=False, compare=False)

    def kept(
        self,
        name: str,
        configuration: Mapping[str, Any],
        compute: Callable[[], Any],
    ) -> Any:
        """Return what `compute` returns: from the disk, if it was computed with this configuration before.

        - `name`: of the part. Its file has a digest of the configuration in its name, so that a part of another
          configuration, which may have taken days, stays.
        - `configuration`: all that determines the part, besides the device, the precision and the versions of
          libraries, which count too. It and what `compute` returns can be JSON.
        """
        # What comes from JSON has lists for tuples; so must what it is compared with.
        text = json.dumps({**configuration, "numerics": numerics()}, sort_keys=True)
        wanted, file = json.loads(text), f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        for folder in (self.folder, *self.elsewhere):
            part = _read(folder / file, wanted)
            if part is not None:
                if folder != self.folder:
                    self._write(file, part)
                self.made_by(part["commit"])
                return part["result"]
        part = {"configuration": wanted, "commit": self._commits[0], "result": compute()}
        # The next part may have a use for what was compiled for this one.
        forget_programs_if_many()
        self._write(file, part)
        return part["result"]

    def environment(self) -> dict[str, Any]:
        """Return what `measure.environment` does, with the commits of all parts that were asked for until now.

        The first commit is that which puts them together.
        """
        return environment() | {"commit": ", ".join(dict.fromkeys(self._commits))}

    def made_by(self, commit: str) -> None:
        """Count the commit that made something which is kept in another way."""
        self._commits.append(commit)

    def _write(self, file: str, part: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_files(self.folder, {file: as_json(part)})


def _read(path: Path, configuration: Any) -> dict[str, Any] | None:
    """Return the part in a file, if it is one, and of this configuration."""
    try:
        part = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(part, dict) or part.get("configuration") != configuration:
        return None
    return part if {"commit", "result"} <= part.keys() else None
