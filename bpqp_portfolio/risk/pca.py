"""The default risk model: principal components of the sample covariance and its diagonal."""

from __future__ import annotations

import numpy as np

from .base import complete_returns, reduce_covariance, top_eigenpairs


class PCA:
    """Top-k eigenpairs of the sample covariance S, the rest of its diagonal specific.

    B = V Λ^½ and d = diag(S − B Bᵀ): Connor and Korajczyk (1986), "Performance measurement with
    the arbitrage pricing theory"; POET of Fan, Liao and Mincheva (2013) with full thresholding.
    See :func:`~bpqp_portfolio.risk.base.complete_returns` for S with gaps. The eigenpairs come
    from whichever of XᵀX (n × n) and XXᵀ (L × L) is smaller.
    """

    def __init__(self, factors: int) -> None:
        self.factors = factors

    def estimate(self, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~bpqp_portfolio.risk.base.RiskModel`."""
        x = complete_returns(returns, self.factors)
        length, names = x.shape
        if names <= length:
            return reduce_covariance(x.T @ x / length, self.factors)
        _, vectors = top_eigenpairs(x @ x.T, self.factors)
        loadings = x.T @ vectors / np.sqrt(length)
        variance = np.square(x).sum(axis=0) / length
        return loadings, variance - np.square(loadings).sum(axis=1)
