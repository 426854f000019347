"""Time and memory of the meta-gradients of one 5-way 5-shot task with 1600 features, against the horizon.

Run:     python benchmarks/meta_gradients.py
Writes:  benchmarks/results/meta_gradients.json
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from comln import CrossEntropy, ForwardSensitivity, SpanAdjoint, gradient_flow
from comln.reproduce.measure import environment, interleaved

WAYS, SUPPORT, SIZE, QUERIES = 5, 25, 1600, 75
HORIZONS = (1.0, 100.0, 10_000.0)


def task():
    """Return initial weights, support and query embeddings of mean squared norm one, clustered by class, in float32."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(WAYS, SIZE))

    def points(count):
        return (centres[np.arange(count) % WAYS] + rng.normal(size=(count, SIZE))) / np.sqrt(2 * SIZE)

    weights = 0.3 * rng.normal(size=(WAYS, SIZE)) / np.sqrt(SIZE)
    return tuple(jnp.asarray(array, jnp.float32) for array in (weights, points(SUPPORT), points(QUERIES)))


def mean_loss(weights, embeddings):
    """Return the mean cross-entropy of embeddings whose classes take turns."""
    labels = jnp.eye(WAYS, dtype=embeddings.dtype)[jnp.arange(len(embeddings)) % WAYS]
    return jnp.mean(CrossEntropy().value(embeddings @ weights.T, labels))


def through_flow(meta_gradient):
    """Return the gradients of the query loss after adaptation in all its arguments."""

    def query_loss(weights, support, query, horizon):
        labels = jnp.eye(WAYS, dtype=support.dtype)[jnp.arange(SUPPORT) % WAYS]
        adapted, _ = gradient_flow(weights, support, labels, horizon, meta_gradient=meta_gradient)
        return mean_loss(adapted, query)

    return jax.grad(query_loss, argnums=(0, 1, 2, 3))


def one_step(weights, support, query, step):
    """Return the gradients of the query loss after one plain gradient step: the least that adaptation can cost."""

    def query_loss(weights, support, query, step):
        return mean_loss(weights - step * jax.grad(mean_loss)(weights, support), query)

    return jax.grad(query_loss, argnums=(0, 1, 2, 3))(weights, support, query, step)


def main():
    """Measure, write the JSON, print the ratios."""
    arrays = task()
    functions = {"one gradient step": (one_step, (*arrays, jnp.float32(1.0)))}
    for horizon in HORIZONS:
        for meta_gradient in (SpanAdjoint(), ForwardSensitivity()):
            name = f"{type(meta_gradient).__name__}, T = {horizon:g}"
            functions[name] = (through_flow(meta_gradient), (*arrays, jnp.float32(horizon)))
    measured = interleaved(functions)
    ratios = {}
    for horizon in HORIZONS:
        ours, papers = (measured[f"{name}, T = {horizon:g}"] for name in ("SpanAdjoint", "ForwardSensitivity"))
        ratios[f"T = {horizon:g}"] = {
            "times faster": round(papers.median_ms / ours.median_ms, 1),
            "of the memory": round(ours.temporary_bytes / papers.temporary_bytes, 4),
            "of one gradient step's time": round(ours.median_ms / measured["one gradient step"].median_ms, 2),
        }
    result = {
        "task": {"ways": WAYS, "support": SUPPORT, "features": SIZE, "queries": QUERIES, "dtype": "float32"},
        "environment": environment(),
        "measurements": {name: dataclasses.asdict(measurement) for name, measurement in measured.items()},
        "SpanAdjoint against ForwardSensitivity": ratios,
    }
    path = Path(__file__).parent / "results" / "meta_gradients.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(ratios, indent=2))


if __name__ == "__main__":
    main()
