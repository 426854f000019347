import json
import re

from tests.docs.pages import ROOT


def test_the_page_shows_the_figures_of_the_benchmark():
    results = json.loads((ROOT / "benchmarks" / "results" / "estimators.json").read_text())["comparisons"]
    page = (ROOT / "docs" / "estimators.md").read_text()
    shown = re.findall(
        r"^\| (.+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| (\S+) ± (\S+) \| (\S+) \| (\S+) \|$", page, re.MULTILINE
    )
    assert shown == [
        (
            *key.removesuffix("-shot").rsplit(", ", 1),
            f"{row['accuracy_percent']:.1f}",
            f"{row['accuracy_percent_against']:.1f}",
            f"{row['difference']:+.2f}",
            f"{row['difference_ci95']:.2f}",
            f"{row['median_fit_ms']:.1f}",
            f"{row['median_fit_ms_against']:.1f}",
        )
        for key, row in results.items()
    ]
