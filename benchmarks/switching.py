"""What it brings that the shapes of a task decide when implicit steps take over from explicit ones.

Eight meta-gradients at once, of tasks with 30 % of the support labels wrong, whose flow gets stiff: with the rule of
the package, and with a hundred explicit steps for every shape, as it was. A batch of which some tasks switch and others
do not pays for both rules, so that near its bound each of the two is the slower one at some T.

Run:     python benchmarks/switching.py     some minutes on two cores
Writes:  benchmarks/results/switching.json
"""

import json
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from comln import CrossEntropy, gradient_flow
from comln.flow import head_solve
from comln.flow.lane_steps import WORTH_SWITCHING
from comln.reproduce.measure import environment, interleaved

TASKS = 8
SIZES = ((25, 5, 1600), (50, 5, 32), (100, 20, 640), (100, 20, 32), (200, 20, 32))
"""Support examples, ways, features."""
HORIZONS = (30.0, 100.0, 300.0, 1000.0)
MEAN_SQUARE = 14.5
"""Of a support embedding, as of the trained network of `comln reproduce task-horizon`."""


def tasks(support, ways, features):
    """Return support embeddings, labels of which 30 % are wrong, query embeddings and their right labels."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(TASKS, ways, features))
    right = np.arange(support) % ways

    def around(classes):
        drawn = centres[:, classes] + rng.normal(size=(TASKS, len(classes), features))
        return np.sqrt(MEAN_SQUARE / np.mean(np.sum(drawn**2, axis=-1))) * drawn

    shift = rng.integers(1, ways, (TASKS, support)) * (rng.random((TASKS, support)) < 0.3)
    of_query = np.arange(2 * ways) % ways
    arrays = around(right), np.eye(ways)[(right + shift) % ways], around(of_query), np.eye(ways)[of_query]
    return [jnp.asarray(x, jnp.float32) for x in (*arrays[:3], np.broadcast_to(arrays[3], (TASKS, *arrays[3].shape)))]


def program(support, ways, features, worth):
    """Return the compiled function of T and tasks to gradients in embeddings and T, and the steps.

    - `worth`: how many explicit steps to come are worth switching.
    """

    def loss(embeddings, horizon, labels, query, of_query):
        weights, info = gradient_flow(jnp.zeros((ways, features)), embeddings, labels, horizon)
        return jnp.mean(CrossEntropy().value(query @ weights.T, of_query)), info.steps

    def gradients(horizon, embeddings, *others):
        gradient = jax.vmap(jax.grad(loss, argnums=(0, 1), has_aux=True), in_axes=(0, None, 0, 0, 0))
        (in_embeddings, in_horizon), steps = gradient(embeddings, horizon, *others)
        return in_embeddings, in_horizon, steps

    jax.clear_caches()
    with mock.patch.object(head_solve, "worth_switching", lambda *shape: worth):
        return jax.jit(gradients).lower(jnp.float32(1.0), *tasks(support, ways, features)).compile()


def rows(size: tuple[int, int, int]):
    """Yield both rules at every horizon."""
    support, _, features = size
    rule = head_solve.worth_switching(support, min(support, features), support < features)
    programs = {"by shape": program(*size, rule), "after a hundred": program(*size, WORTH_SWITCHING)}
    arrays = tasks(*size)
    for horizon in HORIZONS:
        arguments = (jnp.float32(horizon), *arrays)
        measured = interleaved({name: (compiled, arguments) for name, compiled in programs.items()})
        results = {name: compiled(*arguments) for name, compiled in programs.items()}
        new, old = results["by shape"], results["after a hundred"]
        yield {
            "size": size,
            "horizon": horizon,
            "worth_switching": rule,
            "speed": round(measured["after a hundred"].median_ms / measured["by shape"].median_ms, 3),
            "largest difference in dL/dT": float(jnp.max(jnp.abs(new[1] - old[1])) / jnp.max(jnp.abs(old[1]))),
            "programs": {
                name: {
                    "median_ms": cost.median_ms,
                    "quartiles_ms": cost.quartiles_ms,
                    "temporary_bytes": cost.temporary_bytes,
                    "calls": cost.calls,
                    "steps": int(jnp.max(results[name][2])),
                }
                for name, cost in measured.items()
            },
        }


def main():
    """Measure all sizes and write them."""
    where, found = environment(), []
    for size in SIZES:
        for row in rows(size):
            found.append(row)
            print(size, row["horizon"], row["speed"], {k: v["steps"] for k, v in row["programs"].items()}, flush=True)
    path = Path(__file__).parent / "results" / "switching.json"
    path.write_text(json.dumps({"tasks": TASKS, "rows": found, **where}, indent=2) + "\n")


if __name__ == "__main__":
    main()
