import re
from dataclasses import replace

import numpy as np
import pytest

from comln.report.episode_page import EpisodePicture
from comln.report.run_report import RunReport, render, write_report


def picture(channels: tuple[int, ...] = ()) -> EpisodePicture:
    rng = np.random.default_rng(0)
    return EpisodePicture(
        class_names=("<b>A</b>", 'quote " one'),
        support=rng.integers(0, 256, (2, 8, 8, *channels)).astype(np.uint8),
        support_classes=np.array([0, 1]),
        query=rng.integers(0, 256, (4, 8, 8, *channels)).astype(np.uint8),
        query_classes=np.array([0, 0, 1, 1]),
        probabilities=np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]),
    )


def report(**changes) -> RunReport:
    steps = 50
    return replace(
        RunReport(
            title="a <run>",
            command="comln train --out 'x<y'",
            configuration={"learner": {"horizon": 10.0, "name": "<script>"}, "empty": {}},
            metrics=[
                {"step": s, "loss": 1 / (s + 1), "accuracy": 1 - 1 / (s + 2), "horizon": 10.0 + s} for s in range(steps)
            ],
            accuracy=0.937,
            ci95=0.006,
            tasks=1000,
            failed=0,
            ways=5,
            shots=1,
            normalisation="running",
            learned_horizon=30.0,
            horizons=np.array([0.0, 0.3, 3.0, 30.0, 300.0]),
            accuracy_at=np.array([0.2, 0.5, 0.8, 0.93, 0.92]),
            ci95_at=np.full(5, 0.01),
            episodes=[picture()],
        ),
        **changes,
    )


def test_the_page_asks_for_no_other_file():
    page = render(report())
    for target in re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page) + re.findall(r"url\(([^)]+)\)", page):
        assert target.startswith(("data:", "#")), target
    assert "<script" not in page and "@import" not in page


def test_ids_are_unique_and_every_reference_within_the_page_is_met():
    page = render(report())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_text_is_escaped():
    page = render(report())
    for text in ("<b>A</b>", "<script>", "x<y", "a <run>"):
        assert text not in page
    assert "&lt;b&gt;A&lt;/b&gt;" in page and "quote &quot; one" in page


def test_the_headline_and_the_marks_are_right():
    page = render(report())
    assert "<strong>93.7 %</strong> ± 0.6" in page and "1000 5-way 1-shot tasks" in page
    assert "3 of 4 queries right" in page and page.count("✓") == 3 and page.count("✗") == 1
    assert "count as wrong" not in page and "failed on 7 of them" in render(report(failed=7))


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": []},
        {"metrics": [{"step": 1, "loss": 1.0, "accuracy": 0.5}]},
        {"metrics": [{"step": 1, "loss": 1.0, "accuracy": 0.5, "horizon": 10.0}]},
        {"horizons": None, "accuracy_at": None, "ci95_at": None, "learned_horizon": None},
        {"episodes": []},
        {"episodes": [picture((3,)), picture((1,))]},
    ],
    ids=["no metrics", "one step, no horizon", "one step", "no path", "no episodes", "colour and channel"],
)
def test_what_is_missing_is_left_out(changes):
    assert render(report(**changes)).count("<h2>") >= 3


def test_numbers_that_are_not_finite_are_left_out_and_counted():
    metrics = [*report().metrics, {"step": 50, "loss": float("nan"), "accuracy": 0.1, "horizon": 1.0}]
    assert "1 steps without finite numbers are left out" in render(report(metrics=metrics))


def test_the_page_is_written_whole_and_the_same_each_time(tmp_path):
    first = write_report(report(), tmp_path / "report").read_text()
    assert write_report(report(), tmp_path / "report").read_text() == first
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
