"""Linear regression that follows a gradient flow, with the interface of scikit-learn."""

__all__ = ["GradientFlowRegressor"]

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from comln.estimators.classifier import DEFAULT_HORIZON, FLOATS
from comln.estimators.coordinates import Coordinates
from comln.estimators.example_weights import example_weights
from comln.estimators.padded_flow import Settings, follow_padded
from comln.estimators.padded_problem import padded_problem
from comln.losses import SquaredError


class GradientFlowRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Linear regression that follows the gradient flow of its training loss for a time $T$.

    $$ \frac{\mathrm{d}W}{\mathrm{d}t} = -\nabla L(W(t)), \qquad W(0) = W_0, \qquad
       L(W) = \frac{1}{2\sum_m w_m} \sum_m w_m \lVert W\phi_m - y_m \rVert^2
              + \frac{\lambda}{2} \lVert W - W_0 \rVert^2 . $$

    The flow is linear and solved exactly: along a principal axis of the examples with variance $\mu$ the weights have
    come the share $1 - e^{-(\mu + \lambda)T}$ of their way. Early stopping is thus a smooth form of principal-component
    regression, close to ridge regression with penalty $1/T$ (Ali et al., 2019). For $T = \infty$ it is ridge regression
    with $\alpha = \lambda \sum w$, and without $\lambda$ least squares.

    **Arguments:**
    - `horizon`: $T \ge 0$, may be `inf`. `None`: 100 over the mean squared norm of an example.
    - `proximal`: $\lambda \ge 0$, pulls the weights to where they began.
    - `initial`: $W_0$: `"zeros"` or an array, shaped as `coef_`.
    - `fit_intercept`: whether to learn an intercept. It is at its best at every time, as the mean of the targets less
      what the weights make of the mean of the features, and is not pulled anywhere.
    - `standardize`: divide all features by one number, after centring if there is an intercept, so that the mean
      squared norm of an example is one. Then the same $T$ and $\lambda$ suit features in any unit.

    **Attributes:** `coef_` and `intercept_`, in the features as passed, of shapes `(feature,)` and `()`, or
    `(target, feature)` and `(target,)` where `y` has two axes; `horizon_`, $T$; `n_features_in_`.

    **Raises:** `ValueError` for input it cannot use; `comln.estimators.FlowFailed` where numbers overflow.

    **Example:** one axis of variance 1, whose best weight is 3: at $T = \log 3$ it has come two thirds of its way.

    >>> regressor = GradientFlowRegressor(horizon=np.log(3.0)).fit([[-1.0], [1.0]], [1.0, 7.0])
    >>> regressor.coef_.round(6).tolist(), round(float(regressor.intercept_), 6)
    ([2.0], 4.0)
    """

    coef_: np.ndarray
    intercept_: np.ndarray
    horizon_: float

    def __init__(
        self,
        horizon: float | int | None = None,
        *,
        proximal: float | int = 0.0,
        initial: Any = "zeros",
        fit_intercept: bool = True,
        standardize: bool = True,
    ) -> None:
        self.horizon = horizon
        self.proximal = proximal
        self.initial = initial
        self.fit_intercept = fit_intercept
        self.standardize = standardize

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "GradientFlowRegressor":
        """Fit to examples `X` of shape `(example, feature)` with targets `y`, `(example,)` or `(example, target)`.

        - `sample_weight`: weights of the examples, at least zero; twice the weight is the same as twice the example.
        """
        if not self.proximal >= 0 or np.isinf(self.proximal):
            raise ValueError(f"`proximal` must be at least 0 and finite, got {self.proximal}.")
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True)
        weights = example_weights(sample_weight, X)
        targets = np.asarray(y, np.float64).reshape(len(y), -1)
        if not np.all(weights > 0):
            kept = weights > 0
            weights, targets, features = weights[kept], targets[kept], X[kept]
        else:
            features = X
        coordinates = Coordinates.of(features, weights, centred=self.fit_intercept, scaled=self.standardize)
        start = self._start(targets.shape[1], X.shape[1])
        entered = None if start is None else coordinates.enter(start, np.zeros(len(start)))
        # With both centred the intercept drops out of the loss.
        middle = weights @ targets / np.sum(weights) if self.fit_intercept else np.zeros(targets.shape[1])
        problem = padded_problem(coordinates.examples, targets - middle, weights, entered, False, 0.0, X.dtype)
        horizon = DEFAULT_HORIZON / coordinates.mean_square if self.horizon is None else self.horizon
        if not horizon >= 0:
            raise ValueError(f"`horizon` must be at least 0, got {horizon}.")
        settings = Settings(SquaredError(), 1e-5, 1, bool(self.proximal > 0), bool(np.isinf(horizon)))
        followed, _ = follow_padded(problem, float(horizon), float(self.proximal), settings)
        followed = followed[: targets.shape[1], : coordinates.examples.shape[1]].astype(np.float64)
        coef, intercept = coordinates.leave(followed, middle, start)
        coef, intercept = coef.astype(X.dtype), intercept.astype(X.dtype)
        self.coef_, self.intercept_ = (coef[0], intercept[0]) if np.ndim(y) == 1 else (coef, intercept)
        self.horizon_ = float(horizon)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted targets, of the shape of `y`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        return X @ self.coef_.T + self.intercept_

    def _start(self, targets: int, features: int) -> np.ndarray | None:
        if isinstance(self.initial, str) and self.initial == "zeros":
            return None
        start = np.atleast_2d(np.asarray(self.initial, np.float64))
        if start.shape != (targets, features):
            raise ValueError(
                f"`initial` must have a row for each of {targets} targets, a column for each of {features} features, "
                f"got shape {start.shape}."
            )
        if not np.all(np.isfinite(start)):
            raise ValueError("`initial` must hold finite numbers.")
        return start
