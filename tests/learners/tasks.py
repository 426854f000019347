"""Small tasks of embeddings, and the gradient of what a learner makes small on one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from comln.episode import Episode, Examples


def examples(seed: int = 0, ways: int = 3, shots: int = 2, size: int = 4, spread: float = 0.7) -> Examples:
    """Return clustered embeddings; the clusters are the same for every seed."""
    classes = np.repeat(np.arange(ways), shots)
    centres = np.random.default_rng(99).normal(size=(ways, size))
    inputs = centres[classes] + spread * np.random.default_rng(seed).normal(size=(len(classes), size))
    return Examples(jnp.asarray(inputs), jnp.eye(ways)[classes], jnp.ones(len(classes)))


def episode(seed: int = 0, **settings) -> Episode:
    return Episode(examples(seed, **settings), examples(seed + 1000, **settings))


def objective_and_gradient(learner, task: Episode):
    """Return the objective on a task, and its gradient in the meta-parameters."""
    parameters, fixed = eqx.partition(learner, eqx.is_inexact_array)
    compiled = jax.jit(jax.value_and_grad(lambda p: eqx.combine(p, fixed).objective(task)[0]))
    return compiled(parameters)


def vector_of(tree):
    """Return the floating-point numbers of a tree as a vector, and how to put them back."""
    numbers, fixed = eqx.partition(tree, eqx.is_inexact_array)
    vector, back = ravel_pytree(numbers)
    return vector, lambda vector: eqx.combine(back(vector), fixed)


def assert_trees_close(a, b, **tolerance):
    a, b = (jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (a, b))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, **tolerance)
