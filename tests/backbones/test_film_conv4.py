"""CAVIA's network, against its layers written out one by one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import FilmConv4

PIXELS, FILTERS, WAYS, CONTEXT, EXAMPLES = 16, 3, 2, 4, 5


def network() -> FilmConv4:
    return FilmConv4.init(PIXELS, 1, FILTERS, WAYS, CONTEXT, jax.random.key(0))


def literal_logits(model: FilmConv4, images, context):
    """Convolution, normalisation by the batch, pooling, modulation in the third block only, ReLU; a linear layer."""
    film = np.asarray(model.film_weights) @ context + np.asarray(model.film_bias)
    hidden = np.asarray(images)
    for block, (convolution, norm) in enumerate(zip(model.convolutions, model.norms, strict=True)):
        kernel, height, width = np.asarray(convolution.kernel), *hidden.shape[1:3]
        padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
        mixed = sum(
            padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        ) + np.asarray(convolution.bias)
        mean, variance = mixed.mean(axis=(0, 1, 2)), mixed.var(axis=(0, 1, 2))
        normalised = (mixed - mean) / np.sqrt(variance + 1e-5) * np.asarray(norm.scale) + np.asarray(norm.shift)
        even = normalised[:, : height // 2 * 2, : width // 2 * 2]
        pooled = even.reshape(len(even), height // 2, 2, width // 2, 2, -1).max(axis=(2, 4))
        if block == 2:
            pooled = pooled * film[:FILTERS] + film[FILTERS:]
        hidden = np.maximum(pooled, 0)
    flat = hidden.reshape(len(hidden), -1)
    return flat @ np.asarray(model.linear_weights).T + np.asarray(model.linear_bias)


@pytest.mark.parametrize("seed", [1, 2])
def test_logits_are_those_of_the_layers_written_out(seed):
    model = network()
    key_images, key_context = jax.random.split(jax.random.key(seed))
    images = jax.random.normal(key_images, (EXAMPLES, PIXELS, PIXELS, 1))
    context = jax.random.normal(key_context, (CONTEXT,))
    found = eqx.filter_jit(lambda m, x, c: m.branch(m.trunk(x), c))(model, images, context)
    np.testing.assert_allclose(found, literal_logits(model, images, np.asarray(context)), rtol=1e-9, atol=1e-10)


def test_weights_are_drawn_within_the_authors_bounds_and_fill_them():
    model = FilmConv4.init(PIXELS, 1, 32, WAYS, 100, jax.random.key(0))
    features = 32
    for weights, bound in (
        (model.convolutions[1].kernel, np.sqrt(6 / (9 * 32))),
        (model.film_weights, np.sqrt(3 / 100)),
        (model.film_bias, 0.1),
        (model.linear_weights, np.sqrt(3 / features)),
    ):
        largest = float(jnp.max(jnp.abs(weights)))
        assert 0.9 * bound < largest <= bound
    assert all(float(jnp.max(jnp.abs(c.bias))) == 0 for c in model.convolutions if c.bias is not None)


def test_a_context_of_zero_modulates_by_the_bias_which_is_not_zero():
    model = network()
    hidden = jnp.ones((1, 2, 2, FILTERS))
    factor, shift = np.split(np.asarray(model.film_bias), 2)
    assert np.all(factor != 0) and np.all(shift != 0)
    images = jax.random.normal(jax.random.key(3), (EXAMPLES, PIXELS, PIXELS, 1))
    zero = model.branch(model.trunk(images), jnp.zeros(CONTEXT))
    other = model.branch(model.trunk(images), jnp.ones(CONTEXT))
    assert hidden.shape[-1] == len(factor) and float(jnp.max(jnp.abs(zero - other))) > 1e-3
