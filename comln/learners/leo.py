"""LEO: adapt a linear head through a latent code that decodes to its weights (Rusu et al., 2019)."""

__all__ = ["LEO"]

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Episode, Examples
from comln.heads import LinearHead
from comln.learners.base import AbstractLearner, AdaptationInfo, Outcome, ParameterGroup, mean_loss, smooth_labels
from comln.losses import CrossEntropy
from comln.typing import Array, Bool, Float, PRNGKeyArray, Scalar

SMALLEST_SPREAD = 1e-10
"""The floor of every standard deviation, which keeps its logarithm finite."""

LARGEST_EXPONENT = 20.0
"""Where the standard deviation stops growing exponentially: far above any that is of use, far below overflow."""


class LEO(AbstractLearner):
    r"""Decode a linear head from a latent code, adapt the code by gradient steps, then the weights.

    **Code.** The embeddings $\phi_m$ are encoded, compared in pairs, and averaged over each class $n$:

    $$
    r_m = \frac{\sum_j q_j R(E\phi_m, E\phi_j)}{\sum_j q_j}, \qquad
    c_n = \sum_m s_{mn} r_m, \qquad s_{mn} = \frac{q_m y_{mn}}{\sum_j q_j y_{jn}},
    $$

    with the labels $y$ and the weights $q$ of the examples (`mask`). Each support example carries a copy of its class's
    code, $(\mu_m, u_m) = \sum_n y_{mn} c_n$, and draws a latent of its own, $z_m \sim N(\mu_m, \sigma(u_m)^2)$. From
    $Dz_m$, read in the same way, it draws weights $v_m$; the head is the mean of the copies,
    $W_n = \sum_m s_{mn} v_m$.

    **Adaptation.** On the support loss $L = \sum_m q_m \ell(W\phi_m, y_m)$, a sum and not a mean, with $\ell$ the
    cross-entropy: `steps_in_latents` times $z_m \leftarrow z_m - a_z \odot \partial L / \partial z_m / q_m$, where each
    step draws the weights anew; then, from weights drawn once more, `steps_in_weights` times
    $v_m \leftarrow v_m - a_v \odot \partial L / \partial v_m / q_m$. Meta-gradients go through all of it. (The $q_m$ is
    one where the method was defined. With it, an example of weight two moves the head as two examples do.)

    **Objective.** With $z$ and $z'$ the latents before and after their steps, per task,

    $$
    \operatorname{mean}_\text{query} \ell + \beta \operatorname{mean} \log \frac{N(z; \mu, \sigma^2)}{N(z; 0, 1)} +
    \gamma \operatorname{mean} (\bar z' - z)^2 + \frac{\lambda_1}{2} \lVert E, R, D \rVert^2 +
    \lambda_2 \operatorname{mean} (\operatorname{corr} D - I)^2,
    $$

    where $\bar z'$ is not differentiated and $\operatorname{corr} D$ holds the cosines between the decoder's rows.

    With a key, latents and weights are drawn, and embeddings pass through dropout wherever they are used: on their way
    to the encoder, in the loss of every inner step (each time another one), and in the query logits of the objective.
    Without a key nothing is drawn or dropped: means take the place of draws, the copies of a class are equal, and the
    second term of the objective is its expectation, the divergence between the two normal distributions.

    - `backbone`: the embedding network. The initial step sizes suit embeddings whose norm is about one.
    - `encoder`: $E$.
    - `relation`: the matrices of $R$: three layers without bias, ReLU between them. The first sees two codes at once.
    - `decoder`: $D$, one row for each latent coordinate.
    - `latent_step`, `weight_step`: $a_z$ and $a_v$, learned for each coordinate.
    - `dropout`: share of the coordinates that dropout sets to zero, in $[0, 1)$.
    - `kl_weight`: $\beta$.
    - `encoder_penalty`: $\gamma$.
    - `l2_penalty`, `orthogonality_penalty`: $\lambda_1$ and $\lambda_2$.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.

    Nothing depends on the number of ways or shots but the spread of a new decoder's draws, $\sqrt{2 / (N + d)}$ for
    $N$ ways and $d$ features. A class without support examples has weights of zero; without any example the adaptation
    fails, as it does where a number is not finite.

    **Example:** with a decoder of zeros, one step of size 1 in the weights: from $p = 1/2$, the points $\pm 1$ give
    $\partial L / \partial v = (-1, 1)$.

    >>> from comln.backbones import Identity
    >>> learner = LEO.init(Identity(1), jax.random.key(0), steps_in_weights=1, weight_step=1.0)
    >>> learner = eqx.tree_at(lambda l: l.decoder, learner, jnp.zeros_like(learner.decoder))
    >>> head, _ = learner.adapt(Examples(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2)))
    >>> head.weights.tolist()
    [[1.0], [-1.0]]
    """

    backbone: AbstractBackbone
    encoder: Float[Array, "feature latent"]
    relation: tuple[
        Float[Array, "2*latent 2*latent"], Float[Array, "2*latent 2*latent"], Float[Array, "2*latent 2*latent"]
    ]
    decoder: Float[Array, "latent 2*feature"]
    latent_step: Float[Array, " latent"]
    weight_step: Float[Array, " feature"]
    steps_in_latents: int = 5
    steps_in_weights: int = 5
    dropout: float = 0.5
    kl_weight: float = 1e-3
    encoder_penalty: float = 1e-9
    l2_penalty: float = 1e-8
    orthogonality_penalty: float = 1e-3
    query_smoothing: float = 0.0

    @classmethod
    def init(
        cls,
        backbone: AbstractBackbone,
        key: PRNGKeyArray,
        latent_size: int = 64,
        latent_step: float = 1.0,
        weight_step: float = 1e-3,
        steps_in_latents: int = 5,
        steps_in_weights: int = 5,
        dropout: float = 0.5,
        kl_weight: float = 1e-3,
        encoder_penalty: float = 1e-9,
        l2_penalty: float = 1e-8,
        orthogonality_penalty: float = 1e-3,
        query_smoothing: float = 0.0,
    ) -> "LEO":
        """Return a learner whose matrices are drawn uniformly (Glorot and Bengio, 2010) and whose steps are constant.

        - `latent_step`, `weight_step`: every entry of the step sizes, before training.

        The defaults are those of the method's published code, which tuned the weights of the terms of the objective,
        and the dropout, for every data set.
        """
        _check_sizes(latent_size, steps_in_latents, steps_in_weights)
        _check_shares(dropout, query_smoothing)
        _check_weights(latent_step, weight_step, kl_weight, encoder_penalty, l2_penalty, orthogonality_penalty)
        size, pair = backbone.embedding_size, 2 * latent_size
        keys, glorot = jax.random.split(key, 5), jax.nn.initializers.glorot_uniform()
        return cls(
            backbone=backbone,
            encoder=glorot(keys[0], (size, latent_size)),
            relation=(glorot(keys[1], (pair, pair)), glorot(keys[2], (pair, pair)), glorot(keys[3], (pair, pair))),
            decoder=glorot(keys[4], (latent_size, 2 * size)),
            latent_step=jnp.full(latent_size, latent_step, jnp.result_type(float)),
            weight_step=jnp.full(size, weight_step, jnp.result_type(float)),
            steps_in_latents=steps_in_latents,
            steps_in_weights=steps_in_weights,
            dropout=dropout,
            kl_weight=kl_weight,
            encoder_penalty=encoder_penalty,
            l2_penalty=l2_penalty,
            orthogonality_penalty=orthogonality_penalty,
            query_smoothing=query_smoothing,
        )

    def scalars(self) -> dict[str, Scalar]:
        return {"latent_step": jnp.mean(self.latent_step), "weight_step": jnp.mean(self.weight_step)}

    def parameter_groups(self) -> "LEO":
        labels = jax.tree.map(lambda _: ParameterGroup.NETWORK, eqx.filter(self, eqx.is_inexact_array))
        return eqx.tree_at(lambda m: (m.latent_step, m.weight_step), labels, (ParameterGroup.SCALE,) * 2)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        adapted = self._adapt(support, key)
        return LinearHead(adapted.weights), self._info(adapted.ok)

    def objective(self, episode: Episode, key: PRNGKeyArray | None = None) -> tuple[Scalar, Outcome]:
        adaptation_key, query_key = _split(key, 2)
        adapted = self._adapt(episode.support, adaptation_key)
        query = episode.query
        logits = LinearHead(adapted.weights)(drop(query.inputs, self.dropout, query_key))
        labels = smooth_labels(query.labels, self.query_smoothing)
        matrices = (self.encoder, *self.relation, self.decoder)
        value = (
            mean_loss(logits, Examples(query.inputs, labels, query.mask))
            + self.kl_weight * adapted.divergence
            + self.encoder_penalty * adapted.moved
            + self.l2_penalty / 2 * sum(jnp.sum(jnp.square(matrix)) for matrix in matrices)
            + self.orthogonality_penalty * correlation_penalty(self.decoder)
        )
        info = self._info(adapted.ok)
        return value, Outcome(logits, info.ok, info.steps)

    def _info(self, ok: Bool[Array, ""]) -> AdaptationInfo:
        return AdaptationInfo(ok, jnp.asarray(self.steps_in_latents + self.steps_in_weights, jnp.int32))

    def _adapt(self, support: Examples, key: PRNGKeyArray | None) -> "_Adapted":
        code_key, dropout_key, latents_key, decoder_key, weights_key = _split(key, 5)
        labels, mask = support.labels, support.mask
        shares = mask[:, None] * labels / _positive(mask @ labels)[None, :]

        def loss(copies: Float[Array, "support feature"], key: PRNGKeyArray | None) -> Scalar:
            logits = LinearHead(shares.T @ copies)(drop(support.inputs, self.dropout, key))
            return jnp.sum(mask * CrossEntropy().value(logits, labels))

        def decode(latents: Float[Array, "support latent"], key: PRNGKeyArray | None) -> Array:
            offset = math.sqrt(2 / (labels.shape[1] + support.inputs.shape[1]))
            decoded = Normal.of(latents @ self.decoder, offset)
            return decoded.draw(decoded.noise(key))

        def loss_of_latents(latents: Float[Array, "support latent"], key: PRNGKeyArray | None) -> Scalar:
            decoder_key, loss_key = _split(key, 2)
            return loss(decode(latents, decoder_key), loss_key)

        codes = relate(self.relation, drop(support.inputs, self.dropout, dropout_key) @ self.encoder, mask)
        coded = Normal.of(labels @ (shares.T @ codes))
        noise = coded.noise(code_key)
        start = coded.draw(noise)
        multiplicity = _positive(mask)[:, None]
        latent_step, weight_step = self.latent_step[None, :] / multiplicity, self.weight_step[None, :] / multiplicity
        latents = descend(loss_of_latents, start, latent_step, self.steps_in_latents, latents_key)
        copies = descend(loss, decode(latents, decoder_key), weight_step, self.steps_in_weights, weights_key)
        return _Adapted(
            weights=shares.T @ copies,
            divergence=_mean(coded.divergence(noise), mask),
            moved=_mean(jnp.square(jax.lax.stop_gradient(latents) - start), mask),
            any_example=jnp.sum(mask) > 0,
        )


