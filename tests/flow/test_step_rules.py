import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.flow.step_rules import DORMAND_PRINCE, EULER, RODAS, TSITOURAS

RULES = {"Tsitouras": TSITOURAS, "Dormand-Prince": DORMAND_PRINCE, "Rodas": RODAS, "Euler": EULER}


def field(state, parameters, constants):
    x, y = state
    return jnp.stack([y - x**2, -x * y + jnp.sin(x)])


def dense_resolvent(rate):
    def resolvent(state, shift, parameters, constants):
        matrix = shift * jnp.eye(state.size) - jax.jacobian(rate)(state, parameters, constants)
        return lambda right: jnp.linalg.solve(matrix, right)

    return resolvent


def walk(rule, rate, start, steps, end=1.0):
    resolvent, step = dense_resolvent(rate), jnp.asarray(end / steps)

    def one(state, _):
        new, _, error = rule.take(rate, resolvent, state, rate(state, (), ()), step, (), ())
        return new, jnp.max(jnp.abs(error))

    return jax.jit(lambda state: jax.lax.scan(one, state, length=steps))(start)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_its_order_and_its_estimate_one_less(name):
    rule, start = RULES[name], jnp.array([0.7, 0.3])
    exact = walk(TSITOURAS, field, start, 2000)[0]
    (coarse, coarse_error), (fine, fine_error) = (walk(rule, field, start, steps) for steps in (10, 20))
    order = np.log2(jnp.max(jnp.abs(coarse - exact)) / jnp.max(jnp.abs(fine - exact)))
    assert rule.order - 0.3 <= order <= rule.order + 0.8
    if rule.adaptive:
        # The estimate of one step is that of the lower order of the pair: O(h^p).
        assert np.log2(coarse_error[0] / fine_error[0]) == pytest.approx(rule.order, abs=0.6)


def amplification(rule, x):
    """Return R(-x): one step of length one on dy/dt = -x y."""

    def rate(state, parameters, constants):
        return -parameters * state

    def resolvent(state, shift, parameters, constants):
        return lambda right: right / (shift + parameters)

    one = jnp.ones(1)
    take = jax.vmap(lambda x: rule.take(rate, resolvent, one, -x * one, jnp.ones(()), x, ())[0][0])
    return np.asarray(take(jnp.asarray(x)))


@pytest.mark.parametrize("name", RULES)
def test_every_mode_is_as_right_as_the_step_limits_promise(name):
    rule = RULES[name]
    near = np.linspace(1e-2, 1.0, 400)
    assert np.all(np.abs(amplification(rule, near) - np.exp(-near)) <= rule.near * near ** (rule.order + 1))
    far = np.geomspace(1e-2, 1e7 if rule is RODAS else rule.stability, 4000)
    error = np.abs(amplification(rule, far) - np.exp(-far))
    for ratio in (0.05, 0.1, 0.2, 0.4):
        assert np.max(error * np.exp(-far / ratio)) <= rule.far * ratio ** (rule.order + 1)


@pytest.mark.parametrize("name", ["Tsitouras", "Dormand-Prince", "Euler"])
def test_explicit_rules_are_stable_up_to_their_limit_and_not_beyond(name):
    rule = RULES[name]
    inside = np.linspace(0.0, rule.stability, 500)
    assert np.all(np.abs(amplification(rule, inside)) <= 1 + 1e-3)
    assert abs(amplification(rule, np.array([1.02 * rule.stability]))[0]) > 1


def test_rodas_is_stable_and_forgets_what_is_infinitely_fast():
    assert np.all(np.abs(amplification(RODAS, np.geomspace(1e-3, 1e9, 2000))) <= 1)
    assert abs(amplification(RODAS, np.array([1e8]))[0]) < 1e-6


def test_a_step_of_length_zero_is_the_identity_in_both_directions():
    state = jnp.array([0.7, 0.3])
    for rule in RULES.values():

        def take(state, rule=rule):
            first = field(state, (), ())
            return rule.take(field, dense_resolvent(field), state, first, jnp.zeros(()), (), ())[0]

        np.testing.assert_array_equal(take(state), state)
        np.testing.assert_array_equal(jax.jacrev(take)(state), jnp.eye(2))
