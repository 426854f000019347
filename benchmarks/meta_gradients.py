"""Time and memory of every meta-gradient against the horizon, the size of the task and the number of tasks at once.

Run:     python benchmarks/meta_gradients.py            all; a quarter of an hour on two cores
         python benchmarks/meta_gradients.py --short    the sizes and horizons of the README alone
Writes:  benchmarks/results/meta_gradients.json         (meta_gradients-DEVICE.json on an accelerator)
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln import CrossEntropy, ForwardSensitivity, Integrator, SpanAdjoint, gradient_flow
from comln.flow.meta_gradients import (
    Backpropagation,
    ContinuousAdjoint,
    FirstOrder,
    ImplicitDifferentiation,
    NaiveForwardSensitivity,
)
from comln.reproduce.measure import environment, interleaved, temporary_bytes

HORIZONS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
MOST_BYTES = 6e9
SLOW_CALL_S = 8.0


class Size(NamedTuple):
    """A task: support examples, ways, features."""

    support: int
    ways: int
    features: int

    def __str__(self):
        return f"M={self.support}, N={self.ways}, d={self.features}"


SIZES = (Size(5, 5, 1600), Size(25, 5, 1600), Size(25, 5, 16000), Size(100, 20, 640), Size(250, 50, 640))
MAIN = SIZES[1]
BOUNDED = Integrator(max_steps=256)
METHODS = {
    "SpanAdjoint": (SpanAdjoint(), Integrator()),
    "ForwardSensitivity": (ForwardSensitivity(), Integrator()),
    "NaiveForwardSensitivity": (NaiveForwardSensitivity(), Integrator()),
    "Backpropagation, room for 256 steps": (Backpropagation(), BOUNDED),
    'Backpropagation("sqrt"), room for 256 steps': (Backpropagation("sqrt"), BOUNDED),
    "ContinuousAdjoint": (ContinuousAdjoint(), Integrator()),
    "FirstOrder": (FirstOrder(), Integrator()),
}


def task(size, seed=0):
    """Return initial weights, support and query embeddings of mean squared norm one, clustered by class, in float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(size.ways, size.features))

    def points(count):
        noise = rng.normal(size=(count, size.features))
        return (centres[np.arange(count) % size.ways] + noise) / np.sqrt(2 * size.features)

    weights = 0.3 * rng.normal(size=(size.ways, size.features)) / np.sqrt(size.features)
    return tuple(jnp.asarray(x, jnp.float32) for x in (weights, points(size.support), points(15 * size.ways)))


def tasks(size, count):
    """Return `count` tasks, stacked; one task as it is."""
    return task(size) if count == 1 else tuple(map(jnp.stack, zip(*(task(size, i) for i in range(count)), strict=True)))


def one_hot(embeddings, ways):
    """Return labels whose classes take turns."""
    return jnp.eye(ways, dtype=embeddings.dtype)[jnp.arange(len(embeddings)) % ways]


def mean_loss(weights, embeddings):
    """Return the mean cross-entropy of embeddings whose classes take turns."""
    labels = one_hot(embeddings, len(weights))
    return jnp.mean(CrossEntropy().value(embeddings @ weights.T, labels))


def over_tasks(function, count):
    """Return `function` of a task and a horizon for `count` tasks with one horizon."""
    return function if count == 1 else jax.vmap(function, in_axes=(0, 0, 0, None))


def through_flow(meta_gradient, integrator=BOUNDED, proximal=0.0, count=1, limit=False):
    """Return the gradients of the query loss after adaptation in all its arguments."""

    def query_loss(weights, support, query, horizon):
        labels = one_hot(support, len(weights))
        adapted, _ = gradient_flow(
            weights,
            support,
            labels,
            jnp.inf if limit else horizon,
            proximal=proximal,
            meta_gradient=meta_gradient,
            integrator=integrator,
        )
        return mean_loss(adapted, query)

    return over_tasks(jax.grad(query_loss, argnums=(0, 1, 2, 3)), count)


def one_step(count=1):
    """Return the gradients of the query loss after one plain gradient step: the least that adaptation can cost."""

    def query_loss(weights, support, query, step):
        return mean_loss(weights - step * jax.grad(mean_loss)(weights, support), query)

    return over_tasks(jax.grad(query_loss, argnums=(0, 1, 2, 3)), count)


def adapt(count):
    """Return the adapted weights, without any gradient."""

    def weights_at(weights, support, query, horizon):
        return gradient_flow(weights, support, one_hot(support, len(weights)), horizon)[0]

    return over_tasks(weights_at, count)


