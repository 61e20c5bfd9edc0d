"""The differentiable layers: QPs, cone programs, torch callables, and batched factor-model QPs.

Start at ``qp.py``; ``base.py`` has the arguments that all layers share, ``items.py`` and
``arguments.py`` read a batch, ``cvxpy/`` reads problems written in cvxpy, the ``*_second_order.py``
files are backward passes by torch's operations. All layers speak one dialect:

==========  ====================  ============================================================
where       argument              what it is
==========  ====================  ============================================================
made with   ``forward``           the forward solver's name; "auto" chooses
..          ``backward``          the backward QP's solver; "auto" is the direct solve, "kkt"
..          ``tolerance``         scaled KKT norm to reach, free of units
..          ``max_iterations``    of the forward solver; None for its own limit
..          ``on_failure``        "raise", or "nan": failed items are NaN, with zero gradient
..          ``options``           further settings of the forward solver, by its own names
called with ``P, q, A, b, G, h``  the program's data; ``lb``, ``ub`` its bounds, ``cones``
..          ``initial_point``     where the solver starts
..          ``cache``             a SolverCache: factors and solutions kept for the next call
==========  ====================  ============================================================

A layer's call gives the minimiser, its ``solve`` a Solution: z, the duals, ``status`` (a
:class:`~bpqp_portfolio.SolveStatus`), ``kkt_norm``, ``iterations``, ``solver``, ``message``. Bad
settings are a ConfigError when the layer is made, bad data a ProblemError that names argument and
item, items that were not solved one SolverError. Portfolio layers (``factor_qp``,
``PortfolioLayer``) also call z the weights w (T, n), and have the statuses' codes in a tensor too.
"""

from .convex import ConvexLayer
from .cvxpy.layer import CvxpyLayer, from_cvxpy
from .qp import QPLayer
from .socp import SOCPLayer

__all__ = ["ConvexLayer", "CvxpyLayer", "QPLayer", "SOCPLayer", "from_cvxpy"]