class _Adapted(eqx.Module):
    """The head's weights, and the terms of the objective that depend on the task's latents."""

    weights: Float[Array, "way feature"]
    divergence: Scalar
    moved: Scalar
    any_example: Bool[Array, ""]

    @property
    def ok(self) -> Bool[Array, ""]:
        numbers = jnp.concatenate([self.weights.ravel(), jnp.stack([self.divergence, self.moved])])
        return self.any_example & jnp.all(jnp.isfinite(numbers))


class Normal(eqx.Module):
    r"""Independent normal distributions $N(\mu, \sigma^2)$, one for each entry of `mean` and `spread`."""

    mean: Float[Array, "support size"]
    spread: Float[Array, "support size"]

    @classmethod
    def of(cls, parameters: Float[Array, "support parameter"], offset: float = 0.0) -> "Normal":
        r"""Return the distributions with the first half of each row as means, and spreads by $u$, the second half.

        $\sigma = \max(e^u - (1 - o), 10^{-10})$ where $o$, the `offset`, is the spread at $u = 0$. Without an offset
        every $u \le 0$ is at the floor: there $\sigma$ has no slope, and nothing can be learned from it. From $u = 20$
        on the exponential goes on along its tangent, so that nothing overflows.

        >>> Normal.of(jnp.array([[7.0, 8.0, jnp.log(3.0), -1.0]]), offset=0.5).spread.round(4).tolist()
        [[2.5, 0.0]]
        """
        mean, exponent = jnp.split(parameters, 2, axis=-1)
        bounded = jnp.minimum(exponent, LARGEST_EXPONENT)
        # e^u - 1 keeps its digits near u = 0, where it is the whole spread.
        grown = jnp.expm1(bounded) + jnp.exp(bounded) * (exponent - bounded)
        return cls(mean, jnp.maximum(grown + offset, SMALLEST_SPREAD))

    def noise(self, key: PRNGKeyArray | None) -> Float[Array, "support size"] | None:
        """Return standard normal numbers to draw with, or nothing without a key."""
        return None if key is None else jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def draw(self, noise: Float[Array, "support size"] | None) -> Float[Array, "support size"]:
        r"""Return $\mu + \sigma\epsilon$; without noise, $\mu$."""
        return self.mean if noise is None else self.mean + self.spread * noise

    def divergence(self, noise: Float[Array, "support size"] | None) -> Float[Array, "support size"]:
        r"""Return $\log N(x; \mu, \sigma^2) - \log N(x; 0, 1)$ at the draw $x$; without noise, its expectation.

        The noise itself enters, not $(x - \mu) / \sigma$, in which a small spread would lose it.

        >>> Normal(jnp.array([[2.0]]), jnp.array([[1.0]])).divergence(None).tolist()
        [[2.0]]
        """
        if noise is None:
            return (jnp.square(self.mean) + jnp.square(self.spread) - 1) / 2 - jnp.log(self.spread)
        return (jnp.square(self.draw(noise)) - jnp.square(noise)) / 2 - jnp.log(self.spread)


