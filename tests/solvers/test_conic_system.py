"""The active set of cones, and the structured solve of their KKT systems."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.socp import SOCP, ConePoint, linear, socp_residuals
from bpqp_portfolio.solvers.common.kkt import solve_equality_qp
from bpqp_portfolio.solvers.conic.finalize import newton_step
from bpqp_portfolio.solvers.conic.kkt import ActiveSystem, Curvature, active_group, solve_curved


def classify(z, t, w, *, size=1.0, ratio=1.0):
    """How ‖z‖ ≤ 1 (times ``size``) binds at z with the dual (t, w)."""
    cone = (size * np.eye(2), None, None, size * 1.0)
    group = SOCP(QP(linear(2), np.ones(2)), [cone]).groups[0]
    tau, w = np.array([t]) / size, np.asarray(w) / size
    return active_group(group, np.asarray(z, dtype=float), tau * ratio, w * ratio, ratio)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("ratio", [1e-6, 1.0, 1e6])
def test_cones_bind_where_the_dual_exceeds_the_slack_in_any_units(size, ratio):
    units = {"size": size, "ratio": ratio}
    binding = classify([0.6, 0.8 - 1e-7], 0.3, [-0.18, -0.24], **units)
    assert binding.smooth and binding.curvature == pytest.approx(0.3 * ratio / size**2, rel=1e-6)
    assert not classify([0.5, 0.5], 1e-7, [-1e-7, 0.0], **units).rows.any()


def test_a_weakly_active_cone_does_not_bind():
    active = classify([0.6, 0.8], 0.0, [0.0, 0.0])
    assert not active.rows.any() and not active.apex and not active.smooth


@pytest.mark.parametrize(("w", "apex"), [([0.1, 0.0], True), ([0.7, 0.0], True)])
def test_the_apex(w, apex):
    # ‖z‖ ≤ z·0 + 0 at z = 0, its dual inside the cone, or on its boundary.
    group = SOCP(QP(linear(2), np.ones(2)), [(None, None, None, 0.0)]).groups[0]
    active = active_group(group, np.zeros(2), np.array([0.7]), np.array(w), 1.0)
    assert active.apex is apex and active.rows.all()


def structured(n, k, seed, negative=True):
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(n, k)) / np.sqrt(n)
    s = rng.random(k)
    if negative and k:
        s[-1] *= -0.1
    return Curvature(0.5 + rng.random(n), U, s, None)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("k", "p"), [(0, 0), (1, 0), (1, 1), (3, 4), (0, 2)])
def test_low_rank_solves_equal_dense_ones(k, p, size, monkeypatch):
    H = structured(20, k, seed=k + p)
    H = Curvature(H.d * size, H.U, H.s * size, None)
    rng = np.random.default_rng(1)
    g, C, c = size * rng.normal(size=20), rng.normal(size=(p, 20)), rng.normal(size=p)
    x, y = solve_equality_qp(H.to_dense(), g, C, c)

    def refuse(*_):
        raise AssertionError("the dense solve was asked")

    monkeypatch.setattr("bpqp_portfolio.solvers.conic.kkt.solve_equality_qp", refuse)
    x2, y2 = solve_curved(H, g, C, c)
    np.testing.assert_allclose(x2, x, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(y2, y, rtol=1e-8, atol=1e-10 * size)


def test_a_flat_hessian_on_the_normal_is_solved_by_structure():
    # I − uuᵀ is singular along u, and u is a row: the ball's system.
    u = np.full(16, 0.25)
    H = Curvature(np.ones(16), u[:, None], np.array([-1.0]), None)
    g = np.arange(16.0)
    x, y = solve_curved(H, g, u[None], np.zeros(1))
    np.testing.assert_allclose(x, -(g - g.mean()), atol=1e-12)
    np.testing.assert_allclose(y, -g @ u, atol=1e-12)


def test_redundant_rows_and_flat_directions_get_the_dense_answer():
    H, u = structured(12, 1, 0), np.full((2, 12), 1.0)
    x, y = solve_curved(H, np.ones(12), u, np.ones(2))
    assert x.sum() == pytest.approx(1.0) and y[0] == pytest.approx(y[1])
    flat = Curvature(np.r_[np.zeros(2), np.ones(10)], np.zeros((12, 0)), np.zeros(0), None)
    x, _ = solve_curved(flat, np.ones(12), np.zeros((0, 12)), np.zeros(0))
    np.testing.assert_allclose(x, np.r_[0.0, 0.0, -np.ones(10)], atol=1e-8)


@pytest.mark.parametrize("kind", ["identity", "diagonal", "wide", "square", "factor P"])
def test_every_structure_has_the_hessian_of_its_definition(kind):
    rng = np.random.default_rng(0)
    n = 6
    P = FactorMatrix(rng.normal(size=(n, 2)), rng.random(n)) if kind == "factor P" else linear(n)
    F = {
        "diagonal": sparse.diags_array(1.0 + rng.random(n)),
        "wide": rng.normal(size=(2, n)),
        "square": rng.normal(size=(n, n)),
    }.get(kind)
    r = n if F is None else F.shape[0]
    problem = SOCP(QP(P, rng.normal(size=n)), [(F, rng.normal(size=r), rng.normal(size=n), 0.0)])
    z, none, group = rng.normal(size=n), np.zeros(0), problem.groups[0]
    s = group.norm_vector(z)
    # A point on the boundary, with a dual that binds.
    group.d[:] = np.linalg.norm(s) - group.c @ z
    tau, u = 0.7, s / np.linalg.norm(s)
    point = ConePoint(z, none, none, np.zeros(n), np.zeros(n), ((np.array([tau]), -tau * u),))
    system = ActiveSystem.at(problem, point)
    dense = np.eye(n) if F is None else F @ np.eye(n)
    inner = (np.eye(r) - np.outer(u, u)) / np.linalg.norm(s)
    expected = tau * dense.T @ inner @ dense + P @ np.eye(n)
    np.testing.assert_allclose(system.hessian.to_dense(), expected, atol=1e-12)
    np.testing.assert_allclose(system.hessian @ z, expected @ z, atol=1e-12)
    np.testing.assert_allclose(system.rows, [dense.T @ u - group.c[0]], atol=1e-12)


def test_newton_is_quadratic_near_the_solution():
    q = np.array([1.0, 2.0, -2.0])
    problem = SOCP(QP(linear(3), q), [(None, None, None, 1.0)])
    z = -q / 3.0 + [1e-3, -2e-3, 1e-3]
    none = np.zeros(0)
    point = ConePoint(z, none, none, np.zeros(3), np.zeros(3), ((np.array([3.01]), q),))
    norms = []
    for _ in range(3):
        point = newton_step(problem, point)
        norms.append(socp_residuals(problem, point).norm)
    assert norms[0] < 1e-4 and norms[1] < 1e-9 and norms[2] < 1e-15
