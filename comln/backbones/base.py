"""What an embedding network is: a pure function of images and batch statistics."""

__all__ = ["AbstractBackbone", "Normalisation"]

import abc
import enum
from typing import Any

import equinox as eqx

from comln.typing import Array, Float, PRNGKeyArray


class Normalisation(enum.Enum):
    """Where batch normalisation takes its mean and variance from.

    - `BATCH`: from the examples that are embedded together, so that an example's embedding depends on the others
      (training; and *transductive* evaluation, as the MAML family does it).
    - `RUNNING`: from running averages of earlier batches, so that each example is embedded by itself.
    """

    BATCH = "batch"
    RUNNING = "running"


class AbstractBackbone(eqx.Module):
    """An embedding network $f$, shared by all tasks."""

    @property
    @abc.abstractmethod
    def embedding_size(self) -> int:
        """The number of features of an embedding."""

    @abc.abstractmethod
    def initial_statistics(self) -> Any:
        """Return the running averages before any batch was seen (an empty tuple where there are none)."""

    @abc.abstractmethod
    def __call__(
        self,
        inputs: Float[Array, "example ..."],
        statistics: Any,
        normalisation: Normalisation,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "example ..."], Any]:
        """Return the embeddings, and the statistics moved by this batch (unmoved with `Normalisation.RUNNING`).

        Embeddings have shape `(example, feature)`, but for `Identity`, which returns its inputs. `key` is for what is
        random in training (dropout); `None` is the deterministic form, used in evaluation and in inner loops.
        """
