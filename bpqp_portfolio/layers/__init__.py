"""The differentiable layers: QPs, cone programs, torch callables, and batched factor-model QPs."""

from .convex import ConvexLayer
from .cvxpy.layer import CvxpyLayer, from_cvxpy
from .qp import QPLayer
from .socp import SOCPLayer

__all__ = ["ConvexLayer", "CvxpyLayer", "QPLayer", "SOCPLayer", "from_cvxpy"]
