"""A linear classifier that follows a gradient flow, with the interface of scikit-learn."""

__all__ = ["DEFAULT_HORIZON", "AbstractFlowClassifier", "GradientFlowClassifier", "Support"]

import abc
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from comln.estimators.coordinates import Coordinates
from comln.estimators.example_weights import class_weights, example_weights
from comln.estimators.open_ways import CLOSED, OpenWaysCrossEntropy
from comln.estimators.padded_flow import Settings, follow_padded
from comln.estimators.padded_problem import PaddedProblem, padded_problem
from comln.estimators.starting_head import StartingHead, starting_head

DEFAULT_HORIZON = 100.0
"""The horizon where none is given and none can be chosen, for examples of mean squared norm one."""

FLOATS = (np.float64, np.float32)


class Support(NamedTuple):
    """The examples of a fit, checked; those without weight are left out.

    - `classes`: the number of each example's class, from zero.
    - `kept`: which of the examples that were passed these are.
    """

    features: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    kept: np.ndarray


class AbstractFlowClassifier(ClassifierMixin, BaseEstimator, abc.ABC):
    """What the classifiers have in common: everything but how the horizon is found."""

    proximal: float | int
    initial: Any
    fit_intercept: bool
    standardize: bool
    class_weight: Any
    tol: float
    max_iter: int
    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    horizon_: float
    n_iter_: int

    @abc.abstractmethod
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "AbstractFlowClassifier":
        """Fit the classifier to examples `X` of shape `(example, feature)` with classes `y`; return it.

        - `sample_weight`: weights of the examples, at least zero; twice the weight is the same as twice the example.
        """

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, shape `(example, way)`; for two classes the second's less the first's, `(example,)`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        logits = X @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, shape `(example, way)`, ways in the order of `classes_`."""
        logits = self.decision_function(X)
        if logits.ndim == 2:
            return softmax(logits, axis=1)
        return np.stack([expit(-logits), expit(logits)], axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`."""
        logits = self.decision_function(X)
        if logits.ndim == 2:
            return log_softmax(logits, axis=1)
        return np.stack([log_expit(-logits), log_expit(logits)], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each example."""
        logits = self.decision_function(X)
        best = (logits > 0).astype(np.intp) if logits.ndim == 1 else np.argmax(logits, axis=1)
        return self.classes_[best]

    def _check(self, X: Any, y: Any, sample_weight: Any) -> Support:
        """Check settings and data; learn the classes."""
        if not self.proximal >= 0 or np.isinf(self.proximal):
            raise ValueError(f"`proximal` must be at least 0 and finite, got {self.proximal}.")
        if not self.tol > 0 or self.max_iter < 1:
            raise ValueError(f"`tol` must be positive and `max_iter` at least 1, got {self.tol} and {self.max_iter}.")
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_, classes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"A classifier needs examples of at least 2 classes, got 1 class: {self.classes_[0]}.")
        weights = example_weights(sample_weight, X)
        if self.class_weight is not None:
            weights = weights * class_weights(self.class_weight, self.classes_, y, weights)[classes]
        kept = weights > 0
        if not np.any(kept):
            raise ValueError("No example has a positive weight: `class_weight` and `sample_weight` leave nothing.")
        if np.all(kept):
            return Support(X, classes, weights, kept)
        return Support(X[kept], classes[kept], weights[kept], kept)

    def _begin(self, support: Support, infinite: bool) -> tuple[Coordinates, StartingHead, PaddedProblem]:
        """Return the coordinates to follow the flow in, where it begins, and the problem.

        - `infinite`: whether its limit is asked for, which is found by other means than by steps.
        """
        ways = len(self.classes_)
        start = starting_head(self.initial, ways, support.features.shape[1], bool(self.proximal > 0))
        coordinates = Coordinates.of(
            support.features,
            support.weights,
            centred=self.standardize and self.fit_intercept,
            scaled=self.standardize,
            always_turned=infinite,
        )
        problem = padded_problem(
            coordinates.examples,
            np.eye(ways)[support.classes],
            support.weights,
            None if start.weights is None else coordinates.enter(start.weights, np.zeros(ways)),
            self.fit_intercept,
            CLOSED,
            support.features.dtype,
            tall=infinite,
        )
        return coordinates, start, problem

    def _settings(self, infinite: bool) -> Settings:
        return Settings(OpenWaysCrossEntropy(), self.tol, self.max_iter, bool(self.proximal > 0), infinite)

    def _default_horizon(self, coordinates: Coordinates, start: StartingHead) -> float:
        if start.horizon is not None:
            # Learned in the features as they are: in coordinates divided by c, time runs c² times as fast.
            return start.horizon * coordinates.scale**2
        return DEFAULT_HORIZON / coordinates.mean_square

    def _follow(self, horizon: float, coordinates: Coordinates, start: StartingHead, problem: PaddedProblem) -> None:
        """Follow the flow to `horizon` and learn the head there."""
        if not horizon >= 0:
            raise ValueError(f"`horizon` must be at least 0, got {horizon}.")
        followed, self.n_iter_ = follow_padded(
            problem, horizon, float(self.proximal), self._settings(bool(np.isinf(horizon)))
        )
        ways, size = len(self.classes_), coordinates.examples.shape[1]
        first = int(self.fit_intercept)
        followed = followed[:ways].astype(np.float64)
        intercept = followed[:, 0] if first else np.zeros(ways)
        weights, intercept = coordinates.leave(followed[:, first : first + size], intercept, start.weights)
        if ways == 2:
            weights, intercept = weights[1:] - weights[:1], intercept[1:] - intercept[:1]
        dtype = problem.examples.dtype
        self.coef_, self.intercept_, self.horizon_ = weights.astype(dtype), intercept.astype(dtype), horizon


class GradientFlowClassifier(AbstractFlowClassifier):
    r"""A linear classifier that follows the gradient flow of its training loss for a time $T$.

    $$ \frac{\mathrm{d}W}{\mathrm{d}t} = -\nabla L(W(t)), \qquad W(0) = W_0, \qquad
       L(W) = \frac{1}{\sum_m w_m} \sum_m w_m \, \ell(W\phi_m, y_m) + \frac{\lambda}{2} \lVert W - W_0 \rVert^2 $$

    with the softmax cross-entropy $\ell$ (Deleu et al., 2022, equation 8; equation 14 for $\lambda$). How early it
    stops is its regularisation: at $T = 0$ it knows nothing but $W_0$; for small $T$ every class is judged by its mean;
    as $T$ grows it approaches multinomial logistic regression, with a penalty for $\lambda > 0$, and the widest margin
    for $\lambda = 0$ where the classes can be separated (Soudry et al., 2018).

    **Arguments:**
    - `horizon`: $T \ge 0$; `inf` asks for the limit, which needs `proximal` > 0 or classes that cannot be separated.
      `None`: the horizon that the run in `initial` has learned, or else `DEFAULT_HORIZON` (100) over the mean squared
      norm of an example.
    - `proximal`: $\lambda \ge 0$, pulls the weights, the intercept among them, to where they began.
    - `initial`: $W_0$: `"zeros"`; an array, shaped as `coef_` or `(way, feature)`; or the head that was meta-learned by
      a run of COMLN, given as the run or its path, for examples that are embeddings by that run's network. As the run
      itself moves it only without an intercept; of a run for another number of ways the flow starts from zero, with a
      warning.
    - `fit_intercept`: whether to learn an intercept; it is the weight of a feature that is always one, and starts at
      zero.
    - `standardize`: divide all features by one number, after centring if there is an intercept, so that the mean
      squared norm of an example is one. Then the same $T$ and $\lambda$ suit features in any unit. Each feature is
      *not* divided by its own deviation: of few examples that is mostly noise, and accuracy on handwritten digits falls
      by 1 to 7 points. Features in different units should be scaled beforehand.
    - `class_weight`: weights of the classes, as a dictionary, `"balanced"` or `None`.
    - `tol`: bound on the error of a step, relative to one plus the logits. The logits then err by about 1 %, or less;
      the error falls with the power 2/3 of `tol`, the steps grow with the power 1/3.
    - `max_iter`: limit on steps.

    **Attributes:** `classes_`; `coef_` and `intercept_`, the head in the features as passed, of shapes `(way, feature)`
    and `(way,)`, for two classes `(1, feature)` and `(1,)`; `horizon_`, $T$; `n_iter_`, steps; `n_features_in_`.

    Of `X` in double precision the flow is followed in double precision, else in single, whatever JAX is set to. What is
    compiled is used again for problems of about the same shape.

    For $T = \infty$ and without an intercept it is scikit-learn's `LogisticRegression` with $C = 1/(\lambda \sum w)$ in
    the scaled features, $C = 2/(\lambda \sum w)$ for two classes.

    **Raises:** `ValueError` for input it cannot use; `comln.estimators.FlowFailed` where the horizon is not reached.

    **Example:** two points at $\pm 1$. By symmetry $W = (-w, w)$ with $w + (e^{2w} - 1)/2 = T$; this $T$ makes $w = 1$.

    >>> classifier = GradientFlowClassifier(horizon=1 + (np.exp(2.0) - 1) / 2, fit_intercept=False, tol=1e-6)
    >>> classifier.fit([[-1.0], [1.0]], ["left", "right"]).coef_.round(3).tolist()
    [[2.0]]
    >>> classifier.predict([[0.3], [-2.0]]).tolist()
    ['right', 'left']
    """

    def __init__(
        self,
        horizon: float | int | None = None,
        *,
        proximal: float | int = 0.0,
        initial: Any = "zeros",
        fit_intercept: bool = True,
        standardize: bool = True,
        class_weight: Any = None,
        tol: float = 1e-3,
        max_iter: int = 10_000,
    ) -> None:
        self.horizon = horizon
        self.proximal = proximal
        self.initial = initial
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "GradientFlowClassifier":
        support = self._check(X, y, sample_weight)
        horizon = None if self.horizon is None else float(self.horizon)
        coordinates, start, problem = self._begin(support, infinite=horizon == np.inf)
        self._follow(
            self._default_horizon(coordinates, start) if horizon is None else horizon, coordinates, start, problem
        )
        return self
