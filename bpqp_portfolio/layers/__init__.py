"""The differentiable layers: a QP, programs of torch callables, and the batched factor-model QP."""

from .convex import ConvexLayer
from .qp import QPLayer

__all__ = ["ConvexLayer", "QPLayer"]
