import json
import re

from tests.docs.pages import ROOT


def test_the_page_shows_the_figures_of_the_benchmark():
    measured = json.loads((ROOT / "benchmarks" / "results" / "estimators.json").read_text())
    results, page = measured["comparisons"], (ROOT / "docs" / "estimators.md").read_text()
    text = " ".join(page.split())
    assert f"640 features takes {measured['one fit, 5-way 5-shot, 640 features']['median_ms']:.1f} ms." in text
    limit = results["digits, raw pixels, 5-shot"]["share_against_ended_by_max_iter"]
    assert f"limit of 100 iterations in {limit:.0%}".replace("%", " %") in text
    assert measured["embeddings"].split(", ")[1] in text
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
