"""Heads of scikit-learn, fitted task by task to frozen embeddings. For benchmarks/race/race.py."""

import contextlib
import warnings

import numpy as np
import sklearn
from answering import serve  # pyright: ignore[reportMissingImports]  # beside this script
from heads import begin_with  # pyright: ignore[reportMissingImports]  # beside this script
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeClassifier, RidgeClassifierCV
from sklearn.svm import SVC

MODELS = {
    "LogisticRegression": lambda shots: LogisticRegression(),
    "LogisticRegression, C chosen": lambda shots, choice=1.0: LogisticRegression(C=choice, max_iter=1000),
    "LogisticRegressionCV": lambda shots: LogisticRegressionCV(cv=min(5, shots), max_iter=1000),
    "RidgeClassifier, alpha chosen": lambda shots, choice=1.0: RidgeClassifier(alpha=choice),
    "RidgeClassifierCV": lambda shots: RidgeClassifierCV(alphas=np.logspace(-3, 3, 13)),
    "SVC, linear, C chosen": lambda shots, choice=1.0: SVC(kernel="linear", C=choice),
}


def entrant(name, shots):
    """Return what predicts the query classes of a task, given the choice made on validation tasks."""

    def predict(support, labels, query, *choice):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MODELS[name](shots, *choice).fit(support, labels).predict(query)

    return predict


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        serve(begin_with(entrant), {"scikit-learn": sklearn.__version__})
