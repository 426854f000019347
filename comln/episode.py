"""What a few-shot task is made of: labelled examples, some of which may be padding, in two disjoint sets."""

__all__ = ["Episode", "Examples"]

import equinox as eqx

from comln.typing import Array, Float, Num


class Examples(eqx.Module):
    """Labelled examples of one task (or, with a leading axis on every field, of a batch of tasks).

    - `inputs`: images `(example, height, width, channel)` or embeddings `(example, feature)`.
    - `labels`: class distributions `(example, way)`: one-hot, or smoothed.
    - `mask`: weights `(example,)`, at least zero; zero marks padding. All ones where every example counts.

    >>> examples = Examples(jnp.zeros((3, 4)), jnp.eye(3), jnp.array([1.0, 1.0, 0.0]))
    >>> examples.inputs.shape, float(examples.mask.sum())
    ((3, 4), 2.0)
    """

    inputs: Num[Array, "..."]
    labels: Float[Array, "*task example way"]
    mask: Float[Array, "*task example"]


class Episode(eqx.Module):
    """One few-shot task: a `support` set to adapt on and a disjoint `query` set to be judged by."""

    support: Examples
    query: Examples
