"""Problems written in cvxpy as differentiable layers.

``layer.py`` (``from_cvxpy``) is where to start; ``program.py`` reads the problem once as affine
maps of its parameters, ``checks.py`` refuses what has no such form.
"""
