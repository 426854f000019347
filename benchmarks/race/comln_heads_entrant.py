"""Heads of this package, fitted task by task to frozen embeddings. For benchmarks/race/race.py."""

import contextlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from answering import serve  # pyright: ignore[reportMissingImports]  # beside this script
from heads import begin_with  # pyright: ignore[reportMissingImports]  # beside this script

from comln import GradientFlowClassifier, GradientFlowClassifierCV, gradient_flow
from comln.heads import ridge, svm
from comln.reproduce.measure import COMMIT


def _weights_by_flow(support, targets, choice):
    start = jnp.zeros((targets.shape[1], support.shape[1]))
    return gradient_flow(start, support, targets, choice)[0]


def _weights_by_ridge(support, targets, choice):
    return ridge(support, targets, jnp.ones(len(support)), choice)


def _weights_by_svm(support, targets, choice):
    return svm(support, targets, jnp.ones(len(support)), choice)


FUNCTIONS = {
    "gradient flow, T chosen": _weights_by_flow,
    "ridge, chosen": _weights_by_ridge,
    "support vector machine, bound chosen": _weights_by_svm,
}
ESTIMATORS = {
    "GradientFlowClassifier": lambda *choice: GradientFlowClassifier(),
    "GradientFlowClassifier, T chosen": lambda choice: GradientFlowClassifier(horizon=choice),
    "GradientFlowClassifierCV": lambda *choice: GradientFlowClassifierCV(),
}


def entrant(name, shots):
    """Return what predicts the query classes of a task, given the choice made on validation tasks."""
    if name in ESTIMATORS:

        def fit_and_predict(support, labels, query, *choice):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ESTIMATORS[name](*choice).fit(support, labels).predict(query)

        return fit_and_predict

    @jax.jit
    def predicted(support, targets, query, choice):
        return jnp.argmax(query @ FUNCTIONS[name](support, targets, choice).T, axis=1)

    def predict(support, labels, query, choice):
        return predicted(support, np.eye(labels.max() + 1, dtype=support.dtype)[labels], query, np.float32(choice))

    return predict


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        serve(begin_with(entrant), {"comln": COMMIT, "jax": jax.__version__})
