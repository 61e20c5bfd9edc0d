"""Solvers of smooth programs, convex or not, by second derivatives.

``finalize.py`` finds a point's duals, polishes and judges it; ``sqp.py`` is our own method,
``scipy_methods.py`` has those of scipy, ``given_point.py`` takes a function of the caller's.
"""
