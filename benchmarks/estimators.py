"""Accuracy and fit time of the estimators against scikit-learn's logistic regression, example set by example set.

Two data sets: scikit-learn's digits as raw pixels (10 classes, 64 features; the rest of the 1797 images are queries),
and embeddings of the test classes of `glyphs` by a run's network (10 classes a task, 15 queries a class, support and
query in different typefaces). At 5 and 20 shots `GradientFlowClassifierCV` meets `LogisticRegressionCV` with its
default grid; at 1 shot, where that cannot be fitted, `LogisticRegression`. Both see the same examples, as they come and
in double precision. Then the time of one `GradientFlowClassifier.fit`, 5-way 5-shot with 640 features, after the first.

Run:     comln train glyphs-5way-1shot --steps 800 --out RUN
         python benchmarks/estimators.py RUN [RESAMPLINGS]
Writes:  benchmarks/results/estimators.json
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn import __version__ as sklearn_version
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from comln import GradientFlowClassifier, GradientFlowClassifierCV, load_run
from comln.data.sampling import EpisodeShape, Sampler
from comln.evaluate import embedded_tasks, mean_and_ci95
from comln.reproduce.measure import environment

SHOTS = (1, 5, 20)
WAYS, QUERIES = 10, 15


def digits(shots, count):
    """Yield `count` tasks: support features and classes, query features and classes."""
    features, classes = load_digits(return_X_y=True)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        support = np.concatenate([rng.choice(np.flatnonzero(classes == c), shots, replace=False) for c in range(WAYS)])
        query = np.setdiff1d(np.arange(len(classes)), support)
        yield features[support], classes[support], features[query], classes[query]


def glyphs(run, shots, count):
    """Yield `count` tasks of embeddings, as `digits` does."""
    split = run.experiment.data.load()["test"]
    sampler = Sampler(split, EpisodeShape(ways=WAYS, shots=shots, queries=QUERIES))
    batches = embedded_tasks(run.learner.backbone, run.statistics, sampler, count, 0, run.experiment.normalisation)
    tasks = (
        [np.asarray(array)[i] for array in (e.support.inputs, e.support.labels, e.query.inputs, e.query.labels)]
        for e in batches
        for i in range(len(e.support.inputs))
    )
    for _, (support, support_labels, query, query_labels) in zip(range(count), tasks, strict=False):
        yield (
            support.astype(np.float64),
            np.argmax(support_labels, axis=1),
            query.astype(np.float64),
            np.argmax(query_labels, axis=1),
        )


def timed_fit(model, features, classes):
    """Return the fitted model and how long its fit took, in seconds."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        for kind in (UserWarning, ConvergenceWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        model.fit(features, classes)
    return model, time.perf_counter() - began


def compare(tasks, shots):
    """Return what came out, of all tasks of one kind."""
    ours = GradientFlowClassifierCV
    theirs = LogisticRegression if shots == 1 else LogisticRegressionCV
    accuracies, seconds, stopped, size = [], [], [], 0
    for support, classes, query, answers in tasks:
        if not accuracies:  # what is compiled once is not counted
            timed_fit(ours(), support, classes)
        fits = timed_fit(ours(), support, classes), timed_fit(theirs(), support, classes)
        size = support.shape[1]
        accuracies.append([model.score(query, answers) for model, _ in fits])
        seconds.append([taken for _, taken in fits])
        stopped.append(np.max(fits[1][0].n_iter_) >= fits[1][0].max_iter)
    percent, milliseconds = 100 * np.array(accuracies), 1e3 * np.percentile(seconds, [25, 50, 75], axis=0)
    difference, interval = mean_and_ci95(percent[:, 0] - percent[:, 1])
    return {
        "resamplings": len(percent),
        "features": size,
        "against": theirs.__name__,
        "accuracy_percent": round(float(percent[:, 0].mean()), 3),
        "accuracy_percent_against": round(float(percent[:, 1].mean()), 3),
        "difference": round(difference, 3),
        "difference_ci95": round(interval, 3),
        "median_fit_ms": round(float(milliseconds[1, 0]), 3),
        "quartiles_fit_ms": milliseconds[[0, 2], 0].round(3).tolist(),
        "median_fit_ms_against": round(float(milliseconds[1, 1]), 3),
        "quartiles_fit_ms_against": milliseconds[[0, 2], 1].round(3).tolist(),
        "share_against_ended_by_max_iter": round(float(np.mean(stopped)), 3),
        "median_time_ratio": round(float(np.median([a / b for a, b in seconds])), 4),
    }


def single_fit():
    """Return the time of one fit, 5-way 5-shot with 640 features."""
    rng = np.random.default_rng(0)
    classes = np.arange(25) % 5
    seconds = []
    for index in range(201):
        features = rng.normal(size=(5, 640))[classes] + rng.normal(size=(25, 640))
        _, taken = timed_fit(GradientFlowClassifier(), features, classes)
        if index:
            seconds.append(taken)
    low, middle, high = np.percentile(1e3 * np.array(seconds), [25, 50, 75]).tolist()
    return {"median_ms": round(middle, 3), "quartiles_ms": [round(low, 3), round(high, 3)], "fits": len(seconds)}


def main():
    """Measure, print and write."""
    folder, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    run = load_run(folder)
    results = {
        "environment": environment() | {"scikit-learn": sklearn_version},
        "embeddings": f"{run.experiment.name}, {run.last_step} updates, seed {run.seed}",
        "one fit, 5-way 5-shot, 640 features": single_fit(),
        "comparisons": {},
    }
    print(results["one fit, 5-way 5-shot, 640 features"])
    for shots in SHOTS:
        for name, tasks in (
            ("digits, raw pixels", digits(shots, count)),
            ("glyphs, embeddings", glyphs(run, shots, count)),
        ):
            results["comparisons"][f"{name}, {shots}-shot"] = row = compare(tasks, shots)
            print(f"{name}, {shots}-shot: {row}", flush=True)
    path = Path(__file__).parent / "results" / "estimators.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
