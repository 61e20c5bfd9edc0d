"""Batches of portfolio QPs with a factor-model covariance: O(n (k+p+m)²) a day, never n².

``solver.py`` chooses the method for a batch and is where to start; ``problem.py`` has what it takes
and returns. The ``dual_newton*`` files are the fast methods, ``interior_point.py`` the sure one;
``active_set.py`` has the exact end and the backward QP.
"""
