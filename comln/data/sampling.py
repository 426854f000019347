"""Few-shot tasks drawn from a split: task number i of a seed is a pure function of (seed, i)."""

__all__ = ["EpisodeShape", "IndexEpisode", "Sampler"]

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from comln.data.source import Split


@dataclass(frozen=True)
class EpisodeShape:
    """How large a task is: `ways` classes, `shots` support and `queries` query examples of each."""

    ways: int
    shots: int
    queries: int = 15

    def __post_init__(self) -> None:
        for name, value, least in (("ways", self.ways, 2), ("shots", self.shots, 1), ("queries", self.queries, 1)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")


@dataclass(frozen=True)
class IndexEpisode:
    """A task as positions in a split's examples, class after class.

    - `classes`: the split's class of each way, shape `(way,)`.
    - `support`: shape `(way, shot)`; `query`: shape `(way, query)`.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray


class Sampler:
    """Draws tasks of one shape from one split.

    Support and query of a class share no group (no glyph's typeface). Where there are fewer groups than examples are
    wanted, half of them serve the support, the others the query, and groups repeat with another of their examples;
    an example itself repeats only where the split's augmentation makes another image of it.
    """

    def __init__(self, split: Split, shape: EpisodeShape) -> None:
        self.split, self.shape = split, shape
        self._check()

    @cached_property
    def _groups(self) -> list[list[np.ndarray]]:
        """The examples of each class, group by group."""
        split = self.split
        order = np.lexsort((split.group_of, split.class_of))
        by_class = np.split(order, np.searchsorted(split.class_of[order], np.arange(1, len(split.class_names))))
        return [
            np.split(members, np.flatnonzero(np.diff(split.group_of[members])) + 1) if len(members) else []
            for members in by_class
        ]

    @cached_property
    def _originals(self) -> list[np.ndarray | None]:
        """The examples of each class whose groups are all single examples; `None` for another class."""
        return [
            np.concatenate(groups) if groups and all(len(group) == 1 for group in groups) else None
            for groups in self._groups
        ]

    def _check(self) -> None:
        """Raise `ValueError` where the split cannot fill the shape."""
        shape, split = self.shape, self.split
        if shape.ways > len(split.class_names):
            raise ValueError(
                f"{shape.ways}-way tasks need {shape.ways} classes, but this split has {len(split.class_names)}. "
                f"Ask for at most {len(split.class_names)} ways."
            )
        for name, groups in zip(split.class_names, self._groups, strict=True):
            sides = _divide(np.arange(len(groups)), shape)
            for side, wanted, what in zip(sides, (shape.shots, shape.queries), ("shots", "queries"), strict=True):
                available = sum(len(groups[g]) for g in side)
                if available == 0 or (split.augmentation is None and available < wanted):
                    raise ValueError(
                        f"{wanted} {what} were asked for, but class {name!r} can give at most {available} next to "
                        f"{shape.shots} shots and {shape.queries} queries. Ask for fewer."
                    )

    def draw(self, seed: int, index: int) -> IndexEpisode:
        """Return task number `index` of `seed`, both at least zero."""
        rng = np.random.default_rng((seed, index))
        classes = rng.choice(len(self.split.class_names), self.shape.ways, replace=False)
        support = np.empty((self.shape.ways, self.shape.shots), np.int64)
        query = np.empty((self.shape.ways, self.shape.queries), np.int64)
        for way, c in enumerate(classes):
            groups, originals = self._groups[c], self._originals[c]
            for_support, for_query = _divide(rng.permutation(len(groups)), self.shape)
            if originals is not None and len(for_support) >= self.shape.shots and len(for_query) >= self.shape.queries:
                # The same examples as below, which draws no numbers where a group has no choice; five times as fast.
                support[way] = originals[for_support[: self.shape.shots]]
                query[way] = originals[for_query[: self.shape.queries]]
                continue
            support[way] = _take(rng, [groups[g] for g in for_support], self.shape.shots)
            query[way] = _take(rng, [groups[g] for g in for_query], self.shape.queries)
        return IndexEpisode(classes, support, query)


def _divide(groups: np.ndarray, shape: EpisodeShape) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups for the support and those for the query."""
    count = min(shape.shots, max(len(groups) // 2, len(groups) - shape.queries))
    return groups[:count], groups[count:]


def _take(rng: np.random.Generator, groups: list[np.ndarray], count: int) -> np.ndarray:
    """Return `count` examples, each group giving one before any gives a second."""
    if count <= len(groups):
        return np.array([group[rng.integers(len(group))] for group in groups[:count]])
    shuffled = [rng.permutation(group) for group in groups]
    rounds = [[group[r] for group in shuffled if r < len(group)] for r in range(max(len(group) for group in groups))]
    once = np.concatenate([np.array(members) for members in rounds])
    return np.resize(once, count)
