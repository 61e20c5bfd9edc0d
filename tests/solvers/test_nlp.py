"""Forward solvers for smooth programs: known optima, domains, duals of primal points, polish."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bpqp_portfolio.problems import SolveStatus
from bpqp_portfolio.problems.convex import ConvexProgram, UndefinedError
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver
from bpqp_portfolio.solvers.smooth.finalize import least_squares_duals, polished

SOLVERS = available_solvers("smooth")
HS71 = [1.0, 4.74299963, 3.82114998, 1.37940829]


def program(objective, equalities=None, inequalities=None, *, start):
    return ConvexProgram(objective, equalities, inequalities, (), np.asarray(start, dtype=float))


def solve(name, p, **native):
    return get_solver(name, "smooth").solve(p, options=SolverOptions(native=native))


def hs71():
    """W. Hock and K. Schittkowski, Test Examples for Nonlinear Programming Codes, 1981, no. 71."""
    return program(
        lambda z: z[0] * z[3] * (z[0] + z[1] + z[2]) + z[2],
        lambda z: (z @ z - 40).reshape(1),
        lambda z: torch.cat([(25 - z.prod()).reshape(1), 1 - z, z - 5]),
        start=[1, 5, 5, 1],
    )


@pytest.mark.parametrize("name", SOLVERS)
def test_known_optimum(name):
    found = solve(name, hs71())
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, HS71, atol=1e-7)
    assert found.residuals(found.local).norm == found.kkt_norm <= 1e-12
    assert found.lam.min() >= 0


@pytest.mark.parametrize("name", ["sqp", "slsqp"])
def test_a_weakly_active_curved_constraint(name):
    """Rosenbrock's valley ends on the boundary of the disc, where slack and dual are both zero."""
    p = program(
        lambda z: (1 - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2,
        inequalities=lambda z: (z @ z - 2).reshape(1),
        start=[-0.3, -0.3],
    )
    found = solve(name, p)
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, [1.0, 1.0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SOLVERS)
def test_scales_of_objective_and_constraints_do_not_matter(name):
    def scaled(f, h, g):
        p = hs71()
        return program(
            lambda z: f * p.objective(z),
            lambda z: h * p.equalities(z),
            lambda z: g * p.inequalities(z),
            start=p.initial_point,
        )

    plain = solve(name, hs71())
    found = solve(name, scaled(1e-5, 1e2, 1e-3))
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, plain.z, rtol=1e-7)
    np.testing.assert_allclose(found.nu, plain.nu * 1e-7, rtol=1e-6)
    np.testing.assert_allclose(found.lam, plain.lam * 1e-2, rtol=1e-6, atol=1e-12)


def test_sqp_stays_in_the_domain_of_the_objective():
    """−Σ log zᵢ from near the wall: the first full Newton step leaves the domain."""
    c = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    p = program(lambda z: c @ z - torch.log(z).sum(), start=[5.0, 5.0, 5.0])
    found = solve("sqp", p)
    np.testing.assert_allclose(found.z, 1 / c.numpy(), rtol=1e-9)


def test_sqp_from_where_linearised_constraints_contradict_each_other():
    """At z = 0 the tangent of z² = 4 says 0 = 4; and 0.01 asks for z = 200, outside |z| ≤ 3."""
    for start in (0.0, 0.01):
        p = program(
            lambda z: z @ z,
            lambda z: z**2 - 4,
            lambda z: torch.cat([z - 3, -z - 3]),
            start=[start],
        )
        found = solve("sqp", p)
        if start:
            assert found.status is SolveStatus.SOLVED
            np.testing.assert_allclose(np.abs(found.z), 2.0)
        else:  # a stationary point of the violation: nothing tells in which direction to go
            assert found.status is SolveStatus.ITERATION_LIMIT


def test_sqp_leaves_a_direction_without_curvature():
    """A linear objective on a circle: the first local QP has no curvature at all."""
    p = program(lambda z: z[0], lambda z: (z @ z - 1).reshape(1), start=[1e-3, 1e-2])
    found = solve("sqp", p)
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, [-1, 0], atol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_infeasible_and_unbounded_programs_end_without_a_point(name):
    infeasible = program(lambda z: z @ z, lambda z: z[:1] ** 2 + 1, start=[1.0, 1.0])
    unbounded = program(lambda z: z.sum(), None, lambda z: z - 1, start=[0.0, 0.0])
    for p in (infeasible, unbounded):
        found = solve(name, p, maxiter=50)
        assert found.status is SolveStatus.ITERATION_LIMIT


