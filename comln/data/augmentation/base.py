"""What a random variation of images is."""

__all__ = ["AbstractAugmentation"]

import abc

import equinox as eqx

from comln.typing import Array, PRNGKeyArray, UInt8


class AbstractAugmentation(eqx.Module):
    """A way to vary images, each independently of the others."""

    @abc.abstractmethod
    def __call__(
        self, images: UInt8[Array, "example height width channel"], key: PRNGKeyArray
    ) -> UInt8[Array, "example new_height new_width channel"]:
        """Return the images varied. The same key varies them the same way."""
