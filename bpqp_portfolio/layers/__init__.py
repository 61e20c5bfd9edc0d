"""The differentiable layers: QPs, cone programs, torch callables, and batched factor-model QPs."""

from .convex import ConvexLayer
from .qp import QPLayer
from .socp import SOCPLayer

__all__ = ["ConvexLayer", "QPLayer", "SOCPLayer"]
