"""Prediction losses and figures against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio.losses import information_coefficient, mean_squared_error


def tables(T=6, n=9, seed=0):
    """Scores, values and which of them are known, with days of 0, 1 and 2 known names."""
    g = torch.Generator().manual_seed(seed)
    scores, values = torch.randn(2, T, n, generator=g, dtype=torch.float64)
    known = torch.rand(T, n, generator=g) < 0.7
    for day, count in enumerate((0, 1, 2)):
        known[day] = torch.arange(n) < count
    return scores, values, known


def test_mean_squared_error_is_the_mean_over_known_names():
    scores, label, known = tables()
    found = mean_squared_error(scores, label.masked_fill(~known, torch.nan), known)
    assert found[0] == 0
    for t in range(1, 6):
        error = (scores[t] - label[t])[known[t]].numpy()
        assert float(found[t]) == pytest.approx(np.mean(error**2), rel=1e-12)


def test_unknown_labels_give_no_gradient_whatever_they_hold():
    scores, label, known = tables()
    scores.requires_grad_()
    mean_squared_error(scores, label.masked_fill(~known, torch.nan), known).sum().backward()
    assert torch.isfinite(scores.grad).all() and (scores.grad[~known] == 0).all()
    expected = 2 * (scores.detach() - label) / known.sum(-1, keepdim=True)
    torch.testing.assert_close(scores.grad[known], expected[known])


def test_gradcheck_of_the_mean_squared_error():
    scores, label, known = tables()
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: mean_squared_error(s, label, known), scores)


def test_information_coefficient_is_the_correlation_over_known_names():
    scores, returns, known = tables()
    found = information_coefficient(scores, returns.masked_fill(~known, torch.nan), known)
    assert found[:2].isnan().all()
    for t in range(2, 6):
        expected = np.corrcoef(scores[t][known[t]], returns[t][known[t]])[0, 1]
        assert float(found[t]) == pytest.approx(expected, rel=1e-12)


def test_information_coefficient_has_no_unit():
    scores, returns, known = tables()
    one = information_coefficient(scores, returns, known)
    other = information_coefficient(1e-6 * scores + 3, -1e4 * returns - 1, known)
    torch.testing.assert_close(other, -one, rtol=1e-6, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_variation_the_information_coefficient_is_unknown(value, dtype):
    _, returns, known = tables(n=50)
    constant = torch.full(returns.shape, value, dtype=dtype)
    assert information_coefficient(constant, returns, known).isnan().all()
    assert information_coefficient(returns, constant, known).isnan().all()


def test_float32_scores_are_correlated_in_float64():
    scores, returns, known = tables(n=300)
    found = information_coefficient(scores.float(), returns, known)
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found, information_coefficient(scores, returns, known), rtol=0, atol=1e-6, equal_nan=True
    )
