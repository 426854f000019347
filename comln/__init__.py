"""Few-shot learning by adapting a classifier along a gradient flow, with exact meta-gradients."""

__all__ = [
    "COMLN",
    "CrossEntropy",
    "Episode",
    "Examples",
    "ForwardSensitivity",
    "GradientFlowClassifier",
    "GradientFlowClassifierCV",
    "GradientFlowRegressor",
    "Integrator",
    "SigmoidCrossEntropy",
    "SpanAdjoint",
    "SquaredError",
    "__version__",
    "gradient_flow",
    "gradient_flow_path",
    "load_run",
]

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comln.episode import Episode, Examples
    from comln.estimators import GradientFlowClassifier, GradientFlowClassifierCV, GradientFlowRegressor
    from comln.flow.gradient_flow import gradient_flow
    from comln.flow.gradient_flow_path import gradient_flow_path
    from comln.flow.integrator import Integrator
    from comln.flow.meta_gradients import ForwardSensitivity, SpanAdjoint
    from comln.learners import COMLN
    from comln.losses import CrossEntropy, SigmoidCrossEntropy, SquaredError
    from comln.run import load_run

    __version__: str

_HOMES = {
    "COMLN": "comln.learners",
    "CrossEntropy": "comln.losses",
    "Episode": "comln.episode",
    "Examples": "comln.episode",
    "ForwardSensitivity": "comln.flow.meta_gradients",
    "GradientFlowClassifier": "comln.estimators",
    "GradientFlowClassifierCV": "comln.estimators",
    "GradientFlowRegressor": "comln.estimators",
    "Integrator": "comln.flow.integrator",
    "SigmoidCrossEntropy": "comln.losses",
    "SpanAdjoint": "comln.flow.meta_gradients",
    "SquaredError": "comln.losses",
    "gradient_flow": "comln.flow.gradient_flow",
    "gradient_flow_path": "comln.flow.gradient_flow_path",
    "load_run": "comln.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import comln` and `comln --help` import no JAX."""
    if name == "__version__":
        from importlib.metadata import version

        return version("comln")
    if name not in _HOMES:
        raise AttributeError(f"module 'comln' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
