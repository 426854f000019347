"""Memory and time of the meta-gradient of one task against the number of inner steps: Figures 3 and 4 measured."""

__all__ = [
    "HALF_POWERS",
    "NAMES",
    "PAPER_BYTES",
    "POWERS",
    "Cell",
    "Efficiency",
    "Interleaved",
    "Limit",
    "Spending",
    "compute",
]

import dataclasses
import enum
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax

from comln.backbones import Normalisation
from comln.backbones.layers import convolve
from comln.episode import Episode
from comln.episodic import embed_batch
from comln.recipes.backbones import BackboneConfig
from comln.reproduce.extrapolation import Estimate, go_on
from comln.reproduce.measure import (
    Measurement,
    device_bytes,
    device_peak_bytes,
    interleaved,
    peak_raised_to,
    processor,
    temporary_bytes,
)
from comln.reproduce.meta_gradient_programs import (
    CHANNELS,
    METHODS,
    STEP,
    Method,
    Program,
    head_program,
    images_of_task,
    network_program,
    whole_program,
)
from comln.reproduce.programs import forget_programs
from comln.reproduce.workspace import Budget, Workspace
from comln.run import converter

NAMES = ("maml", "anil", "checkpointed-anil", "imaml", "comln-euler", "comln-rk", "comln-span")
"""Of the methods that are compared, in the order of legends and tables."""

ORDER = ("comln-span", "comln-rk", "comln-euler", "checkpointed-anil", "anil", "imaml", "maml")
"""In which they are measured: on accelerators the peak of a process can only grow, so the frugal ones come first."""

HEAD_NAMES = ("anil", "comln-euler", "comln-span-euler", "comln-rk", "comln-span")
"""Of the methods whose heads are also timed in turns with one another."""

WHOLE_NAMES = ("anil", "comln-span")
"""Of the methods whose whole programs are timed, in turns with the network alone."""

WAYS, SHOTS, QUERIES = 5, 5, 15
PAPER_BYTES = 32 * 2**30
"""Memory of the paper's GPU, a Tesla V100."""

SHARE = 0.6
"""Of the device's memory that a program may take to be run: others need some too."""

FEW = 10
"""See `Spending.longest_s`."""

POWERS = tuple(10**power for power in range(7))
"""Numbers of steps."""

HALF_POWERS = tuple(sorted({*POWERS, *(3 * power for power in POWERS[:-1])}))
"""The same, with about the middle between two of them."""

LEVEL = 0.01
"""Up to this relative difference, two amounts of memory are the same."""


@dataclass(frozen=True)
class Spending:
    """What a budget buys.

    - `network`, `image_size`: what is measured.
    - `steps`: numbers of inner steps, ascending. `network_steps`: those of methods that adapt the whole network.
    - `longest_s`: a meta-gradient that is expected to take longer, by those of fewer steps, is not run. The second
      number of steps, if it is at most `FEW` times the first, is run in any case.
    - `seconds`: about how long to run each program, five times at least. `once_s`: one that takes longer, once.
    - `turns`: steps at which the heads are timed in turns.
    """

    network: BackboneConfig
    image_size: int
    steps: tuple[int, ...]
    network_steps: tuple[int, ...]
    longest_s: float
    seconds: float
    once_s: float
    turns: int


class Limit(enum.StrEnum):
    """Why there is no time of a program.

    - `MEMORY`, `TIME`: it was not run, since it takes more memory than there is, or is expected to take too long.
    - `FAILURE`: it was run, and its solver gave up.
    """

    MEMORY = "memory"
    TIME = "time"
    FAILURE = "failure"


