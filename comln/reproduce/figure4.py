"""Figure 4: memory and time of a meta-gradient against the number of inner steps, with ResNet-12."""

__all__ = ["FILES", "SPENDING", "compute", "describe", "numbers", "write"]

from pathlib import Path
from typing import Any

from comln.recipes.backbones import ResNet12Config
from comln.reproduce import efficiency, efficiency_page
from comln.reproduce.efficiency import HALF_POWERS, POWERS, Efficiency, Spending
from comln.reproduce.workspace import Budget, Workspace

FILES = ("figure4.json", "figure4.svg", "figure4.png", "index.html")
"""What `write` writes."""

TITLE = "Figure 4: the meta-gradient of a 5-way 5-shot task of glyphs, ResNet-12"
THIN = ResNet12Config(widths=(4, 4, 8, 8))
PAPER = ResNet12Config()

SPENDING = {
    Budget.SMOKE: Spending(THIN, 28, (1, 100), (1, 2), 2.0, 0.02, 0.5, 10),
    Budget.COMMITTED: Spending(PAPER, 84, POWERS, (1, 2, *POWERS[1:]), 40.0, 1.0, 3.0, 1000),
    Budget.FULL: Spending(PAPER, 84, HALF_POWERS, HALF_POWERS, 3600.0, 30.0, 30.0, 1000),
}
"""By budget."""


def compute(work: Workspace) -> Efficiency:
    """Measure what is not there yet."""
    return efficiency.compute(work, SPENDING[work.budget])


def numbers(result: Efficiency) -> dict[str, Any]:
    """Return the numbers as JSON can hold them."""
    return efficiency_page.numbers(result, "figure4")


def describe(result: Efficiency) -> str:
    """Return the tables as text."""
    return efficiency_page.describe(result)


def write(result: Efficiency, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    return efficiency_page.write(result, folder, "figure4", TITLE, FILES)