def test_the_iteration_limit_is_kept():
    for name in SOLVERS:
        assert solve(name, hs71(), maxiter=2).iterations <= 2
        limited = get_solver(name, "smooth").solve(hs71(), options=SolverOptions(max_iterations=2))
        assert limited.iterations <= 2


@pytest.mark.parametrize("solver", ["osqp", "clarabel"])
def test_sqp_with_any_qp_solver(solver):
    found = solve("sqp", hs71(), qp_solver=solver)
    assert found.status is SolveStatus.SOLVED and found.solver == "sqp"
    np.testing.assert_allclose(found.z, HS71, atol=1e-6)


def test_a_start_outside_the_domain_is_named():
    p = program(lambda z: torch.xlogy(z, z).sum(), start=[0.0, 1.0])
    with pytest.raises(UndefinedError, match="objective: its derivative is not finite"):
        solve("slsqp", p)


def test_duals_of_an_exact_point_are_exact():
    full = solve("sqp", hs71())
    nu, lam = least_squares_duals(hs71(), full.z)
    np.testing.assert_allclose(nu, full.nu, rtol=1e-9)
    np.testing.assert_allclose(lam, full.lam, rtol=1e-9, atol=1e-12)


def test_duals_of_a_rank_deficient_jacobian_still_explain_the_point():
    p = program(
        lambda z: z @ z, lambda z: torch.stack([z.sum() - 1, 2 * z.sum() - 2]), start=[0, 0]
    )
    z = np.array([0.5, 0.5])
    nu, _ = least_squares_duals(p, z)
    np.testing.assert_allclose(p.gradient(z) + p.jacobian_h(z).T @ nu, 0, atol=1e-12)


def test_duals_prefer_rows_without_slack():
    """Two parallel rows, one active: the other could explain the gradient as well."""
    p = program(
        lambda z: (z[0] - 2) ** 2 + z[1] ** 2,
        inequalities=lambda z: torch.stack([z[0] - 1.5, z[0] - 1.0]),
        start=[0, 0],
    )
    _, lam = least_squares_duals(p, np.array([1.0, 0.0]))
    np.testing.assert_allclose(lam, [0.0, 2.0], atol=1e-12)


def test_polish_is_newtons_method():
    full = solve("sqp", hs71())
    near = replace(full, z=full.z + 1e-4 * np.array([0.0, 1.0, -1.0, 1.0]))
    local = hs71().local_qp(near.z, near.nu, near.lam)
    near = replace(near, local=local, kkt_norm=near.residuals(local).norm)
    assert near.kkt_norm > 1e-6
    exact = polished(hs71(), near)
    assert exact.kkt_norm < 1e-13
    np.testing.assert_allclose(exact.z, full.z, atol=1e-10)


def test_polish_keeps_the_better_point():
    """From far away Newton's step is worse, and is not taken."""
    p = program(lambda z: torch.sqrt(1 + z @ z), start=[3.0])
    point = solve(lambda *_: (np.array([3.0]), np.zeros(0), np.zeros(0)), p)
    assert point.status is SolveStatus.INACCURATE
    assert polished(p, point).z.item() == 3.0


def test_derivatives_are_those_of_autograd():
    p, z = hs71(), np.array([1.2, 4.0, 3.0, 1.5])
    nu, lam = np.array([0.3]), np.linspace(0, 1, 9)
    x = torch.tensor(z)
    for function, jacobian in ((p.equalities, p.jacobian_h), (p.inequalities, p.jacobian_g)):
        exact = torch.autograd.functional.jacobian(function, x)
        np.testing.assert_allclose(jacobian(z), exact.numpy(), rtol=1e-14)

    def lagrangian(x):
        weighted = torch.tensor(nu) @ p.equalities(x) + torch.tensor(lam) @ p.inequalities(x)
        return p.objective(x) + weighted

    exact = torch.autograd.functional.hessian(lagrangian, x).numpy()
    np.testing.assert_allclose(p.hessian(z, nu, lam), exact, rtol=1e-13, atol=1e-14)
    local = p.local_qp(z, nu, lam)
    np.testing.assert_allclose(local.P @ z + local.q, p.gradient(z), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(local.G @ z - local.h, p.g(z), rtol=1e-13, atol=1e-13)
