"""No embedding network: the examples are their own embeddings."""

__all__ = ["Identity"]

from typing import Any

from comln.backbones.base import AbstractBackbone, Normalisation
from comln.typing import Array, Float, PRNGKeyArray


class Identity(AbstractBackbone):
    """Return the inputs as they are: for data that are embeddings already, and for methods that adapt a whole network.

    - `size`: features of an input; `None` where inputs are images.

    >>> Identity(3)(jnp.ones((2, 3)), (), Normalisation.RUNNING)[0].shape
    (2, 3)
    """

    size: int | None = None

    @property
    def embedding_size(self) -> int:
        if self.size is None:
            raise ValueError(
                "Images have no embedding size. Give the method a network, or `Identity(size)` embeddings."
            )
        return self.size

    def initial_statistics(self) -> tuple[()]:
        return ()

    def __call__(
        self,
        inputs: Float[Array, "example ..."],
        statistics: Any,
        normalisation: Normalisation,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "example ..."], Any]:
        return inputs, statistics