@dataclass(frozen=True)
class Cell:
    """One method at one number of steps; times are medians, and none where nothing was run to extrapolate from.

    - `memory`: the compiler's figure for the whole program, in bytes, besides arguments and results.
    - `time_ms`: of the whole. For methods that adapt a head alone it is that of the network plus `head_time_ms`.
    - `head_memory`, `head_time_ms`: of the head's program; none for methods that adapt the whole network.
    - `quartiles_ms`, `calls`: of the program that was run, head or whole.
    - `solver_steps`: attempted inner steps.
    - `limit`: why there is no time, where there is none.
    - `device_peak_bytes`: the device's peak, on accelerators, where running raised it.
    """

    method: str
    steps: int
    horizon: float
    memory: Estimate
    time_ms: Estimate | None
    head_memory: Estimate | None = None
    head_time_ms: Estimate | None = None
    quartiles_ms: tuple[float, float] | None = None
    calls: int = 0
    solver_steps: int | None = None
    limit: Limit | None = None
    device_peak_bytes: int | None = None


@dataclass(frozen=True)
class Interleaved:
    """Programs that took turns in one process, so that their ratios are not those of two moments.

    - `steps`: the number of inner steps. `heads`: the heads' programs by method.
    - `network`, `whole`: the network alone, and whole programs by method, which should take the network's time and
      that of the head.
    """

    steps: int
    heads: dict[str, Measurement]
    network: Measurement
    whole: dict[str, Measurement]


@dataclass(frozen=True)
class Efficiency:
    """All methods at all numbers of steps.

    - `features`: size of an embedding, d.
    - `limit_bytes`: a program that takes more is not run.
    """

    budget: Budget
    spending: Spending
    features: int
    limit_bytes: int
    network: Measurement
    cells: tuple[Cell, ...]
    turns: Interleaved
    environment: dict[str, Any]

    def of(self, method: str) -> list[Cell]:
        """Return the cells of one method."""
        return [cell for cell in self.cells if cell.method == method]


def compute(work: Workspace, spending: Spending) -> Efficiency:
    """Measure what is not there yet, in single precision."""
    forget_programs()  # of what was reproduced before: these programs need the memory
    with jax.enable_x64(False):
        return _Measuring(work, spending).everything()


