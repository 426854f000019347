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


def test_every_example_is_run_here():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(re.findall(r"(\w+\.py)\"", Path(__file__).read_text()))
