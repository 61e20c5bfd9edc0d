"""Shrinkage covariances of scikit-learn, reduced to factors.

Σ̂ = (1 − ρ) S + ρ m I, with S the sample covariance, m the mean of its diagonal, and an intensity ρ
that each estimator chooses by its own estimate of the smallest mean squared error.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import complete_returns, reduce_covariance


class _Shrinkage:
    """A shrinkage of scikit-learn by the name of its function, reduced to k = ``factors``."""

    function: ClassVar[str]

    def __init__(self, factors: int) -> None:
        self.factors = factors

    def estimate(self, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~bpqp_portfolio.risk.base.RiskModel`."""
        from sklearn import covariance

        x = complete_returns(returns, self.factors)
        estimate, _ = getattr(covariance, self.function)(x, assume_centered=True)
        return reduce_covariance(estimate, self.factors)


class LedoitWolf(_Shrinkage):
    """Shrinkage to a multiple of the identity: Ledoit and Wolf (2004), by scikit-learn.

    "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate
    Analysis 88(2). The sample covariance has the divisor L − 1, not scikit-learn's L.
    """

    function = "ledoit_wolf"


class OAS(_Shrinkage):
    """Oracle approximating shrinkage: Chen, Wiesel, Eldar and Hero (2010), by scikit-learn.

    "Shrinkage algorithms for MMSE covariance estimation", IEEE Trans. Signal Processing 58(10).
    """

    function = "oas"
