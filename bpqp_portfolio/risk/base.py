"""The protocol of a risk model, and the two steps that models share: gaps, and few factors."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.linalg

from ..errors import DataError


class RiskModel(Protocol):
    """An estimator of Σ = B Bᵀ + diag(d) from one window of returns.

    It is built with the number of factors k, keeps no state between calls, and uses nothing but
    the window. Its diagonal is that of its own dense estimate of Σ.
    """

    def __init__(self, factors: int) -> None: ...

    def estimate(self, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loadings B (n, k) and specific variances d (n,), per day².

        ``returns`` is (L, n) with L > k and n > k, fractions per day, NaN where unobserved; each
        name has at least two observations. A specific variance may be zero, or negative by
        rounding or because a dense estimate was not positive semidefinite: the caller floors it.

        Raises
        ------
        DataError
            The window is too small for k factors, or a name has fewer than two observations or an
        infinite one.
        """
        ...


def complete_returns(returns: np.ndarray, factors: int) -> np.ndarray:
    r"""The window X (L, n) without gaps, such that XᵀX / L is the sample covariance.

    Each name is centred on the mean of its c observed returns, a missing return is put at that
    mean, and the column is scaled by :math:`\sqrt{L/(c-1)}`. So with x the centred returns

    .. math:: S_{ij} = \frac{\sum_{t\ \text{both observed}} x_{ti} x_{tj}}
                            {\sqrt{(c_i - 1)(c_j - 1)}}

    S is positive semidefinite with any gaps, S_ii is the sample variance (divisor c − 1) of
    what was observed, and without gaps S is the usual sample covariance. The covariance of two
    names that were seldom observed together is drawn towards zero.

    Raises
    ------
    DataError
        The window has no more days or names than ``factors``, a return is infinite, or a name has
        fewer than two.
    """
    returns = np.asarray(returns, dtype=np.float64)
    if returns.ndim != 2 or min(returns.shape) <= factors:
        raise DataError(
            f"{factors} factors need a window of more than {factors} days and names, got shape "
            f"{returns.shape}; lower `factors`."
        )
    observed = ~np.isnan(returns)
    if np.isinf(returns).any():
        day, name = np.argwhere(np.isinf(returns))[0]
        raise DataError(f"the return of day {day}, name {name} is infinite; make it NaN.")
    count = observed.sum(axis=0)
    if count.min() < 2:
        raise DataError(f"name {count.argmin()} has fewer than two returns in the window.")
    filled = np.where(observed, returns, 0.0)
    centred = np.where(observed, filled - filled.sum(axis=0) / count, 0.0)
    return centred * np.sqrt(len(returns) / (count - 1))


def top_eigenpairs(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues of a symmetric matrix, descending, and their eigenvectors (n, k).

    Eigenvalues that are negative (by rounding, or an indefinite estimate) are returned as zero.
    """
    n = len(matrix)
    values, vectors = scipy.linalg.eigh(
        matrix, subset_by_index=[n - k, n - 1], overwrite_a=False, check_finite=False
    )
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def reduce_covariance(covariance: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Loadings (n, k) and specific variances (n,) of a dense covariance (n, n).

    B is the top k eigenvectors times the roots of their eigenvalues, d what is left of the
    diagonal, so that the diagonal is kept exactly and the off-diagonal part has rank k.

    Raises
    ------
    DataError
        The covariance is not finite.

    >>> loadings, specific = reduce_covariance(np.array([[2.0, 1.0], [1.0, 2.0]]), 1)
    >>> (loadings @ loadings.T + np.diag(specific)).round(6).tolist()
    [[2.0, 1.5], [1.5, 2.0]]
    """
    if not np.isfinite(covariance).all():
        raise DataError(
            "the covariance estimate is not finite, as it is with a name whose returns are "
            "constant; exclude it or use the model 'pca'."
        )
    values, vectors = top_eigenpairs(covariance, k)
    loadings = vectors * np.sqrt(values)
    return loadings, np.diag(covariance) - np.square(loadings).sum(axis=1)
