"""Gather the outcome of finished runs of the recipes.

Run:     comln train RECIPE --seed S --out FOLDER     for each, then     python benchmarks/runs.py FOLDER ...
Writes:  benchmarks/results/runs.json
"""

import json
import sys
from pathlib import Path


def summary(folder):
    """Return what was run in a folder, where, and what came out."""
    configuration = json.loads((folder / "config.json").read_text())
    evaluation = json.loads((folder / "evaluation.json").read_text())
    return {
        "recipe": configuration["experiment"]["name"],
        "learner": configuration["learner"],
        "protocol": configuration["protocol"],
        "training seed": configuration["seed"],
        "initial horizon": configuration["experiment"]["learner"]["initial_horizon"],
        **evaluation,
        "device": configuration["device"],
        "cores": configuration.get("cores"),
        "data_hash": configuration["data_hash"],
        "versions": configuration["versions"],
    }


def main():
    """Gather the folders named on the command line."""
    rows = [summary(Path(folder)) for folder in sys.argv[1:]]
    path = Path(__file__).parent / "results" / "runs.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print(f"{row['recipe']} seed {row['training seed']}: {100 * row['accuracy']:.2f} % ± {100 * row['ci95']:.2f}")


if __name__ == "__main__":
    main()
