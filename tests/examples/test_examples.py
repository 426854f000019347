"""Every script in `examples/` runs, and shows what it says it shows."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.float32
def test_gradient_descent_finds_a_better_time_to_stop_than_the_grid(capsys):
    runpy.run_path(str(EXAMPLES / "learn_when_to_stop.py"), run_name="__main__")
    losses = [float(loss) for loss in re.findall(r"query loss ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 5
    assert losses[-1] < min(losses[:-1])


@pytest.mark.slow
def test_the_chosen_time_is_about_as_good_as_the_best_and_as_logistic_regression(capsys):
    runpy.run_path(str(EXAMPLES / "few_labelled_rows.py"), run_name="__main__")
    accuracies = [float(value) for value in re.findall(r"accuracy ([\d.]+)", capsys.readouterr().out)]
    *given, chosen, other = accuracies
    assert len(given) == 4 and min(given) < max(given) - 0.02
    assert chosen > max(given) - 0.02 and chosen > other - 0.01


def test_every_example_is_run_here():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(re.findall(r"(\w+\.py)\"", Path(__file__).read_text()))
