"""Choose settings of the house protocol: short trainings, judged on the validation scripts.

Run:     python benchmarks/house_settings.py
Writes:  benchmarks/results/house_settings.json, one row a setting; settings that are there already are kept
"""

import dataclasses
import json
import sys
from pathlib import Path

from comln.learners import ConjugateGradients
from comln.recipes import find
from comln.reproduce.measure import environment
from comln.reproduce.timed_training import train_for

SECONDS, TASKS, RECIPE = 25.0, 300, "glyphs-5way-1shot"
RESULTS = Path(__file__).parent / "results" / "house_settings.json"

SETTINGS = [
    ("anil", {"step": 0.5}),
    ("anil", {"step": 5.0}),
    ("maml", {"step": 0.05}),
    ("maml", {"step": 0.2}),
    ("meta-sgd", {"initial_step": 0.05}),
    ("meta-sgd", {"initial_step": 0.1}),
    ("r2d2", {"regularisation": 50.0}),
    ("r2d2", {"regularisation": 1.0}),
    ("lrd2", {"regularisation": 50.0}),
    ("lrd2", {"regularisation": 1.0}),
    ("leap", {"step": 0.1}),
    ("leap", {"step": 0.3}),
    ("leo", {"weight_step": 1e-3}),
    ("leo", {"weight_step": 0.1}),
    ("metaoptnet-rr", {"regularisation": 50.0}),
    ("metaoptnet-rr", {"regularisation": 5.0}),
    ("imaml", {"solver": ConjugateGradients(5)}),
    ("imaml", {"solver": ConjugateGradients(2)}),
    ("cavia", {"step": 1.0}),
]
"""A method, and what is set apart from its house protocol."""


def described(learner, settings):
    """Return what was set, as JSON can hold it."""
    values = {
        name: dataclasses.asdict(value) if isinstance(value, ConjugateGradients) else value
        for name, value in settings.items()
    }
    return {"learner": learner, "settings": values, "seconds": SECONDS, "tasks": TASKS, "recipe": RECIPE}


def main():
    """Train what is not there yet."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    splits = find(RECIPE, "comln", "house").data.load()
    # What is called the test in this training is the validation split: the test scripts are not looked at.
    splits = {"train": splits["train"], "test": splits["val"]}
    for learner, settings in SETTINGS:
        what = described(learner, settings)
        if any({name: row[name] for name in what} == what for row in rows):
            continue
        experiment = find(RECIPE, learner, "house")
        changed = dataclasses.replace(experiment, learner=dataclasses.replace(experiment.learner, **settings))
        result = train_for(changed, splits, SECONDS, TASKS)
        found = {"accuracy": result.evaluation.mean, "ci95": result.evaluation.ci95, "updates": result.experiment.steps}
        rows.append({**what, **found, "environment": environment()})
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{learner} {settings}: {100 * rows[-1]['accuracy']:.1f} %", file=sys.stderr)


if __name__ == "__main__":
    main()