class _Measuring:
    """The parts of a figure, one after the other."""

    def __init__(self, work: Workspace, spending: Spending) -> None:
        self.work, self.spending = work, spending
        self.limit_bytes = int(SHARE * device_bytes())
        self.done = 0
        # Three parts stand alone; a number of steps has one of its whole program and, if that exists, one of the head.
        methods = [METHODS[name] for name in NAMES]
        self.total = 3 + sum(len(self._grid(method)) * (1 if method.whole_network else 2) for method in methods)

    def everything(self) -> Efficiency:
        spending = self.spending
        network = _measurement(self._part("network", "the network", {}, self._network))
        cells: list[Cell] = []
        for name in ORDER:
            cells += self._cells(METHODS[name], network.median_ms)
        heads = self._part("turns", "heads in turns", {"steps": spending.turns, "methods": HEAD_NAMES}, self._heads)
        details = {"steps": spending.turns, "methods": WHOLE_NAMES}
        whole = self._part("whole", "whole programs in turns", details, self._whole_in_turns)
        turns = Interleaved(
            spending.turns,
            {name: _measurement(row) for name, row in heads.items()},
            _measurement(whole.pop("network")),
            {name: _measurement(row) for name, row in whole.items()},
        )
        cells.sort(key=lambda cell: NAMES.index(cell.method))
        return Efficiency(
            self.work.budget,
            spending,
            self._features,
            self.limit_bytes,
            network,
            tuple(cells),
            turns,
            self.work.environment(),
        )

    def _part(self, name: str, what: str, details: Mapping[str, Any], compute: Any) -> Any:
        self.work.on_progress(what, min(self.done / self.total, 1.0))
        self.done += 1
        configuration = {
            "network": converter.unstructure(self.spending.network, BackboneConfig),
            "image_size": self.spending.image_size,
            "seconds": [self.spending.seconds, self.spending.once_s],
            "limit_bytes": self.limit_bytes,
            "cores": os.cpu_count(),
            "processor": processor(),
            **details,
        }
        return self.work.kept(name, configuration, compute)

    def _grid(self, method: Method) -> tuple[int, ...]:
        return self.spending.network_steps if method.whole_network else self.spending.steps

    # Tasks

    @functools.cached_property
    def _images(self) -> Episode:
        return images_of_task(self.spending.image_size, WAYS, SHOTS, QUERIES)

    @functools.cached_property
    def _backbone(self) -> Any:
        size = self.spending.image_size
        return self.spending.network.build((size, size, CHANNELS), jax.random.key(0), convolve)

    @functools.cached_property
    def _features(self) -> int:
        return self._backbone.embedding_size

    @functools.cached_property
    def _embedded(self) -> Episode:
        """The task's embeddings by the untrained network."""
        batch = jax.tree.map(lambda x: x[None], self._images)
        statistics = self._backbone.initial_statistics()
        embed = eqx.filter_jit(embed_batch)
        return jax.tree.map(lambda x: x[0], embed(self._backbone, batch, statistics, Normalisation.BATCH)[0])

    def _whole(self, method: Method, steps: int) -> Program:
        learner = method.build(self.spending.network, self.spending.image_size, WAYS, steps)
        return whole_program(learner, self._images)

    def _head(self, method: Method, steps: int) -> Program:
        return head_program(method.build_head(self._features, WAYS, steps), self._embedded)

    # Parts

    def _network(self) -> dict[str, Any]:
        program = network_program(self._backbone, self._images)
        return asdict(self._timed({"network": program})["network"])

    def _heads(self) -> dict[str, Any]:
        programs = {name: self._head(METHODS[name], self.spending.turns) for name in HEAD_NAMES}
        return {name: asdict(row) for name, row in self._timed(programs).items()}

    def _whole_in_turns(self) -> dict[str, Any]:
        programs = {"network": network_program(self._backbone, self._images)}
        programs |= {name: self._whole(METHODS[name], self.spending.turns) for name in WHOLE_NAMES}
        # However slow they are, they are run five times: their ratios would be those of single moments.
        return {name: asdict(row) for name, row in self._timed(programs, once_s=float("inf")).items()}

    def _timed(self, programs: Mapping[str, Program], once_s: float | None = None) -> dict[str, Measurement]:
        functions: dict[str, Any] = {}
        for name, program in programs.items():
            compiled = program.compile()
            jax.block_until_ready(compiled(*program.arguments))
            functions[name] = compiled, program.arguments
        once_s = self.spending.once_s if once_s is None else once_s
        return interleaved(functions, self.spending.seconds, slow_call_s=once_s)

    def _cells(self, method: Method, network_ms: float) -> list[Cell]:
        """Return the cells of one method, of few steps first: they tell how long more of them would take."""
        found: list[Cell] = []
        for steps in self._grid(method):
            what = f"{method.title}, n = {steps:,}"
            ran = [cell for cell in found if cell.calls]
            expected = _at(ran, steps, "time_ms" if method.whole_network else "head_time_ms")
            # In proportion to a single number of steps, a few more would look much longer than they are.
            guessed = len(ran) > 1 or steps > FEW * self._grid(method)[0]
            too_slow = not method.adaptive and guessed and (expected or 0.0) > 1e3 * self.spending.longest_s
            too_large = bool(found) and found[-1].memory.value > max(self.limit_bytes, PAPER_BYTES)
            known = method.whole_network and too_slow and _level(found) and steps != self._grid(method)[-1]
            memory, row = None, {"bytes": None, "time": None}
            if not (too_large or known):
                memory = self._memory(method, steps, what)
                details = {"method": method.name, "steps": steps, "run": not too_slow}
                measure = functools.partial(self._measure, method, steps, not too_slow)
                row = self._part(f"{method.name}-{steps}", what, details, measure)
            found.append(self._cell(method, steps, found, row, memory, network_ms))
        return found

    def _memory(self, method: Method, steps: int, what: str) -> int | None:
        """Return the compiler's figure for the whole program, for methods where that is not what is run."""
        if method.whole_network:
            return None
        name = f"{method.name}-whole" if method.fixed_program else f"{method.name}-{steps}-whole"
        details = {"method": method.name, "steps": None if method.fixed_program else steps}
        return self._part(name, what, details, lambda: self._compile_whole(method, steps))["bytes"]

    def _compile_whole(self, method: Method, steps: int) -> dict[str, int]:
        return {"bytes": temporary_bytes(self._whole(method, steps).compile())}

    def _measure(self, method: Method, steps: int, run: bool) -> dict[str, Any]:
        """Compile the program that is run, and run it if it fits and is to be `run`."""
        program = self._whole(method, steps) if method.whole_network else self._head(method, steps)
        compiled = program.compile()
        result: dict[str, Any] = {"bytes": temporary_bytes(compiled), "time": None, "peak": None}
        if run and result["bytes"] <= self.limit_bytes:
            before = device_peak_bytes()
            _, (taken, ok) = compiled(*program.arguments)
            result |= {"solver_steps": int(taken), "peak": peak_raised_to(before, device_peak_bytes())}
            if not ok:
                return result | {"failed": True}
            functions: Mapping[str, Any] = {"program": (compiled, program.arguments)}
            timed = interleaved(functions, self.spending.seconds, slow_call_s=self.spending.once_s)
            result["time"] = asdict(timed["program"])
        return result

    def _cell(
        self,
        method: Method,
        steps: int,
        found: list[Cell],
        row: dict[str, Any],
        whole_bytes: int | None,
        network_ms: float,
    ) -> Cell:
        """Return what was measured, and where it was not, what the cells `found` before it come to."""
        time = None if row["time"] is None else _measurement(row["time"])
        memory = _estimate(found, steps, "memory", row["bytes"] if method.whole_network else whole_bytes)
        assert memory is not None, "the program of fewest steps is always compiled"
        run_bytes = memory.value if row["bytes"] is None else row["bytes"]
        limit = None
        if time is None:
            limit = Limit.MEMORY if run_bytes > self.limit_bytes else Limit.TIME
            limit = Limit.FAILURE if row.get("failed") else limit
        cell = Cell(
            method.name,
            steps,
            round(STEP * steps, 6),
            memory=memory,
            time_ms=_estimate(found, steps, "time_ms", None if time is None else time.median_ms),
            quartiles_ms=None if time is None else time.quartiles_ms,
            calls=0 if time is None else time.calls,
            solver_steps=row.get("solver_steps"),
            limit=limit,
            device_peak_bytes=row.get("peak"),
        )
        if method.whole_network:
            return cell
        head = _estimate(found, steps, "head_time_ms", None if time is None else time.median_ms)
        return dataclasses.replace(
            cell,
            time_ms=None if head is None else Estimate(head.value + network_ms, head.measured),
            head_time_ms=head,
            head_memory=_estimate(found, steps, "head_memory", row["bytes"]),
        )


def _at(cells: Sequence[Cell], steps: int, field: str) -> float | None:
    """Return what a field of measured `cells` comes to at `steps`; `None` without any."""
    estimates = [(cell.steps, getattr(cell, field)) for cell in cells]
    measured = [(at, estimate.value) for at, estimate in estimates if estimate is not None and estimate.measured]
    return go_on([at for at, _ in measured], [value for _, value in measured], steps) if measured else None


def _estimate(found: Sequence[Cell], steps: int, field: str, measured: float | int | None) -> Estimate | None:
    """Return a number that was `measured`, or what the cells `found` come to; `None` without any."""
    if measured is not None:
        return Estimate(float(measured), True)
    expected = _at(found, steps, field)
    return None if expected is None else Estimate(expected, False)


def _level(found: Sequence[Cell]) -> bool:
    """Whether the memory of the last two cells is the same: then only the greatest number of steps is compiled."""
    return len(found) > 1 and abs(found[-1].memory.value / found[-2].memory.value - 1) < LEVEL


def _measurement(row: Mapping[str, Any]) -> Measurement:
    return Measurement(**{**row, "quartiles_ms": tuple(row["quartiles_ms"])})