def why_not(name, size, count=1):
    """Return why a method is left out at a size, or None. The figure is of its state, before anything is compiled."""
    support, ways, features = size
    numbers = {
        "ForwardSensitivity": support**2 * ways**2 + support**3 * ways,
        "NaiveForwardSensitivity": (ways * features) ** 2 + ways * features * support * features,
    }.get(name, 0)
    # Eight stages of a Runge-Kutta step, and what multiplies them.
    needed = 4 * 10 * numbers * count
    return f"needs about {needed / 1e9:.0f} GB" if needed > MOST_BYTES else None


def measure(rows, functions, size, count, seconds):
    """Measure the functions, by (name, horizon), and append a row for each."""
    for (name, horizon), result in interleaved(functions, seconds=seconds, slow_call_s=SLOW_CALL_S).items():
        row = {"size": size._asdict(), "tasks": count, "method": name, "horizon": horizon}
        rows.append(row | dataclasses.asdict(result))
        print(f"{size}, {count} tasks, T={horizon}: {name}: {result.median_ms:.3f} ms", flush=True)


def compare_methods(rows, size, count, horizons, names, seconds):
    """Measure one gradient step and the methods `names` at each horizon; say of the others why they are left out."""
    arrays = tasks(size, count)
    functions = {("one gradient step", 1.0): (one_step(count), (*arrays, jnp.float32(1.0)))}
    for name in names:
        reason = why_not(name, size, count)
        if reason is not None:
            row = {"size": size._asdict(), "tasks": count, "method": name, "left out": reason}
            rows.append(row)
            print(row, flush=True)
            continue
        meta_gradient, integrator = METHODS[name]
        function = through_flow(meta_gradient, integrator, count=count)
        for horizon in horizons:
            functions[name, horizon] = (function, (*arrays, jnp.float32(horizon)))
    # The slow ones apart, so that nothing waits for their turns; each group has its own floor.
    slow = {key for key in functions if key[0] in ("ForwardSensitivity", "NaiveForwardSensitivity")}
    measure(rows, {key: value for key, value in functions.items() if key not in slow}, size, count, seconds)
    too_slow = set()
    for name, horizon in sorted(slow):
        if name in too_slow:
            continue
        measure(rows, {(name, horizon): functions[name, horizon]}, size, count, seconds)
        if rows[-1]["median_ms"] > 1e3 * SLOW_CALL_S and horizon != horizons[-1]:
            too_slow.add(name)
            reason = f"beyond T = {horizon:g}: slow"
            rows.append({"size": size._asdict(), "tasks": count, "method": name, "left out": reason})


def limits(rows, seconds):
    """Measure the limit of the flow with a proximal term, which is solved for rather than followed."""
    arrays = (*task(MAIN), jnp.float32(1.0))
    measure(
        rows,
        {
            ("one gradient step", 1.0): (one_step(), arrays),
            ("SpanAdjoint, proximal 1", "inf"): (through_flow(SpanAdjoint(), Integrator(), 1.0, limit=True), arrays),
            ("ImplicitDifferentiation, proximal 1", "inf"): (
                through_flow(ImplicitDifferentiation(), Integrator(), 1.0, limit=True),
                arrays,
            ),
        },
        MAIN,
        1,
        seconds,
    )


def memory_for_more_steps():
    """Return SpanAdjoint's temporary memory by the limit on steps."""
    arrays = (*task(MAIN), jnp.float32(1.0))
    return {
        str(steps): temporary_bytes(
            jax.jit(through_flow(SpanAdjoint(), Integrator(max_steps=steps))).lower(*arrays).compile()
        )
        for steps in (4096, 65536)
    }


def main():
    """Measure, write the JSON."""
    short = "--short" in sys.argv[1:]
    rows, seconds = [], 1.0
    compare_methods(rows, MAIN, 1, (1.0, 100.0, 1e4) if short else HORIZONS, list(METHODS), seconds)
    limits(rows, seconds)
    for count in (16, 64):
        names = ["SpanAdjoint", "FirstOrder"] if count == 64 else ["SpanAdjoint", "ForwardSensitivity", "FirstOrder"]
        compare_methods(rows, MAIN, count, (1.0,) if short else (1.0, 100.0, 1e4), names, seconds)
    for size in SIZES:
        if size != MAIN:
            names = ["SpanAdjoint", "ForwardSensitivity"] if short else list(METHODS)
            compare_methods(rows, size, 1, (1.0, 1e4) if short else HORIZONS, names, seconds)
    heads = Size(25, 5, 640)
    arrays = (*tasks(heads, 1024), jnp.float32(10.0))
    measure(rows, {("adaptation alone", 10.0): (adapt(1024), arrays)}, heads, 1024, seconds)
    result = {
        "dtype": "float32",
        "environment": environment(),
        "rows": rows,
        "SpanAdjoint's temporary bytes by max_steps": memory_for_more_steps(),
    }
    device = jax.devices()[0]
    suffix = "" if device.platform == "cpu" else f"-{device.device_kind.replace(' ', '-')}"
    path = Path(__file__).parent / "results" / f"meta_gradients{suffix}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
