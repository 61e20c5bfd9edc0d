"""The differentiable layers: QPs, cone programs, torch callables, and batched factor-model QPs.

Start at ``qp.py``; ``items.py`` and ``arguments.py`` have what all layers share, ``cvxpy/`` reads
problems written in cvxpy, the ``*_second_order.py`` files are backward passes by torch's
operations.
"""

from .convex import ConvexLayer
from .cvxpy.layer import CvxpyLayer, from_cvxpy
from .qp import QPLayer
from .socp import SOCPLayer

__all__ = ["ConvexLayer", "CvxpyLayer", "QPLayer", "SOCPLayer", "from_cvxpy"]
