"""Mandates whose limits leave a point or a face and no room: solved, right, with tame gradients."""

from __future__ import annotations

import pytest
import torch
from mandate_cases import market, optima

from bpqp_portfolio import Mandate, Market

CONFIGS = {
    "caps that add up to the budget": {"max_weights": 1 / 12},
    "caps that almost do": {"max_weights": 1 / 12 + 1e-9},
    "groups that add up to the budget": {"groups": 0.25},
    "the smallest weight is the largest": {"min_weights": 1 / 12, "max_weights": 1 / 12},
    "no turnover": {"max_turnover": 0.0},
    "no turnover at a cost": {
        "max_turnover": 0.0,
        "linear_cost": {"buy": 0.0005, "sell": 0.0015},
    },
    "leverage is the budget": {"max_leverage": 1.0, "min_weights": -0.3},
    "nothing is invested": {"budget": 0.0},
    "the benchmark and nothing else": {"active_weights": 0.0},
}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_weights_are_right_and_gradients_bounded(name):
    data, config = market(), {"risk_aversion": 2.0, **CONFIGS[name]}
    data["mu"].requires_grad_()
    solution = Mandate.from_config(config).solve(Market(**data))
    assert solution.codes.tolist() == [0, 0, 0] and solution.fallback == (None,) * 3
    (slope,) = torch.autograd.grad((solution.w * data["exposures"][..., 0]).sum(), data["mu"])
    plain = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in data.items()}
    for day, (value, weights) in enumerate(optima(config, plain)):
        assert float(solution.objective[day]) == pytest.approx(value, abs=1e-9)
        torch.testing.assert_close(solution.w[day].detach(), weights, rtol=0, atol=1e-5)
    # A weight moves by no more than the loss's gradient over the least curvature.
    reach = data["exposures"].abs().amax() / (2.0 * data["specific"].amin())
    assert slope.isfinite().all() and float(slope.abs().amax()) <= float(reach)


def test_a_tracking_error_limit_that_is_exactly_the_least():
    data = market(T=2)
    floor = {"groups": {"limit": None, "lower": {"banks": 0.9}}}
    least = Mandate.from_config({**floor, "tracking_penalty": 1e12}).solve(Market(**data))
    e = least.w - data["benchmark"]
    x = torch.einsum("tnk,tn->tk", data["loadings"], e)
    error = (x.square().sum(-1) + (data["specific"] * e.square()).sum(-1)).sqrt() * 252**0.5
    for day in range(2):
        one = {k: v[day : day + 1] if torch.is_tensor(v) else v for k, v in data.items()}
        config = {**floor, "max_tracking_error": float(error[day]) * (1 + 1e-12)}
        one["mu"].requires_grad_()
        solution = Mandate.from_config(config).solve(Market(**one))
        assert solution.fallback == (None,)
        torch.testing.assert_close(solution.w, least.w[day : day + 1], rtol=0, atol=1e-3)
        (slope,) = torch.autograd.grad(solution.w[0, 0], one["mu"])
        assert slope.isfinite().all()
