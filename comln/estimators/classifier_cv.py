"""A linear classifier that follows a gradient flow for a time chosen by cross-validation."""

__all__ = ["GradientFlowClassifierCV"]

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import check_cv

from comln.estimators.classifier import DEFAULT_HORIZON, AbstractFlowClassifier, Support
from comln.estimators.coordinates import Coordinates
from comln.estimators.folds import NEVER, stratified_folds
from comln.estimators.padded_flow import FlowFailed
from comln.estimators.padded_problem import PaddedProblem
from comln.estimators.path_scores import PathScores, scores_along_path
from comln.estimators.stacked_flow import Standardisation

TIES = 10 * float(np.finfo(np.float32).eps)
"""Scores are equal if they differ, relatively, by no more: the same share of right answers, summed in another order."""

GRID = 10 ** np.linspace(0, 5, 16)
"""The horizons of the grid, for examples of mean squared norm one."""

MOST_NAMED = 10
"""Classes that a warning names."""

PATH_TOL = 1e-2
"""Bound on the error of a step along the paths of the folds, which only have to tell horizons apart."""


class GradientFlowClassifierCV(AbstractFlowClassifier):
    r"""A `GradientFlowClassifier` whose horizon $T$ is chosen by cross-validation.

    All horizons lie on one path. So each fold follows one flow and is judged wherever it passes a horizon of the grid,
    where a penalty would have to be fitted anew for each of its values; and where the score falls, the rest of the path
    is not followed. The flow of all examples is then followed to the horizon with the best mean score; between equal
    accuracies the likelihood decides.

    **Arguments:**
    - `cv`: number of folds, 5 by default, or what `sklearn.model_selection.check_cv` takes: a splitter, or pairs of
      training and held-out indices. A class with fewer members than folds is held out in so many folds only. The only
      member of a class is never held out, and a warning says so; where no class has two members, the horizon is, with
      a warning, the default of a `GradientFlowClassifier`: 100 over the mean squared norm of an example, or the one
      that the run in `initial` has learned.
    - `horizons`: the grid, in rising order; by default $10^0, 10^{1/3}, \dots, 10^5$ over the mean squared norm of an
      example.
    - `scoring`: `"neg_log_loss"`, the mean log-likelihood, or `"accuracy"`, which few examples tell less exactly. In
      the mean over a fold, examples have the weights that they have in the loss.
    - `one_standard_error`: choose the smallest horizon whose mean score is within one standard error of the best one's
      (Breiman et al., 1984), rather than the best.
    - `proximal`, `initial`, `fit_intercept`, `standardize`, `class_weight`, `tol`, `max_iter`: as in
      `GradientFlowClassifier`. Each fold centres and scales by the examples that it trains on. The paths of the folds
      are followed with an error of 0.01 logits a step.

    **Attributes:** those of `GradientFlowClassifier`, and `horizons_`, the horizons that were reached, shape
    `(horizon,)`; `scores_path_`, the scores there, shape `(fold, horizon)`. Both are empty where nothing was held out.

    **Raises:** as `GradientFlowClassifier`. A `ConvergenceWarning` says where `max_iter` ended the paths of the folds
    before their scores fell.

    **Example:** five points on either side of zero, none of them hard.

    >>> points = np.array([[-5.0], [-4.0], [-3.0], [-2.0], [-1.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
    >>> classifier = GradientFlowClassifierCV(scoring="accuracy").fit(points, points[:, 0] > 0)
    >>> classifier.predict([[-0.5], [0.5]]).tolist(), float(classifier.scores_path_.max())
    ([False, True], 1.0)
    """

    horizons_: np.ndarray
    scores_path_: np.ndarray

    def __init__(
        self,
        *,
        cv: Any = None,
        horizons: Any = None,
        scoring: str = "neg_log_loss",
        one_standard_error: bool = False,
        proximal: float | int = 0.0,
        initial: Any = "zeros",
        fit_intercept: bool = True,
        standardize: bool = True,
        class_weight: Any = None,
        tol: float = 1e-3,
        max_iter: int = 10_000,
    ) -> None:
        self.cv = cv
        self.horizons = horizons
        self.scoring = scoring
        self.one_standard_error = one_standard_error
        self.proximal = proximal
        self.initial = initial
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "GradientFlowClassifierCV":
        if self.scoring not in ("accuracy", "neg_log_loss"):
            raise ValueError(f'`scoring` must be "accuracy" or "neg_log_loss", got {self.scoring!r}.')
        support = self._check(X, y, sample_weight)
        coordinates, start, problem = self._begin(support, infinite=False)
        held_out = self._held_out(support, X, y)
        if held_out is None:
            self.horizons_, self.scores_path_ = np.empty(0), np.empty((0, 0))
            horizon = self._default_horizon(coordinates, start)
        else:
            horizons = self._grid(coordinates)
            scores = self._scores(support, problem, *held_out, horizons)
            self.horizons_ = horizons[: len(scores.accuracy)]
            horizon = self._choose(scores)
        self._follow(horizon, coordinates, start, problem)
        return self

    def _grid(self, coordinates: Coordinates) -> np.ndarray:
        if self.horizons is None:
            return GRID / coordinates.mean_square
        horizons = np.asarray(self.horizons, np.float64)
        if horizons.ndim != 1 or len(horizons) == 0 or not np.all(np.isfinite(horizons)) or not horizons[0] >= 0:
            raise ValueError(f"`horizons` must be a list of finite numbers, at least 0, got {self.horizons!r}.")
        if not np.all(np.diff(horizons) > 0):
            raise ValueError(f"`horizons` must rise, got {self.horizons!r}.")
        return horizons

    def _held_out(self, support: Support, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Return which examples each fold trains on and which it holds out, shape `(fold, example)`, if any."""
        if self.cv is None or isinstance(self.cv, Integral):
            return self._dealt(support, 5 if self.cv is None else int(self.cv))
        training, held_out = [], []
        splitter: Any = check_cv(self.cv, y, classifier=True)
        for train, test in splitter.split(X, y):
            for masks, members in ((training, train), (held_out, test)):
                mask = np.zeros(len(support.kept), bool)
                mask[members] = True
                masks.append(mask[support.kept])
        return np.stack(training), np.stack(held_out)

    def _dealt(self, support: Support, folds: int) -> tuple[np.ndarray, np.ndarray] | None:
        if folds < 2:
            raise ValueError(f"`cv` must be at least 2 folds, got {folds}.")
        fold = stratified_folds(support.classes, folds)
        if np.all(fold == NEVER):
            warnings.warn(
                "No class has two examples, so that no horizon can be chosen by cross-validation: it is the default of "
                f"GradientFlowClassifier ({DEFAULT_HORIZON:g} over the mean squared norm of an example, or what the "
                "run in `initial` has learned). Use GradientFlowClassifier(horizon=...) to set it.",
                UserWarning,
                stacklevel=4,
            )
            return None
        if np.any(fold == NEVER):
            lonely = self.classes_[support.classes[fold == NEVER]].tolist()
            more = f" and {len(lonely) - MOST_NAMED} more" if len(lonely) > MOST_NAMED else ""
            warnings.warn(
                "Classes with one example each take no part in the choice of the horizon: "
                f"{lonely[:MOST_NAMED]}{more}.",
                UserWarning,
                stacklevel=4,
            )
        held_out = fold == np.arange(np.max(fold) + 1)[:, None]
        return ~held_out, held_out

    def _scores(
        self, support: Support, problem: PaddedProblem, training: np.ndarray, held_out: np.ndarray, horizons: np.ndarray
    ) -> PathScores:
        weights = np.zeros((2, len(training), len(problem.examples)))
        weights[:, :, : len(support.weights)] = np.stack([training, held_out]) * support.weights
        if np.any(np.sum(weights, axis=2) == 0):
            raise ValueError("Every fold of `cv` must train on and hold out examples of positive weight.")
        scores = scores_along_path(
            problem,
            weights[0],
            weights[1],
            horizons,
            float(self.proximal),
            Standardisation(
                centred=self.standardize and self.fit_intercept, scaled=self.standardize, intercept=self.fit_intercept
            ),
            self.scoring == "accuracy",
            self._settings(infinite=False)._replace(tol=max(self.tol, PATH_TOL)),
        )
        if len(scores.accuracy) == 0 or not np.all(np.isfinite(scores.log_likelihood)):
            raise FlowFailed("The flow of a fold did not reach the first of `horizons`. Scale the features.")
        if not scores.fell and len(scores.accuracy) < len(horizons):
            warnings.warn(
                f"The paths of the folds ended at horizon {horizons[len(scores.accuracy) - 1]:g} of up to "
                f"{horizons[-1]:g}, for want of steps (max_iter={self.max_iter}). Raise `max_iter`, or pass shorter "
                "`horizons`.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return scores

    def _choose(self, scores: PathScores) -> float:
        by_score = scores.accuracy if self.scoring == "accuracy" else scores.log_likelihood
        self.scores_path_ = by_score.T
        mean, likelihood = np.mean(by_score, axis=1), np.mean(scores.log_likelihood, axis=1)
        ties = np.flatnonzero(np.isclose(mean, np.max(mean), rtol=TIES, atol=0))
        best = ties[np.argmax(likelihood[ties])]
        if self.one_standard_error and by_score.shape[1] > 1:
            error = np.std(by_score[best], ddof=1) / by_score.shape[1] ** 0.5
            best = np.flatnonzero(mean >= mean[best] - error)[0]
        return float(self.horizons_[best])
