r"""A convolutional network that a context vector bends to a task, as CAVIA's (Zintgraf et al., 2019)."""

__all__ = ["FilmConv4"]

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones.base import Normalisation
from comln.backbones.conv4 import check_sizes
from comln.backbones.layers import BatchNorm, Convolution, convolve, convolve_by_patches, norm_and_pool
from comln.typing import Array, Float, PRNGKeyArray


class FilmConv4(eqx.Module):
    r"""Four blocks of 3 x 3 convolution, batch normalisation, max-pooling and ReLU, then a linear layer.

    Before the ReLU of the third block each channel $h$ becomes $\gamma h + \beta$, with $(\gamma, \beta) = Fc + b$ from
    the context $c$ (Perez et al., 2018). There is no one added to $\gamma$, so $b$ must not be zero: it is drawn.

    Batch normalisation uses the statistics of the examples of the call. What comes before the context is `trunk`, what
    comes after it `branch`: over the steps of a context, the trunk is computed once.

    - `convolutions`, `norms`: of the four blocks.
    - `film_weights`, `film_bias`: $F$ and $b$, shapes `(modulation, context)` and `(modulation,)`. The modulation is
      two numbers a channel; its first half is $\gamma$.
    - `linear_weights`, `linear_bias`: of the last layer, shapes `(way, feature)` and `(way,)`.
    """

    convolutions: tuple[Convolution, ...]
    norms: tuple[BatchNorm, ...]
    film_weights: Float[Array, "modulation context"]
    film_bias: Float[Array, " modulation"]
    linear_weights: Float[Array, "way feature"]
    linear_bias: Float[Array, " way"]

    @classmethod
    def init(
        cls, image_size: int, channels: int, filters: int, ways: int, context_size: int, key: PRNGKeyArray
    ) -> "FilmConv4":
        """Return a network drawn as the method's authors do: uniformly, after He et al. (2015).

        - `image_size`: pixels a side of the square images; at least 16, for four halvings.
        """
        check_sizes(image_size, filters)
        features = (image_size // 16) ** 2 * filters
        keys = jax.random.split(key, 7)
        kinds: tuple[Callable[[Array, Array], Array], ...] = (convolve, convolve, convolve, convolve_by_patches)
        convolutions = tuple(
            Convolution(_uniform(k, (3, 3, size, filters), (6 / (9 * size)) ** 0.5), jnp.zeros(filters), kind)
            for size, k, kind in zip((channels, filters, filters, filters), keys[:4], kinds, strict=True)
        )
        return cls(
            convolutions,
            tuple(BatchNorm.init(filters) for _ in convolutions),
            _uniform(keys[4], (2 * filters, context_size), (3 / context_size) ** 0.5),
            _uniform(keys[5], (2 * filters,), context_size**-0.5),
            _uniform(keys[6], (ways, features), (3 / features) ** 0.5),
            jnp.zeros(ways),
        )

    def trunk(
        self, images: Float[Array, "example height width channel"]
    ) -> Float[Array, "example small_height small_width filter"]:
        """Return the channels of the third block, before the context acts on them."""
        hidden = images
        for block in range(3):
            hidden = self._block(block, hidden if block == 0 else jax.nn.relu(hidden))
        return hidden

    def branch(
        self, hidden: Float[Array, "example small_height small_width filter"], context: Float[Array, " context"]
    ) -> Float[Array, "example way"]:
        """Return the logits of what `trunk` returned, in a context."""
        factor, shift = jnp.split(self.film_weights @ context + self.film_bias, 2)
        hidden = jax.nn.relu(hidden * factor[None, None, None, :] + shift[None, None, None, :])
        hidden = jax.nn.relu(self._block(3, hidden))
        return hidden.reshape(len(hidden), -1) @ self.linear_weights.T + self.linear_bias[None, :]

    def _block(self, number: int, hidden: Array) -> Array:
        norm = self.norms[number]
        mixed = self.convolutions[number](hidden)
        return norm_and_pool(norm, mixed, norm.initial_statistics(), Normalisation.BATCH)[0]


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...], bound: float) -> Array:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