def relate(
    layers: tuple[Array, Array, Array], codes: Float[Array, "support latent"], mask: Float[Array, " support"]
) -> Float[Array, "support parameter"]:
    r"""Return $r_m$: what the relation network says of the pairs of example $m$ with all examples, on average.

    The layers are linear but for the ReLU: the first acts on the two halves of a pair apart, and the mean over partners
    comes before the last.
    """
    own, other = jnp.split(layers[0], 2)
    hidden = jax.nn.relu((codes @ own)[:, None, :] + (codes @ other)[None, :, :])
    hidden = jax.nn.relu(hidden @ layers[1])
    return jnp.einsum("ijh,j->ih", hidden, mask / _positive(jnp.sum(mask))) @ layers[2]


def descend(
    loss: Callable[[Array, PRNGKeyArray | None], Scalar],
    start: Float[Array, "support size"],
    step: Float[Array, "support size"],
    steps: int,
    key: PRNGKeyArray | None,
) -> Float[Array, "support size"]:
    r"""Return where `steps` of $x \leftarrow x - a \odot \nabla L(x)$ lead, each with a key of its own for $L$.

    >>> descend(lambda x, _: jnp.sum(x**2), jnp.array([[1.0, 1.0]]), jnp.array([[0.25, 0.5]]), 2, None).tolist()
    [[0.25, 0.0]]
    """

    def move(point: Array, key: PRNGKeyArray | None) -> tuple[Array, None]:
        return point - step * jax.grad(loss)(point, key), None

    keys = None if key is None else jax.random.split(key, steps)
    return jax.lax.scan(move, start, keys, length=steps)[0]


