"""Exactness over random problems that include the hard ones."""

import time

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import ForwardSensitivity, Integrator, SpanAdjoint
from comln.flow.integrator import FlowResult, Rodas4
from comln.flow.meta_gradients import Backpropagation
from tests.flow.problems import Problem, solve

TIGHT = Integrator(1e-10, 1e-10, max_steps=100_000)
SHAPES = ((6, 3, 8), (7, 2, 3))  # support, ways, features: in the span, in the rows


@st.composite
def problems(draw, shapes=SHAPES):
    """Draw embeddings with duplicate and collinear rows, any norm, masks, smoothed and contradictory labels."""
    support, ways, features = draw(st.sampled_from(shapes))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    embeddings = rng.normal(size=(support, features)) + draw(st.sampled_from([0.0, 2.0]))
    kind = draw(st.sampled_from(["plain", "duplicate", "collinear", "one example far larger"]))
    if kind == "duplicate":
        embeddings[1] = embeddings[0]
    elif kind == "collinear":
        embeddings[1], embeddings[2] = -2 * embeddings[0], 0.5 * embeddings[0]
    elif kind == "one example far larger":
        embeddings[0] *= 10
    mask = np.ones(support)
    if draw(st.booleans()):
        mask[-1], mask[0] = 0.0, 2.5
    norm = 10.0 ** draw(st.sampled_from([-6, -2, 0, 3, 6]))
    square = np.sum(mask * np.sum(embeddings**2, axis=1)) / mask.sum()
    embeddings *= np.sqrt(norm / square)
    smoothing = draw(st.sampled_from([0.0, 0.1]))
    labels = np.eye(ways)[rng.integers(0, ways, size=support)] * (1 - smoothing) + smoothing / ways
    weights = draw(st.sampled_from([0.0, 0.3, 3.0])) * rng.normal(size=(ways, features)) / np.sqrt(norm * features)
    query = rng.normal(size=(4, features)) * np.sqrt(norm / features)
    arrays = (weights, embeddings, labels, query, np.eye(ways)[np.arange(4) % ways])
    return Problem(*map(jnp.asarray, arrays)), norm, jnp.asarray(mask)


def spent(function):
    """Return how many seconds a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def distance(actual, expected, norm):
    """Return the largest difference of two meta-gradients, in units of logits, over the size of the expected one."""
    units = {"initial_weights": norm**-0.5, "embeddings": norm**0.5, "query": norm**0.5}
    size = max(float(jnp.linalg.norm(expected[name])) * unit for name, unit in units.items())
    return max(float(jnp.linalg.norm(actual[name] - expected[name])) * unit for name, unit in units.items()) / size


@pytest.mark.slow
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(problems(), st.floats(-2, 3), st.sampled_from([0.0, 0.01, 1.0]))
def test_exact_meta_gradients_agree_to_seven_digits(drawn, exponent, proximal):
    problem, norm, mask = drawn
    horizon, proximal = 10.0**exponent / norm, proximal * norm
    proximal = min(proximal, 10.0)
    _, info, reference = solve(problem, horizon, ForwardSensitivity(), TIGHT, jnp.asarray(proximal), mask)
    hypothesis.assume(bool(info.result == FlowResult.successful))
    for meta_gradient, integrator in ((SpanAdjoint(), TIGHT), (SpanAdjoint(), Integrator(1e-9, 1e-9, method=Rodas4()))):
        _, info, gradients = solve(problem, horizon, meta_gradient, integrator, jnp.asarray(proximal), mask)
        assert info.result == FlowResult.successful
        assert distance(gradients, reference, norm) < 1e-7


@pytest.mark.slow
@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(problems(SHAPES[:1]), st.floats(-2, 2))
def test_backpropagation_through_the_weights_agrees_as_well(drawn, exponent):
    problem, norm, mask = drawn
    horizon = 10.0**exponent / norm
    bounded = Integrator(1e-10, 1e-10, max_steps=1500)
    _, info, reference = solve(problem, horizon, Backpropagation("sqrt"), bounded, 0.0, mask)
    hypothesis.assume(bool(info.result == FlowResult.successful))
    _, info, gradients = solve(problem, horizon, SpanAdjoint(), TIGHT, 0.0, mask)
    assert info.result == FlowResult.successful
    assert distance(gradients, reference, norm) < 1e-7


@pytest.mark.slow
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(problems(), st.floats(-3, 10), st.sampled_from([0.0, 0.1, 10.0]))
def test_any_problem_is_solved_or_says_why_not_in_little_time(drawn, exponent, proximal):
    problem, norm, mask = drawn
    horizon = 10.0**exponent / norm
    arguments = (problem, horizon, SpanAdjoint(), Integrator(), jnp.asarray(proximal), mask)
    value, info, gradients = jax.block_until_ready(solve(*arguments))
    assert any(spent(lambda: jax.block_until_ready(solve(*arguments))) < 5 for _ in range(3))  # others may run as well
    if bool(info.result == FlowResult.successful):
        assert all(bool(jnp.all(jnp.isfinite(gradient))) for gradient in gradients.values())
        assert bool(jnp.isfinite(value))
    else:
        assert FlowResult[info.result]
        assert float(jnp.max(jnp.abs(gradients["initial_weights"]))) == 0.0
