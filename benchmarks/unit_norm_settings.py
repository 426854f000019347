"""Settings of the methods of Table 5 for the embeddings of the glyphs of norm one, chosen on validation tasks.

Each method is trained with each of its settings in `comln.reproduce.unit_norm_settings.TRIED`, as the table's committed
budget trains it, with the first seed alone, and tested on tasks of the validation classes. The table's numbers are of
other classes. Of settings that are equally good, the first is chosen.

Run:     python benchmarks/unit_norm_settings.py PARTS    PARTS: a folder for what is computed once; about 35 minutes on
                                                          two cores
Writes:  benchmarks/results/unit_norm_settings.json; prints what `CHOSEN` has to be
"""

import dataclasses
import json
import sys
from pathlib import Path

from comln.reproduce.counted_training import train_cell
from comln.reproduce.frozen_features import SPENDING, cell_of, embeddings_of
from comln.reproduce.scores import score
from comln.reproduce.unit_norm_settings import TRIED
from comln.reproduce.workspace import Budget, Workspace

DIGITS = 6
"""Of accuracies that are compared: those of tasks are kept with five."""

RESULT = Path(__file__).parent / "results" / "unit_norm_settings.json"


def say(what, share):
    """Print what is being done, in place."""
    print(f"\r\033[K{what}", end="", flush=True)


def main():
    """Train what is not there yet, write the JSON."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    work = Workspace(Path(sys.argv[1]), Budget.COMMITTED, say)
    spending = dataclasses.replace(SPENDING[work.budget], seeds=SPENDING[work.budget].seeds[:1])
    found = embeddings_of(work, spending)
    # The tasks to choose by take the place of those of the test.
    splits = found.used | {"test": found.used["val"]}
    rows = []
    for shots in spending.shots:
        for learner, tried in TRIED.items():
            cells = [cell_of(work, spending, learner, shots, found.features, settings) for settings in tried]
            accuracies = []
            for cell in cells:
                accuracy = train_cell(work, cell, splits, say).accuracies(f"{shots}-shot")
                accuracies.append(None if accuracy is None else score(accuracy))
            means = [-1.0 if accuracy is None else round(accuracy.mean, DIGITS) for accuracy in accuracies]
            best = means.index(max(means))
            rows += [
                {
                    "learner": learner,
                    "shots": shots,
                    "settings": settings,
                    "updates": cell.experiment.steps,
                    "accuracy": None if accuracy is None else [accuracy.mean, accuracy.ci95],
                    "chosen": number == best,
                }
                for number, (settings, cell, accuracy) in enumerate(zip(tried, cells, accuracies, strict=True))
            ]
            print(f"\r\033[K({learner!r}, {shots}): {tried[best]},", [a and round(100 * a.mean, 2) for a in accuracies])
    about = {"tasks": spending.tasks, "seed": spending.seeds[0]}
    RESULT.write_text(json.dumps({**about, "rows": rows, "environment": work.environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
