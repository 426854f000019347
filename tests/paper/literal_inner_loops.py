"""Inner loops written out one number at a time, to compare the methods' fast forms with. Slow, and meant to be read."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def cross_entropy(logits, label):
    """Return $-\\sum_n y_n \\log p_n$ of one example."""
    total = jnp.log(sum(jnp.exp(logit) for logit in logits))
    return sum(y * (total - logit) for y, logit in zip(label, logits, strict=True))


def support_loss(weights, embeddings, labels):
    """Return the mean of the examples' losses."""
    losses = [cross_entropy(weights @ x, y) for x, y in zip(embeddings, labels, strict=True)]
    return sum(losses) / len(losses)


def anil_head(weights, embeddings, labels, step, steps):
    r"""Return the head after $W \leftarrow W - \alpha \frac1M \sum_m (p_m - y_m) \phi_m^\top$, so many times."""
    for _ in range(steps):
        slope = jnp.zeros_like(weights)
        for x, y in zip(embeddings, labels, strict=True):
            exponentials = jnp.exp(weights @ x)
            slope = slope + jnp.outer(exponentials / jnp.sum(exponentials) - y, x) / len(labels)
        weights = weights - step * slope
    return weights


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def maml_of_two_points(weight, step, steps, query, first_order=False):
    r"""Return MAML's query loss and its derivative, worked out by hand for weights $(w, -w)$.

    The support is $+1$ of the first class and $-1$ of the second, the query is one point of the first. By symmetry the
    bias stays zero and a step is $w \leftarrow w + \alpha \sigma(-2w)$, whose derivative is
    $1 - 2 \alpha \sigma(2w) \sigma(-2w)$; the query loss is $\log(1 + e^{-2 w q})$. The derivative is along $(1, -1)$.
    """
    factor = 1.0
    for _ in range(steps):
        if not first_order:
            factor *= 1 - 2 * step * sigmoid(2 * weight) * sigmoid(-2 * weight)
        weight += step * sigmoid(-2 * weight)
    return math.log1p(math.exp(-2 * weight * query)), -2 * query * sigmoid(-2 * weight * query) * factor


def leap_increment(start, step, steps, loss, measure):
    r"""Return LEAP's update of a vector of parameters, and the length or energy of its path.

    For each segment, $\theta_i$ moves against the derivative of the segment's length where its end and the loss there
    are frozen, so that
    $\partial d / \partial \theta_i = [(\theta_i - \theta_{i+1}) + (f(\theta_i) - f_{i+1}) \nabla f(\theta_i)] / n_i$.
    Where the loss rose, its change counts as a fall.
    """
    total, measured, here = np.zeros(len(start)), 0.0, start
    for _ in range(steps):
        ahead = here - step * jax.grad(loss)(here)
        fall = abs(float(loss(here) - loss(ahead)))
        base = float(loss(here))

        def segment(point, ahead=ahead, fall=fall, base=base):
            square = jnp.sum((point - ahead) ** 2) + (loss(point) - (base - fall)) ** 2
            return jnp.sqrt(square) if measure == "length" else square

        slope = np.asarray(jax.grad(segment)(here))
        total += slope if measure == "length" else slope / 2
        measured += float(segment(here))
        here = ahead
    return total, measured
