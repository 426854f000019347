"""Which classes are taken for which, over tasks that each hold a few of them."""

__all__ = ["Confusion", "confusion"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Confusion:
    """Predictions of queries, by class.

    - `class_names`: of all classes.
    - `predicted`: how many queries of a class (row) were taken for a class (column), shape `(class, class)`.
    - `possible`: how many of them could have been, as the column's class was in their task. Same shape.
    """

    class_names: tuple[str, ...]
    predicted: np.ndarray
    possible: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """`predicted` over `possible`; NaN where two classes never met."""
        return np.divide(
            self.predicted, self.possible, out=np.full(self.possible.shape, np.nan), where=self.possible > 0
        )

    def hardest(self, count: int) -> "Confusion":
        """Return the confusion among the classes that most mistakes were made with, either way, in their order.

        >>> both = Confusion(("a", "b", "c"), np.array([[3, 1, 0], [0, 4, 0], [0, 0, 4]]), np.full((3, 3), 4))
        >>> both.hardest(2).class_names
        ('a', 'b')
        """
        mistakes = np.where(np.eye(len(self.class_names), dtype=bool), 0, self.predicted)
        involved = np.sum(mistakes, axis=0) + np.sum(mistakes, axis=1)
        chosen = np.sort(np.argsort(-involved, kind="stable")[:count])
        square = np.ix_(chosen, chosen)
        return Confusion(tuple(self.class_names[i] for i in chosen), self.predicted[square], self.possible[square])

    def worst(self, count: int) -> Iterator[tuple[str, str, int, int]]:
        """Yield the pairs most often confused: class, what it was taken for, how often, and out of how many.

        Sorted by the share, then by the number. A pair that was never confused is not among them.
        """
        mistakes = np.argwhere((self.predicted > 0) & ~np.eye(len(self.class_names), dtype=bool))
        shares = self.shares
        for row, column in sorted(
            mistakes.tolist(), key=lambda pair: (-shares[tuple(pair)], -self.predicted[tuple(pair)], pair)
        )[:count]:
            yield (
                self.class_names[row],
                self.class_names[column],
                int(self.predicted[row, column]),
                int(self.possible[row, column]),
            )


def confusion(
    class_names: tuple[str, ...], classes_of: np.ndarray, ways: np.ndarray, predicted: np.ndarray
) -> Confusion:
    """Return the confusion of queries of several tasks.

    - `classes_of`: the class of each way of a task, shape `(task, way)`.
    - `ways`: the right way of each query, shape `(task, query)`; `predicted`: the predicted one, same shape.

    **Example:** in one task of the classes b and c, one of two queries of c is taken for b.

    >>> found = confusion(("a", "b", "c"), np.array([[1, 2]]), np.array([[0, 1, 1]]), np.array([[0, 0, 1]]))
    >>> list(found.worst(3))
    [('c', 'b', 1, 2)]
    """
    size = (len(class_names),) * 2
    counts, possible = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for classes, right, taken in zip(classes_of, ways, predicted, strict=True):
        np.add.at(counts, (classes[right], classes[taken]), 1)
        np.add.at(possible, (classes[right][:, None], classes[None, :]), 1)
    return Confusion(class_names, counts, possible)
