"""Time and memory of compiled functions, and where they were measured."""

__all__ = [
    "COMMIT",
    "Measurement",
    "commit_of",
    "device_bytes",
    "device_peak_bytes",
    "environment",
    "interleaved",
    "numerics",
    "peak_raised_to",
    "temporary_bytes",
]

import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled

from comln.run import NUMERIC


@dataclass(frozen=True)
class Measurement:
    """What one compiled function costs.

    - `median_ms`, `quartiles_ms`: wall-clock time of a call, results ready, over all calls.
    - `temporary_bytes`: the compiler's figure for memory besides arguments and results.
    - `compile_s`: time to trace and compile.
    - `calls`: how many were timed.
    """

    median_ms: float
    quartiles_ms: tuple[float, float]
    temporary_bytes: int
    compile_s: float
    calls: int


def interleaved(
    functions: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]],
    seconds: float = 3.0,
    most_calls: int = 200,
    slow_call_s: float = float("inf"),
) -> dict[str, Measurement]:
    """Measure several functions in one process, taking turns, so that their ratio is not that of two moments.

    - `functions`: by name, a function (compiled once, if it comes with several arguments of one shape) and its
      arguments.
    - `seconds`: about how long to call each, five times at least.
    - `slow_call_s`: a function whose call takes longer is called once only.
    """
    programs, compiled, compile_s = {}, {}, {}
    for name, (function, arguments) in functions.items():
        key = (function, jax.tree.structure(arguments), *((x.shape, x.dtype) for x in jax.tree.leaves(arguments)))
        if key not in programs:
            began = time.perf_counter()
            program = function if isinstance(function, Compiled) else jax.jit(function).lower(*arguments).compile()
            programs[key] = program, time.perf_counter() - began
        compiled[name], compile_s[name] = programs[key]
    times: dict[str, list[float]] = {name: [] for name in functions}

    def call(name: str) -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled[name](*functions[name][1]))
        return time.perf_counter() - began

    slow = {}
    for name in functions:
        first = call(name)
        if first > slow_call_s:
            slow[name] = [first]
    while any(_wants_more(times[name], seconds, most_calls) for name in functions if name not in slow):
        for name in functions:
            if name not in slow and _wants_more(times[name], seconds, most_calls):
                times[name].append(call(name))
    times |= slow
    return {
        name: Measurement(
            median_ms=_milliseconds(times[name], 50.0),
            quartiles_ms=(_milliseconds(times[name], 25.0), _milliseconds(times[name], 75.0)),
            temporary_bytes=temporary_bytes(compiled[name]),
            compile_s=round(compile_s[name], 2),
            calls=len(times[name]),
        )
        for name in functions
    }


def temporary_bytes(compiled: Compiled) -> int:
    """Return the compiler's figure for the memory of a program besides its arguments and results."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise ValueError("This device's compiler does not tell how much memory a program takes.")
    return int(analysis.temp_size_in_bytes)


def device_bytes() -> int:
    """Return the memory of the first device: of an accelerator what it lends, of a CPU that of its machine."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def device_peak_bytes() -> int | None:
    """Return the most memory that this process has had on the first device; `None` where it does not tell, as a CPU."""
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else int(peak)


def peak_raised_to(before: int | None, after: int | None) -> int | None:
    """Return the peak `after` something ran, if that raised it from `before`: else it says nothing of what ran.

    >>> peak_raised_to(5, 7), peak_raised_to(7, 7), peak_raised_to(None, None)
    (7, None, None)
    """
    return after if before is not None and after is not None and after > before else None


def _wants_more(spent: list[float], seconds: float, most_calls: int) -> bool:
    return len(spent) < 5 or (sum(spent) < seconds and len(spent) < most_calls)


def _milliseconds(times: list[float], percentile: float) -> float:
    return round(1e3 * float(np.percentile(times, percentile)), 4)


def environment() -> dict[str, Any]:
    """Return the device, the versions and the commit that a measurement belongs to."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "commit": COMMIT,
        "versions": {"python": platform.python_version(), **_versions()},
    }


def numerics() -> dict[str, Any]:
    """Return what numbers depend on besides what is computed: the device, the precision, the libraries.

    `products` is the precision of matrix products, where it was set apart.
    """
    config: Any = jax.config
    return {
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "precision": str(jnp.result_type(float)),
        "products": config.jax_default_matmul_precision,
        "versions": _versions(),
    }


def processor() -> str:
    """Return the name of this machine's processor, as the system has it; on others than Linux, of its kind at least."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _versions() -> dict[str, str]:
    return {name: version(name) for name in NUMERIC}


def commit_of(file: Path) -> str:
    """Return the commit of a module `PACKAGE/PART/FILE` of a checkout, or "unknown".

    It is marked `-dirty` if files of the project that git knows were changed, but for results that a measurement has
    written there. A file that git does not know, such as an installed one in an environment that lies in somebody's
    repository, belongs to no commit.
    """
    # A hook of git has variables of its own, which are about another repository.
    around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(file.parents[2]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=around).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(file))
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("diff", "--name-only", "HEAD", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


COMMIT = commit_of(Path(__file__))
"""Of the code that this process runs: looked up when it begins, since a checkout may move on meanwhile."""
