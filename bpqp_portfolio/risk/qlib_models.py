"""Qlib's risk models behind this package's interface.

All three get returns, not prices, already centred and completed, and are set not to scale them by
100: Qlib's defaults would take prices and give a covariance of percentages (10⁴ times ours).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import complete_returns, reduce_covariance


class _QlibModel:
    """An estimator of Qlib's, by the name of its class, with ``settings`` of its own."""

    def __init__(self, factors: int, estimator: str, **settings: Any) -> None:
        from qlib.model import riskmodel

        self.factors = factors
        settings |= {"assume_centered": True, "scale_return": False}
        self._model = getattr(riskmodel, estimator)(**settings)


class QlibShrink(_QlibModel):
    """``ShrinkCovEstimator``: Ledoit and Wolf's (2004) shrinkage to constant correlation.

    The target that keeps each name's variance; ``ledoit_wolf`` and ``oas`` already shrink to the
    identity.
    """

    def __init__(self, factors: int) -> None:
        super().__init__(factors, "ShrinkCovEstimator", alpha="lw", target="const_corr")

    def estimate(self, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~bpqp_portfolio.risk.base.RiskModel`."""
        x = complete_returns(returns, self.factors)
        with np.errstate(divide="ignore", invalid="ignore"):  # reduce_covariance refuses NaN
            covariance = self._model.predict(x, is_price=False)
        return reduce_covariance(covariance, self.factors)


class QlibPOET(_QlibModel):
    """``POETCovEstimator``: k components and a soft-thresholded residual covariance.

    Fan, Liao and Mincheva (2013). The thresholded residual is reduced to its diagonal and what of
    it enters the top k eigenpairs.
    """

    def __init__(self, factors: int) -> None:
        super().__init__(factors, "POETCovEstimator", num_factors=factors)

    def estimate(self, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~bpqp_portfolio.risk.base.RiskModel`."""
        x = complete_returns(returns, self.factors)
        # Qlib takes eigenvectors of a symmetric matrix by a general solver, which may give its
        # real result a complex type.
        covariance = np.real(self._model.predict(x, is_price=False))
        return reduce_covariance(covariance, self.factors)


class QlibStructured(_QlibModel):
    """``StructuredCovEstimator``: PCA factors F, Σ = F cov(b) Fᵀ + diag(var(u)), taken as it is.

    Qlib divides the factors' covariance by L − 1 and the residual variance by L, after a sample
    covariance that has the divisor L − 1: its diagonal exceeds the sample variance by at most
    1/(L − 1) of it.
    """

    def __init__(self, factors: int) -> None:
        super().__init__(factors, "StructuredCovEstimator", num_factors=factors)

    def estimate(self, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~bpqp_portfolio.risk.base.RiskModel`."""
        x = complete_returns(returns, self.factors)
        exposures, factor_covariance, specific = self._model.predict(
            x, is_price=False, return_decomposed_components=True
        )
        values, vectors = np.linalg.eigh(np.atleast_2d(factor_covariance))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return exposures @ root[:, ::-1], specific
