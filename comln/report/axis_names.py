"""Names of classes along the axes of a figure: of any length, in any script."""

__all__ = ["axis_names", "without_font_remarks"]

import contextlib
import warnings
from collections.abc import Iterator, Sequence

LONGEST = 40
"""Characters of a name; longer ones would leave no room for what they name."""


def axis_names(names: Sequence[str]) -> list[str]:
    r"""Return names as matplotlib shows them: cut where they are too long, no dollar sign beginning a formula.

    >>> axis_names(["5$", "a" * 50]) == [r"5\$", "a" * 39 + "…"]
    True
    """
    return [(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…").replace("$", r"\$") for name in names]


@contextlib.contextmanager
def without_font_remarks() -> Iterator[None]:
    """Drop matplotlib's warnings of characters that its font lacks: it shows a box for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font", category=UserWarning)
        yield
