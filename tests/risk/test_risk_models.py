"""Every registered risk model: contract; PCA and completed returns: against direct computation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf, oas

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.risk import RISK_MODELS, build_risk_model
from bpqp_portfolio.risk.base import complete_returns

K = 4
CASES = {  # length, names, share of missing returns
    "n<L": (90, 40, 0.0),
    "n>L": (50, 70, 0.0),
    "gaps n<L": (90, 40, 0.2),
    "gaps n>L": (50, 70, 0.2),
}


def simulate(length, names, missing=0.0, seed=0, k=3, noise=0.01):
    rng = np.random.default_rng(seed)
    exposure = rng.normal(0, 0.01, (names, k))
    returns = rng.normal(size=(length, k)) @ exposure.T + 5e-4
    returns += rng.normal(size=(length, names)) * noise * rng.uniform(0.5, 1.5, names)
    returns[rng.random(returns.shape) < missing] = np.nan
    return returns


def pairwise_covariance(returns):
    """S of `complete_returns`, element by element."""
    centred = returns - np.nanmean(returns, axis=0)
    count = np.isfinite(returns).sum(axis=0)
    n = returns.shape[1]
    s = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            s[i, j] = np.nansum(centred[:, i] * centred[:, j])
            s[i, j] /= np.sqrt((count[i] - 1) * (count[j] - 1))
    return s


def direct_factor_model(s, k):
    values, vectors = np.linalg.eigh(s)
    low_rank = vectors[:, -k:] * values[-k:] @ vectors[:, -k:].T
    return low_rank + np.diag(np.diag(s) - np.diag(low_rank))


def sigma(name, returns, k=K):
    loadings, specific = build_risk_model(name, k).estimate(returns)
    return loadings @ loadings.T + np.diag(specific)


@pytest.mark.parametrize("case", CASES)
def test_completed_returns_give_the_documented_covariance(case):
    returns = simulate(*CASES[case])
    x = complete_returns(returns, K)
    s = x.T @ x / len(x)
    np.testing.assert_allclose(s, pairwise_covariance(returns), atol=1e-17)
    np.testing.assert_allclose(np.diag(s), np.nanvar(returns, axis=0, ddof=1), rtol=1e-12)
    if "gaps" not in case:
        np.testing.assert_allclose(s, np.cov(returns.T), atol=1e-17)


@pytest.mark.parametrize("case", CASES)
def test_pca_equals_the_direct_computation(case):
    returns = 100 * simulate(*CASES[case])  # of order one, so that 1e-10 means something
    expected = direct_factor_model(pairwise_covariance(returns), K)
    np.testing.assert_allclose(sigma("pca", returns), expected, rtol=0, atol=1e-10)


def test_pca_loadings_are_orthogonal_and_ordered():
    loadings, _ = build_risk_model("pca", K).estimate(simulate(50, 70))
    gram = loadings.T @ loadings
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-14)
    assert (np.diff(np.diag(gram)) < 0).all()


def test_pca_recovers_the_factors():
    rng = np.random.default_rng(3)
    exposure = rng.normal(0, 0.02, (200, 3))
    returns = rng.normal(size=(5000, 3)) @ exposure.T + rng.normal(0, 0.01, (5000, 200))
    loadings, specific = build_risk_model("pca", 3).estimate(returns)
    cosines = np.linalg.svd(np.linalg.qr(loadings)[0].T @ np.linalg.qr(exposure)[0])[1]
    assert cosines.min() > 0.995
    np.testing.assert_allclose(specific, 1e-4, rtol=0.15)
    truth = exposure @ exposure.T + 1e-4 * np.eye(200)
    error = np.linalg.norm(loadings @ loadings.T + np.diag(specific) - truth)
    assert error < 0.06 * np.linalg.norm(truth)


@pytest.mark.parametrize("name", RISK_MODELS)
@pytest.mark.parametrize("case", CASES)
def test_contract(name, case):
    length, names, missing = CASES[case]
    returns = simulate(length, names, missing)
    before = returns.copy()
    model = build_risk_model(name, K)
    loadings, specific = model.estimate(returns)
    assert loadings.shape == (names, K) and loadings.dtype == np.float64
    assert specific.shape == (names,) and specific.dtype == np.float64
    assert np.isfinite(loadings).all() and (specific > 0).all()
    covariance = loadings @ loadings.T + np.diag(specific)
    assert np.linalg.eigvalsh(covariance)[0] > 0
    # Units: per day², whatever a library scales by; shrinkage moves single names' variances.
    variance = np.nanvar(returns, axis=0, ddof=1)
    assert np.trace(covariance) == pytest.approx(variance.sum(), rel=1.5 / length)
    again = model.estimate(returns)
    assert np.array_equal(loadings, again[0]) and np.array_equal(specific, again[1])
    assert np.array_equal(returns, before, equal_nan=True), "the input was changed"


@pytest.mark.parametrize("name", RISK_MODELS)
def test_diagonal_is_that_of_the_dense_estimate(name):
    returns = simulate(90, 40, 0.2)
    variance = np.nanvar(returns, axis=0, ddof=1)
    x = complete_returns(returns, K)
    expected, rtol = {
        "ledoit_wolf": (np.diag(ledoit_wolf(x, assume_centered=True)[0]), 1e-10),
        "oas": (np.diag(oas(x, assume_centered=True)[0]), 1e-10),
        "qlib_structured": (variance, 1.01 / 89),
    }.get(name, (variance, 1e-10))
    np.testing.assert_allclose(np.diag(sigma(name, returns)), expected, rtol=rtol)


@pytest.mark.parametrize("name", RISK_MODELS)
def test_permuting_names_permutes_the_model(name):
    returns = simulate(90, 40, 0.1)
    order = np.random.default_rng(5).permutation(40)
    whole, permuted = sigma(name, returns), sigma(name, returns[:, order])
    np.testing.assert_allclose(permuted, whole[np.ix_(order, order)], atol=1e-9 * whole.max())


@pytest.mark.parametrize("name", RISK_MODELS)
def test_scaling_returns_scales_the_covariance(name):
    returns = simulate(90, 40, 0.1)
    small, large = sigma(name, returns), sigma(name, 100 * returns)
    np.testing.assert_allclose(large / 1e4, small, atol=1e-9 * small.max())


@pytest.mark.parametrize("name", RISK_MODELS)
@pytest.mark.parametrize("shape", [(K, 40), (90, K)])
def test_windows_without_room_for_the_factors_are_refused(name, shape):
    with pytest.raises(DataError, match="4 factors need"):
        build_risk_model(name, K).estimate(np.random.default_rng(0).normal(size=shape))


def test_a_name_with_one_return_is_refused():
    returns = simulate(50, 20)
    returns[1:, 7] = np.nan
    with pytest.raises(DataError, match="name 7 has fewer than two"):
        build_risk_model("pca", K).estimate(returns)


def test_a_constant_name_breaks_correlations_with_a_clear_error():
    returns = simulate(50, 20)
    returns[:, 7] = 0.0
    with pytest.raises(DataError, match=r"not finite.*constant.*'pca'"):
        build_risk_model("qlib_shrink", K).estimate(returns)


def test_unknown_name():
    with pytest.raises(ConfigError, match="Did you mean 'ledoit_wolf'"):
        build_risk_model("ledoitwolf", 3)


@pytest.mark.parametrize("name", RISK_MODELS)
def test_an_infinite_return_is_refused(name):
    returns = simulate(60, 8)
    returns[7, 3] = np.inf
    with pytest.raises(DataError, match="the return of day 7, name 3 is infinite"):
        build_risk_model(name, K).estimate(returns)
