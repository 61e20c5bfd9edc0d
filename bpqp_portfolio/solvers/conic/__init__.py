"""Solvers of second-order cone programs, and the backward pass on their active set.

``standard_form.py`` says what a cone solver takes; ``interior_point.py`` is our own solver;
``finalize.py`` polishes and judges a raw point; ``kkt.py`` and ``adjoint.py`` differentiate it.
"""
