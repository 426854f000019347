import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.cli.report import _usual_horizon
from comln.episode import Episode
from comln.report.confusion import confusion
from comln.report.episode_page import EpisodePicture
from comln.report.run_report import Predictions, RunReport, render, write_report
from tests.learners.test_task_horizon import examples, factor, learner


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


def predictions(classes=3) -> Predictions:
    """Return two tasks of two ways of the classes; one query of the last class of the second is wrong."""
    probabilities = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.6, 0.4]]])
    names = ("<i>a</i>", "b", "c", *(f"more {i}" for i in range(classes - 3)))
    return Predictions(names, np.array([[0, 1], [1, 2]]), np.array([[0, 1], [0, 1]]), probabilities)


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
            own_horizons=False,
            horizons=np.array([0.0, 0.3, 3.0, 30.0, 300.0]),
            accuracy_at=np.array([0.2, 0.5, 0.8, 0.93, 0.92]),
            ci95_at=np.full(5, 0.01),
            predictions=predictions(),
            episodes=[("Test task <0>", picture())],
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
        {"episodes": [("best", picture((3,))), ("worst", picture((1,)))]},
        {"predictions": None, "episodes": []},
        {"predictions": predictions(100)},
    ],
    ids=[
        "no metrics",
        "one step, no horizon",
        "one step",
        "no path",
        "no episodes",
        "colour and channel",
        "no predictions",
        "many classes",
    ],
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


def test_calibration_and_confusion_are_those_of_the_predictions():
    page = render(report())
    # Confidences 0.9, 0.8, 0.7 and 0.6 in bins of their own; the last one is wrong.
    error = 100 * (0.1 + 0.2 + 0.3 + 0.6) / 4
    assert f"<strong>{error:.1f} %</strong>, over 4 predictions of 2 test tasks" in page
    assert "<td>c</td><td>b</td><td>1 of 1 (100 %)</td>" in page
    assert "<i>a</i>" not in page and "Test task &lt;0&gt;" in page
    assert "Confusion of the test classes" in page
    assert "with most mistakes" not in page
    assert "Of 100 classes, the 40 with most mistakes." in render(report(predictions=predictions(100)))


def test_classes_that_never_met_are_left_blank():
    two = predictions()
    found = confusion(two.class_names, two.classes_of, two.ways, two.predicted)
    np.testing.assert_array_equal(found.shares, [[1.0, 0.0, np.nan], [0.0, 1.0, 0.0], [np.nan, 1.0, 0.0]])
    assert list(found.worst(5)) == [("c", "b", 1, 1)]


def test_dollar_signs_in_names_begin_no_formula():
    named = replace(predictions(), class_names=("$x_{$", "$", "c"))
    page = render(report(predictions=named))
    assert "Confusion of the test classes" in page and "$x_{$" in page


def test_names_in_any_script_and_of_any_length_are_drawn_without_remarks():
    """Warnings are errors here."""
    page = render(report(predictions=replace(predictions(), class_names=("猫", "y" * 250, "<b>"))))
    assert ">猫<" in page and f">{'y' * 39}…<" in page and "<b>" not in page


def test_a_mark_that_is_a_median_says_so():
    assert "each task has a T of its own" in render(report(own_horizons=True))
    assert "each task has a T of its own" not in render(report())


def episode(seed):
    return Episode(examples(seed), examples(seed + 10))


def test_the_mark_of_horizons_of_their_own_is_their_median():
    own, batch = learner(factor()), jax.tree.map(lambda *x: jnp.stack(x), *(episode(seed) for seed in range(3)))
    each = [float(own.horizon_for(episode(seed).support)) for seed in range(3)]
    assert len(set(each)) == 3 and _usual_horizon(own, [batch]) == pytest.approx(sorted(each)[1])
    assert _usual_horizon(learner(None), [batch]) == pytest.approx(2.0)
