"""Solvers of quadratic programs, one file for each, and the backward QP.

``dense.py`` is our own solver; ``osqp.py``, ``clarabel.py`` and others call a package;
``adjoint.py`` is the backward QP, ``smoothed.py`` that of a relaxed solution.
"""
