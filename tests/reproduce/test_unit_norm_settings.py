import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from comln.recipes import find
from comln.reproduce.frozen_features import METHODS, PAPER_DATA
from comln.reproduce.unit_norm_settings import CHOSEN, TRIED

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "unit_norm_settings.json"


def test_what_was_best_on_validation_tasks_is_chosen():
    rows = json.loads(RESULT.read_text())["rows"]

    def mean(row):
        return -1.0 if row["accuracy"] is None else round(row["accuracy"][0], 6)

    best = {}
    for row in rows:
        key = row["learner"], row["shots"]
        if key not in best or mean(row) > mean(best[key]):
            best[key] = row
    assert {key: row["settings"] for key, row in best.items()} == CHOSEN
    assert all(row["chosen"] == (row is best[row["learner"], row["shots"]]) for row in rows)
    tried = {key: tuple(row["settings"] for row in rows if (row["learner"], row["shots"]) == key) for key in best}
    assert tried == {(learner, shots): TRIED[learner] for learner in TRIED for shots in (1, 5)}


@pytest.mark.parametrize("learner", TRIED)
def test_settings_are_those_of_the_learner(learner):
    config: Any = find(f"{PAPER_DATA}-5way-1shot", learner, "house").learner
    for settings in TRIED[learner]:
        changed = dataclasses.replace(config, **settings)
        assert {name: getattr(changed, name) for name in settings} == settings


def test_only_what_learns_all_it_has_goes_without():
    assert set(METHODS) - set(TRIED) == {"comln", "protonet"}
