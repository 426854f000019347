"""Pictures of unseen classes to pick from, for people who have none at hand."""

__all__ = ["Gallery"]

import re
from dataclasses import dataclass

import numpy as np

from comln.data.source import Split
from comln.typing import UInt8

CHARACTER = re.compile(r"U\+([0-9A-F]{4,6}) ")
MOST_CLASSES, MOST_EXAMPLES = 500, 40


@dataclass(frozen=True)
class Gallery:
    """The classes of a split, and of each class examples of which no two are variants of one original.

    - `names`: of the classes. `labels`: the same in short, where a class is a character that character.
    - `members`: positions in `examples`, class by class.
    - `examples`: pictures `(example, height, width, channel)`, uint8; may be a memory map.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    members: tuple[np.ndarray, ...]
    examples: np.ndarray

    @classmethod
    def of(cls, split: Split) -> "Gallery":
        """Return the first classes and examples of a split, not too many for a page."""
        members = []
        for number in range(min(len(split.class_names), MOST_CLASSES)):
            positions = np.flatnonzero(split.class_of == number)
            _, first = np.unique(split.group_of[positions], return_index=True)
            members.append(positions[np.sort(first)][:MOST_EXAMPLES])
        names = split.class_names[: len(members)]
        return cls(names, tuple(map(short_label, names)), tuple(members), split.examples)

    def picture(self, number: int, example: int) -> UInt8[np.ndarray, "height width channel"]:
        """Return one example of a class.

        **Raises:** `LookupError` where there is none.
        """
        if not (0 <= number < len(self.members) and 0 <= example < len(self.members[number])):
            raise LookupError(f"There is no example {example} of class {number}.")
        return np.asarray(self.examples[self.members[number][example]])


def short_label(name: str) -> str:
    """Return a name for a small label.

    >>> short_label("U+0416 CYRILLIC CAPITAL LETTER ZHE"), short_label("house_finch")
    ('Ж', 'house finch')
    """
    character = CHARACTER.match(name)
    return chr(int(character[1], 16)) if character else name.replace("_", " ")
