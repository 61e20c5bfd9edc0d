"""from_cvxpy: the same points as cvxpy's own solve, gradients, batches, matrices and layouts."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import bpqp_portfolio as bp
from bpqp_portfolio import SolveStatus, from_cvxpy

D = torch.float64
TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}


def rand(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def positive(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1.5, shape))


def nonneg_least_squares():
    x, A, b = cp.Variable(3), cp.Parameter((5, 3)), cp.Parameter(5)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])
    return problem, [A, b], [x], [rand(5, 3), rand(5, seed=1)]


def elastic_net():
    x, A, b = cp.Variable(4), cp.Parameter((6, 4)), cp.Parameter(6)
    l1, l2 = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    cost = cp.sum_squares(A @ x - b) + l1 * cp.norm1(x) + l2 * cp.sum_squares(x)
    return (
        cp.Problem(cp.Minimize(cost)),
        [b, l2, A, l1],
        [x],
        [
            rand(6, seed=2),
            torch.tensor(0.3, dtype=D),
            rand(6, 4, seed=3),
            torch.tensor(1.0, dtype=D),
        ],
    )


def simplex_projection():
    x, p = cp.Variable(5), cp.Parameter(5)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0, cp.sum(x) == 1])
    return problem, [p], [x], [rand(5, seed=4)]


def mean_variance():
    w, S, mu = cp.Variable(4, nonneg=True), cp.Parameter((4, 4), PSD=True), cp.Parameter(4)
    problem = cp.Problem(cp.Maximize(mu @ w - cp.quad_form(w, S)), [cp.sum(w) == 1])
    F = rand(4, 4, seed=5)
    return problem, [S, mu], [w], [F @ F.T + torch.eye(4, dtype=D), rand(4, seed=6)]


def parameter_in_both():
    x, y, p = cp.Variable(3), cp.Variable(), cp.Parameter(3)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x) + p @ x + cp.square(y)), [p @ x + y == 1, x <= 2 - p]
    )
    return problem, [p], [y, x], [rand(3, seed=7)]


def matrix_projection():
    X, t, B = cp.Variable((2, 3)), cp.Variable(2), cp.Parameter((2, 3))
    C = cp.Parameter((3, 2))
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(X - B) + cp.sum(t)), [X @ C <= 1, cp.abs(X[:, 0]) <= t]
    )
    return problem, [B, C], [X, t], [2 * rand(2, 3, seed=8), rand(3, 2, seed=9)]


def robust_linear_program():
    x, c, F = cp.Variable(3), cp.Parameter(3), cp.Parameter((2, 3))
    rho = cp.Parameter(nonneg=True)
    rows = np.array([[1.0, 0.5, 0.2], [-0.3, 1.0, 0.1]])
    problem = cp.Problem(
        cp.Minimize(c @ x),
        [*(row @ x + rho * cp.norm(x) <= 1 for row in rows), cp.norm(F @ x + 0.1) <= 2],
    )
    return (
        problem,
        [c, F, rho],
        [x],
        [
            rand(3, seed=10),
            rand(2, 3, seed=11),
            torch.tensor(0.7, dtype=D),
        ],
    )


def group_norms():
    X, B, g = cp.Variable((3, 2)), cp.Parameter((3, 2)), cp.Parameter(nonneg=True)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(X - B) + g * cp.sum(cp.norm(X, 2, axis=1))), [cp.sum(X) <= 1]
    )
    return problem, [g, B], [X], [torch.tensor(0.5, dtype=D), 2 * rand(3, 2, seed=12)]


def least_squares_in_a_ball():
    x, t, A, r = cp.Variable(3), cp.Variable(4), cp.Parameter((4, 3)), cp.Parameter(nonneg=True)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(A @ x - t) + cp.sum(t) + cp.sum_squares(t)),
        [cp.norm(x - 1) <= r, cp.sum(t) == 1, A @ x <= 2],
    )
    return problem, [r, A], [t, x], [torch.tensor(0.4, dtype=D), rand(4, 3, seed=13)]


QPS = [
    nonneg_least_squares,
    elastic_net,
    simplex_projection,
    mean_variance,
    parameter_in_both,
    matrix_projection,
]
SOCPS = [robust_linear_program, group_norms, least_squares_in_a_ball]
EVERY = pytest.mark.parametrize("make", QPS + SOCPS, ids=lambda f: f.__name__)


def symmetrised(parameters, values):
    return [
        (v + v.mT) / 2 if p.is_symmetric() and p.ndim == 2 else v
        for p, v in zip(parameters, values, strict=True)
    ]


@EVERY
def test_agrees_with_cvxpy(make):
    problem, parameters, variables, values = make()
    found, solution = from_cvxpy(problem, parameters, variables).solve(*values)
    assert solution.status is SolveStatus.SOLVED and solution.kkt_norm < 1e-8
    assert all(p.value is None for p in parameters)
    for p, v in zip(parameters, values, strict=True):
        p.value = v.numpy()
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    for variable, own in zip(variables, found, strict=True):
        assert own.shape == variable.shape
        np.testing.assert_allclose(own.numpy(), variable.value, atol=1e-6)


@EVERY
def test_gradients_in_every_parameter(make):
    problem, parameters, variables, values = make()
    layer = from_cvxpy(problem, parameters, variables)
    values = [v.requires_grad_() for v in values]
    assert gradcheck(lambda *v: layer(*symmetrised(parameters, v)), values, atol=1e-5)


@EVERY
def test_a_batch_equals_its_items(make):
    problem, parameters, variables, values = make()
    layer = from_cvxpy(problem, parameters, variables)
    # All parameters but the last have a batch dimension.
    scale = torch.tensor([1.0, 0.8, 1.1], dtype=D)
    own = [v * scale.reshape(3, *[1] * v.ndim) for v in values]
    if len(own) > 1:
        own[-1] = values[-1]
    own = [v.clone().requires_grad_() for v in own]
    found = layer(*own)
    sum((x**2).sum() for x in found).backward()
    batched = [v.grad.clone() for v in own]
    for v in own:
        v.grad = None
    for item in range(3):
        one = layer(
            *(v[item] if v.ndim > p.ndim else v for p, v in zip(parameters, own, strict=True))
        )
        for x, y in zip(found, one, strict=True):
            torch.testing.assert_close(x[item], y, atol=1e-9, rtol=1e-7)
        sum((x**2).sum() for x in one).backward()
    for v, grad in zip(own, batched, strict=True):
        torch.testing.assert_close(v.grad, grad, atol=1e-7, rtol=1e-6)


def test_closed_forms():
    x, p = cp.Variable(4), cp.Parameter(4)
    layer = from_cvxpy(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0]), [p], [x])
    v = torch.tensor([1.0, -2.0, 3.0, -0.5], dtype=D, requires_grad=True)
    (relu,) = layer(v)
    torch.testing.assert_close(relu, v.detach().clamp(min=0))
    (relu * torch.arange(1.0, 5.0)).sum().backward()
    torch.testing.assert_close(v.grad, torch.tensor([1.0, 0.0, 3.0, 0.0], dtype=D))

    ball = from_cvxpy(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.norm(x) <= 1]), [p], [x])
    w = rand(4, seed=20).mul(3).requires_grad_()
    (unit,) = ball(w)
    torch.testing.assert_close(unit, w.detach() / w.detach().norm())
    (slope,) = torch.autograd.grad(unit[0], w)
    exact = torch.autograd.functional.jacobian(lambda u: u / u.norm(), w.detach())[0]
    torch.testing.assert_close(slope, exact, atol=1e-8, rtol=1e-6)


def test_matrices_are_read_and_returned_in_their_own_layout():
    X, P = cp.Variable((2, 3)), cp.Parameter((2, 3))
    layer = from_cvxpy(cp.Problem(cp.Minimize(cp.sum_squares(X - P))), [P], [X])
    value = torch.arange(6, dtype=D).reshape(2, 3)
    torch.testing.assert_close(layer(value)[0], value)
    torch.testing.assert_close(layer(value.T.contiguous().T)[0], value)
    two = torch.stack((value, -value)).reshape(2, 1, 2, 3)
    torch.testing.assert_close(layer(two)[0], two)


def test_the_gradient_of_a_symmetric_parameter_is_symmetric():
    problem, parameters, variables, values = mean_variance()
    layer = from_cvxpy(problem, parameters, variables)
    S, mu = values[0].requires_grad_(), values[1]
    (w,) = layer(S, mu)
    w[0].backward()
    torch.testing.assert_close(S.grad, S.grad.T, atol=0, rtol=0)
    direct = torch.nn.Parameter(S.detach().clone())
    ones = torch.ones(1, 4, dtype=D), torch.ones(1, dtype=D)
    bp.QPLayer()(2 * direct, -mu, *ones, lb=torch.zeros(4, dtype=D))[0].backward()
    torch.testing.assert_close(S.grad, direct.grad, atol=1e-9, rtol=1e-7)


def test_diagonal_parameters_and_parametric_bounds():
    low, high = cp.Parameter(3), cp.Parameter()
    d = cp.Parameter((3, 3), diag=True)
    y = cp.Variable(3, bounds=[low, high])
    layer = from_cvxpy(
        cp.Problem(cp.Minimize(cp.sum_squares(y - d @ np.ones(3)))), [low, high, d], [y]
    )
    values = [
        torch.tensor([0.0, 4.0, 0.0], dtype=D, requires_grad=True),
        torch.tensor(5.0, dtype=D, requires_grad=True),
        torch.diag(torch.tensor([6.0, 3.0, 2.0], dtype=D)).requires_grad_(),
    ]
    (found,) = layer(*values)
    torch.testing.assert_close(found, torch.tensor([5.0, 4.0, 2.0], dtype=D))
    found.sum().backward()
    torch.testing.assert_close(values[0].grad, torch.tensor([0.0, 1.0, 0.0], dtype=D))
    torch.testing.assert_close(values[1].grad, torch.tensor(1.0, dtype=D))
    slope = torch.diag(torch.tensor([0.0, 0.0, 1.0], dtype=D))
    torch.testing.assert_close(values[2].grad, slope, atol=1e-9, rtol=1e-7)


def test_constraints_on_one_variable_become_bounds_the_first_of_each_side():
    x, p = cp.Variable(2), cp.Parameter()
    rows = [2 * x >= p, x[0] <= 3, -x[1] >= -4, x[0] >= 1, p * x[1] <= 9]
    layer = from_cvxpy(cp.Problem(cp.Minimize(cp.sum(x)), rows), [p], [x])
    found, solution = layer.solve(torch.tensor(4.0, dtype=D))
    torch.testing.assert_close(found[0], torch.tensor([2.0, 2.0], dtype=D))
    # x[0] >= 1 comes second on its side, and p * x[1] has a coefficient that varies.
    assert solution.lam.shape == (2,)
    torch.testing.assert_close(solution.lam_lb, torch.ones(2, dtype=D))


def test_a_sum_of_squares_with_a_large_sparse_matrix_stays_as_cvxpy_wrote_it():
    n = 500
    x, b = cp.Variable(n), cp.Parameter(n)
    chain = np.eye(n) - 0.5 * np.eye(n, k=1)
    layer = from_cvxpy(cp.Problem(cp.Minimize(cp.sum_squares(chain @ x - b))), [b], [x])
    value = rand(n, seed=26)
    found, solution = layer.solve(value)
    assert solution.z.shape == (2 * n,)
    torch.testing.assert_close(torch.from_numpy(chain) @ found[0], value)


def test_a_large_sparse_matrix_stays_sparse():
    n = 600
    x, b = cp.Variable(n), cp.Parameter(n)
    chain = np.eye(n) - np.eye(n, k=1)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [chain @ x <= 0.1])
    layer = from_cvxpy(problem, [b], [x])
    value = rand(n, seed=21)
    assert layer._program.arguments["G"]([value]).layout is torch.sparse_coo
    found, solution = layer.solve(value)
    assert solution.status is SolveStatus.SOLVED
    b.value = value.numpy()
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    np.testing.assert_allclose(found[0].numpy(), x.value, atol=1e-6)


def test_sums_of_squares_are_solved_in_their_own_variables():
    x, A, b, w = cp.Variable(3), cp.Parameter((7, 3)), cp.Parameter(7), cp.Parameter(nonneg=True)
    cost = cp.sum_squares(A @ x - b) + w * cp.norm1(x)
    layer = from_cvxpy(cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1]), [A, b, w], [x])
    M, v, weight = rand(7, 3, seed=24), rand(7, seed=25), torch.tensor(2.0, dtype=D)
    found, solution = layer.solve(M, v, weight)
    # x and the bounds on its absolute values; 7 residuals and their equalities are gone.
    assert solution.z.shape == (6,) and solution.nu.shape == (1,)
    P = torch.block_diag(2 * M.T @ M, torch.zeros(3, 3, dtype=D))
    q = torch.cat((-2 * M.T @ v, weight.expand(3)))
    eye = torch.eye(3, dtype=D)
    G = torch.cat((torch.cat((eye, -eye), 1), torch.cat((-eye, -eye), 1)))
    total = torch.tensor([[1.0, 1, 1, 0, 0, 0]], dtype=D), torch.ones(1, dtype=D)
    z = bp.QPLayer()(P, q, *total, G, torch.zeros(6, dtype=D))
    torch.testing.assert_close(found[0], z[:3], atol=1e-9, rtol=1e-7)


def test_an_infeasible_item_leaves_the_others_alone():
    x, c, r = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    for norm in (cp.norm1, cp.norm2):
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [norm(x) <= r, x[0] == 1])
        layer = from_cvxpy(problem, [c, r], [x], on_failure="nan")
        centre = torch.tensor([2.0, 1.8], dtype=D, requires_grad=True)
        radius = torch.tensor([1.5, 0.5, 3.0], dtype=D, requires_grad=True)
        (found,), solution = layer.solve(centre, radius)
        assert list(solution.status) == [
            SolveStatus.SOLVED,
            SolveStatus.PRIMAL_INFEASIBLE,
            SolveStatus.SOLVED,
        ]
        assert found[1].isnan().all()
        found[[0, 2]].sum().backward()
        assert centre.grad.isfinite().all() and radius.grad[1] == 0 and radius.grad[0] > 0.1
        with pytest.raises(bp.SolverError, match="item 1: primal infeasible"):
            from_cvxpy(problem, [c, r], [x])(centre, radius)


def test_dtype_follows_the_parameters():
    problem, parameters, variables, values = nonneg_least_squares()
    layer = from_cvxpy(problem, parameters, variables)
    single = [v.float().requires_grad_() for v in values]
    (x,) = layer(*single)
    x.sum().backward()
    assert x.dtype == single[0].grad.dtype == torch.float32
    torch.testing.assert_close(x, layer(*values)[0].float(), atol=1e-5, rtol=1e-4)
    assert layer(single[0], values[1])[0].dtype == D


def test_a_problem_without_parameters_and_no_grad():
    x = cp.Variable(2)
    layer = from_cvxpy(cp.Problem(cp.Minimize(cp.sum_squares(x - 3))), [], [x])
    torch.testing.assert_close(layer()[0], torch.full((2,), 3.0, dtype=D))
    problem, parameters, variables, values = simplex_projection()
    with torch.no_grad():
        assert not from_cvxpy(problem, parameters, variables)(values[0].requires_grad_())[
            0
        ].requires_grad


def test_copies_and_named_solvers():
    problem, parameters, variables, values = robust_linear_program()
    layer = from_cvxpy(problem, parameters, variables, forward="clarabel", tolerance=1e-7)
    (x,), solution = layer.solve(*values)
    assert solution.solver == "clarabel" and "tolerance=1e-07" in repr(layer)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(copied(*values)[0], x, atol=0, rtol=0)
    problem, parameters, variables, values = simplex_projection()
    layer = from_cvxpy(problem, parameters, variables, "osqp", "osqp", options={"max_iter": 9000})
    assert layer.solve(*values)[1].solver == "osqp"


def test_trains_inside_a_network():
    problem, parameters, variables, _ = simplex_projection()
    layer = from_cvxpy(problem, parameters, variables)
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 5).double()
    inputs, target = rand(8, 3, seed=22), torch.softmax(3 * rand(8, 5, seed=23), -1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = ((layer(network(inputs))[0] - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_cvxpy_is_loaded_by_the_first_use_and_brings_no_finance():
    code = """
import sys
import bpqp_portfolio as bp
make = bp.from_cvxpy
assert "cvxpy" not in sys.modules
import cvxpy as cp
x, p = cp.Variable(2), cp.Parameter(2)
make(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x])
assert not {"qlib", "mlflow", "pandas"} & set(sys.modules), "finance"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
