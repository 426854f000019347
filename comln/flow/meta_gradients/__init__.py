"""Ways to differentiate the flow, one file each. A meta-gradient is a value: `meta_gradient=SpanAdjoint()`."""

__all__ = [
    "AbstractMetaGradient",
    "Backpropagation",
    "ContinuousAdjoint",
    "FirstOrder",
    "ForwardSensitivity",
    "ImplicitDifferentiation",
    "NaiveForwardSensitivity",
    "SpanAdjoint",
]

from comln.flow.meta_gradients.backpropagation import Backpropagation
from comln.flow.meta_gradients.base import AbstractMetaGradient
from comln.flow.meta_gradients.continuous_adjoint import ContinuousAdjoint
from comln.flow.meta_gradients.first_order import FirstOrder
from comln.flow.meta_gradients.forward_sensitivity import ForwardSensitivity
from comln.flow.meta_gradients.implicit_differentiation import ImplicitDifferentiation
from comln.flow.meta_gradients.naive_forward_sensitivity import NaiveForwardSensitivity
from comln.flow.meta_gradients.span_adjoint import SpanAdjoint
