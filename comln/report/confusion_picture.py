"""A picture of a confusion matrix."""

__all__ = ["confusion_png"]

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from comln.report.axis_names import axis_names, without_font_remarks

MOST_NUMBERS = 20
"""Of more classes, the cells have colours alone."""


def confusion_png(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """Return a PNG file of a confusion matrix, coloured by the share of each row.

    - `confusion`: how many examples of each class (row) were taken for each (column), shape `(way, way)`.
    - `classes`: their names.
    """
    ways = len(classes)
    figure = Figure(figsize=(2.5 + 0.45 * min(ways, 60), 2.0 + 0.45 * min(ways, 60)), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = axis_names(classes)
    axes.set_xticks(range(ways), names, rotation=60, ha="right")
    axes.set_yticks(range(ways), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    if ways <= MOST_NUMBERS:
        for row, column in np.argwhere(confusion).tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour)
    buffer = io.BytesIO()
    with without_font_remarks():
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
