"""Gradients of mandates against finite differences, in the market and in each parameter."""

from __future__ import annotations

import pytest
import torch
from mandate_cases import EXAMPLES, market

from bpqp_portfolio.errors import SolverError
from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market

FIELDS = ("mu", "loadings", "specific", "previous", "benchmark", "exposures", "traded_value")


def loss(w):
    return (w * torch.linspace(-1, 1, w.shape[1], dtype=w.dtype)).sum() + (w**2).sum()


ONCE = {"max_turnover", "max_tracking_error"}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_second_derivatives_are_right_or_refused(name):
    data = market(seed=5)
    config = {"risk_aversion": 5.0, "tolerance": 1e-12, **EXAMPLES[name]}
    mandate = Mandate.from_config(config)
    way = torch.linspace(-1, 1, data["mu"].numel(), dtype=torch.float64).reshape(data["mu"].shape)

    def along(mu, **options):
        w = mandate(Market(**{**data, "mu": mu}))
        return (torch.autograd.grad((w**3).sum(), mu, **options)[0] * way).sum()

    mu = data["mu"].detach().clone().requires_grad_()
    if name in ONCE:
        with pytest.raises(SolverError, match="Mandate: no second derivatives"):
            along(mu, create_graph=True)
        return
    found = (torch.autograd.grad(along(mu, create_graph=True), mu)[0] * way).sum()
    step = 1e-6
    up, down = (along((mu + s * way).detach().requires_grad_()) for s in (step, -step))
    assert found.item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        {"max_turnover": 0.11},
        {"max_participation": 0.11},
        {"exposure_target": {"targets": {"size": 0.1}, "strength": 0.01, "relative": True}},
        {"max_tracking_error": 0.031, "max_turnover": 0.3},
        {"objective": "robust", "kappa": 0.1, "max_weights": 0.3},
        {"linear_cost": {"buy": 0.0005, "sell": 0.0015}, "groups": 0.31},
        {"objective": "robust", "kappa": 0.1, "max_tracking_error": 0.05, "max_turnover": 0.35},
        {
            "market_neutral": True,
            "min_weights": -0.21,
            "max_leverage": 1.23,
            "max_turnover": 0.56,
            "linear_cost": {"buy": 0.0005, "sell": 0.0015},
        },
    ],
    ids=[
        "turnover",
        "participation",
        "target",
        "tracking",
        "robust",
        "cost",
        "robust and tracking",
        "short",
    ],
)
def test_gradient_in_the_market(config):
    data = market(seed=5)
    mandate = Mandate.from_config({"risk_aversion": 5.0, **config, "tolerance": 1e-12})
    leaves = {k: data[k].clone().requires_grad_() for k in FIELDS}
    total = loss(mandate(Market(**{**data, **leaves})))
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    g = torch.Generator().manual_seed(2)
    for key, grad in zip(FIELDS, grads, strict=True):
        toward = torch.randn(data[key].shape, generator=g, dtype=torch.float64)
        toward -= toward.mean(1, keepdim=True)
        found = 0.0 if grad is None else float((grad * toward).sum())
        h = 1e-6 * float(data[key].abs().mean())
        with torch.no_grad():
            up, down = (
                loss(mandate(Market(**{**data, key: data[key] + s * toward}))) for s in (h, -h)
            )
        assert found == pytest.approx(float(up - down) / (2 * h), rel=1e-3, abs=1e-4), key
