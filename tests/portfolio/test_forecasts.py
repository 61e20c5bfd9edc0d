"""From scores to expected returns: which of the scales applies, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from bpqp_portfolio.portfolio import PortfolioProblem

SCORES = torch.tensor([[5.0, 1.0, 7.0]], dtype=torch.float64)
INSIDE = torch.tensor([[True, True, False]])


def forecast(config, *scale, log_kappa=None):
    problem = PortfolioProblem(config, *scale).with_signal_scale(log_kappa)
    return problem.forecast(SCORES, INSIDE)[INSIDE].tolist()


@pytest.mark.parametrize(
    ("config", "scale", "expected"),
    [
        ({}, (), (5.0, 1.0)),
        ({}, (0.02,), (0.1, 0.02)),
        ({"score_scale": 0.01}, (0.02,), (0.05, 0.01)),
        # (5, 1) is 3 ± 2: a deviation of 2.
        ({"normalisation": "standardise"}, (0.02,), (0.02, -0.02)),
        ({"normalisation": "standardise", "score_scale": 0.01}, (0.02,), (0.01, -0.01)),
        ({"normalisation": "standardise", "kappa": 0.03}, (0.02,), (0.03, -0.03)),
    ],
)
@pytest.mark.parametrize("times", [1.0, 2.0])
def test_the_scale_of_a_forecast(config, scale, expected, times):
    log_kappa = None if times == 1.0 else math.log(times)
    assert forecast(config, *scale, log_kappa=log_kappa) == pytest.approx(
        [times * value for value in expected]
    )


def test_a_bolder_problem_is_another_one():
    problem = PortfolioProblem({}, 0.02)
    assert problem.with_signal_scale(None) is problem
    problem.with_signal_scale(1.0)
    assert problem.unit == problem.scale == 0.02


def test_units_of_losses_stay_those_of_the_scale():
    problem = PortfolioProblem({"normalisation": "standardise", "kappa": 0.03}, 0.02)
    assert problem.scale == 0.02 and problem.unit == 0.03


def test_usual_settings_neither_bound_nor_price_a_trade():
    """min −μᵀw + ½ wᵀΣw: the cap is 1 and γ is 1."""
    config = PortfolioProblem({}).config
    assert (config.risk_aversion, config.max_weight, config.turnover_cost) == (1.0, 1.0, 0.0)
    assert config.normalisation == "none" and config.decision == {"name": "bpqp"}
