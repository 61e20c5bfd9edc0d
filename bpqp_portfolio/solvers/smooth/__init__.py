"""Solvers of smooth programs, convex or not, by second derivatives.

``finalize.py`` has the solvers by name, duals from a primal point, and the judgement of a point;
``sqp.py`` is our own method, ``scipy_methods.py`` those of scipy.
"""
