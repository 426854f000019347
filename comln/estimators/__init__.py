"""Estimators with the interface of scikit-learn: linear models that follow a gradient flow."""

__all__ = [
    "DEFAULT_HORIZON",
    "FlowFailed",
    "GradientFlowClassifier",
    "GradientFlowClassifierCV",
    "GradientFlowRegressor",
]

from comln.estimators.classifier import DEFAULT_HORIZON, GradientFlowClassifier
from comln.estimators.classifier_cv import GradientFlowClassifierCV
from comln.estimators.padded_flow import FlowFailed
from comln.estimators.regressor import GradientFlowRegressor
