"""Properties of the layer that hold for every QP, searched by hypothesis."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bpqp_portfolio as bp

LAYERS = {name: bp.QPLayer(name) for name in bp.available_solvers("qp")}
LAYER = st.sampled_from(sorted(LAYERS)).map(LAYERS.__getitem__)
SEARCH = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def problems(draw):
    """A strongly convex QP with a feasible point: budget, up to four rows, a box."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, m = draw(st.integers(2, 12)), draw(st.integers(0, 4))
    X, G = rng.normal(size=(n, n)), rng.normal(size=(m, n))
    inside = rng.dirichlet(np.ones(n))
    data = {
        "P": X @ X.T + 0.1 * np.eye(n),
        "q": draw(st.sampled_from([0.0, 0.1, 3.0])) * rng.normal(size=n),
        "A": np.ones((1, n)),
        "b": np.ones(1),
        "G": G,
        "h": G @ inside + rng.uniform(0.001, 0.5, size=m),
        "lb": np.zeros(n),
        "ub": np.minimum(inside + rng.uniform(0.05, 1.0, size=n), 1.0),
    }
    return {k: torch.tensor(v) for k, v in data.items()}


def value(data, z):
    return 0.5 * z @ data["P"] @ z + data["q"] @ z


@SEARCH
@given(problems(), LAYER)
def test_the_solution_is_feasible_and_optimal_by_its_residuals(data, layer):
    s = layer.solve(**data)
    assert (s.z >= data["lb"]).all() and (s.z <= data["ub"]).all()
    assert (data["A"] @ s.z - data["b"]).abs().max() <= 1e-8
    assert (data["G"] @ s.z - data["h"]).max() <= 1e-8 if len(data["h"]) else True
    assert s.kkt_norm <= 1e-7


@SEARCH
@given(problems(), LAYER, st.floats(-6, 6))
def test_scaling_the_objective_leaves_z_and_scales_duals(data, layer, power):
    factor = 10.0**power
    s = layer.solve(**data)
    scaled = layer.solve(**{**data, "P": data["P"] * factor, "q": data["q"] * factor})
    torch.testing.assert_close(scaled.z, s.z, rtol=0, atol=1e-8)
    torch.testing.assert_close(scaled.nu / factor, s.nu, rtol=1e-6, atol=1e-6)


@SEARCH
@given(problems(), LAYER, st.integers(0, 2**31))
def test_permuting_the_variables_permutes_solution_and_gradient(data, layer, seed):
    order = torch.randperm(len(data["q"]), generator=torch.Generator().manual_seed(seed))
    shuffled = {k: v[..., order] if k not in ("b", "h") else v for k, v in data.items()}
    shuffled["P"] = shuffled["P"][order]
    weight = torch.arange(len(order), dtype=torch.float64)
    results = []
    for each, w in ((data, weight), (shuffled, weight[order])):
        q = each["q"].clone().requires_grad_()
        z = layer(**{**each, "q": q})
        (w * z).sum().backward()
        results.append((z.detach(), q.grad))
    torch.testing.assert_close(results[1][0], results[0][0][order], rtol=0, atol=1e-8)
    torch.testing.assert_close(results[1][1], results[0][1][order], rtol=1e-5, atol=1e-6)


@SEARCH
@given(problems(), LAYER, st.integers(0, 2**31))
def test_an_inactive_constraint_changes_neither_solution_nor_gradient(data, layer, seed):
    row = torch.randn(1, len(data["q"]), generator=torch.Generator().manual_seed(seed)).double()
    bounds = row.clamp_min(0) @ data["ub"]
    wider = {
        **data,
        "G": torch.cat([data["G"], row]),
        "h": torch.cat([data["h"], bounds + 0.1]),
    }
    results = []
    for each in (data, wider):
        q = each["q"].clone().requires_grad_()
        z = layer(**{**each, "q": q})
        z.square().sum().backward()
        results.append((z.detach(), q.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-8)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


@SEARCH
@given(problems(), LAYER, st.floats(0, 1))
def test_a_wider_box_never_worsens_the_objective(data, layer, extra):
    narrow = value(data, layer(**data))
    wide = value(data, layer(**{**data, "ub": data["ub"] + extra}))
    assert wide <= narrow + 1e-8


@SEARCH
@given(problems(), LAYER, st.integers(0, 2**31))
def test_the_optimal_value_has_gradient_z_and_z_is_monotone_in_q(data, layer, seed):
    """The envelope theorem, through the layer's backward; and (z₁ − z₂)ᵀ(q₁ − q₂) ≤ 0."""
    q = data["q"].clone().requires_grad_()
    z = layer(**{**data, "q": q})
    value({**data, "q": q}, z).backward()
    torch.testing.assert_close(q.grad, z.detach(), rtol=0, atol=1e-6)
    direction = torch.randn(len(q), generator=torch.Generator().manual_seed(seed)).double()
    moved = layer(**{**data, "q": data["q"] + direction})
    assert (moved - z.detach()) @ direction <= 1e-8
