"""Array types, and the one table of axis names used in every shape annotation of this package.

| axis | meaning |
|---|---|
| `task` | tasks of a meta-batch (only at and above `episodic`; everything below sees one task) |
| `way` | classes of a task |
| `shot` | support examples of one class |
| `support` | support examples of a task, all classes together |
| `query` | query examples of a task |
| `example` | examples of any kind, where support and query are treated alike |
| `feature` | coordinates of an embedding |
| `height width channel` | axes of an image, channels last |
| `lane` | independent problems that one solver call works on together |
"""

__all__ = ["AbstractVar", "Array", "Bool", "Float", "Int", "Num", "PRNGKeyArray", "Scalar", "ScalarLike", "UInt8"]

from typing import TYPE_CHECKING

from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, UInt8

if TYPE_CHECKING:
    # Pyright cannot follow `equinox.AbstractVar`; a class variable has the same meaning to it.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

Scalar = Float[Array, ""]
"""A floating-point array of shape `()`. Inner functions take only these."""

ScalarLike = float | int | Scalar
"""What public functions take where they want a scalar: a Python number or a scalar array."""