def drop(
    inputs: Float[Array, "example feature"], rate: float, key: PRNGKeyArray | None
) -> Float[Array, "example feature"]:
    """Return `inputs` with a share `rate` of the entries set to zero and the others enlarged; unchanged without a key.

    >>> drop(jnp.ones((1, 2)), 0.5, None).tolist()
    [[1.0, 1.0]]
    """
    if key is None or rate == 0:
        return inputs
    kept = jax.random.bernoulli(key, 1 - rate, inputs.shape)
    return jnp.where(kept, inputs / (1 - rate), jnp.zeros_like(inputs))


def correlation_penalty(matrix: Float[Array, "row column"]) -> Scalar:
    """Return the mean square of the difference between the cosines of the rows with one another and the identity.

    **Example:** of four cosines, two are 0.6 and not 0.

    >>> round(float(correlation_penalty(jnp.array([[1.0, 0.0], [3.0, 4.0]]))), 4)
    0.18
    """
    squares = jnp.sum(jnp.square(matrix), axis=1, keepdims=True)
    directions = matrix / jnp.sqrt(_positive(squares))
    cosines = directions @ directions.T
    return jnp.mean(jnp.square(cosines - jnp.eye(len(matrix), dtype=matrix.dtype)))


def _mean(values: Float[Array, "support size"], mask: Float[Array, " support"]) -> Scalar:
    return mask @ jnp.mean(values, axis=1) / _positive(jnp.sum(mask))


def _positive(x: Array) -> Array:
    """Return `x`, with one where it is zero: to divide by."""
    return jnp.where(x > 0, x, jnp.ones_like(x))


def _split(key: PRNGKeyArray | None, count: int) -> tuple[PRNGKeyArray | None, ...]:
    return (None,) * count if key is None else tuple(jax.random.split(key, count))


def _check_sizes(latent_size: int, *steps: int) -> None:
    if latent_size < 1:
        raise ValueError(f"The latent code needs at least one coordinate, got {latent_size}.")
    if min(steps) < 0:
        raise ValueError(f"The numbers of inner steps must be at least 0, got {steps}.")


def _check_shares(*shares: float) -> None:
    if not all(0 <= share < 1 for share in shares):
        raise ValueError(f"Dropout and label smoothing must be at least 0 and below 1, got {shares}.")


def _check_weights(*weights: float) -> None:
    if not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"Step sizes and the weights of penalties must be at least 0 and finite, got {weights}.")
