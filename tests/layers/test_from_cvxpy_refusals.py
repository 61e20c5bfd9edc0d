"""from_cvxpy: what it refuses, and that each message names the thing and the remedy."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bpqp_portfolio as bp
from bpqp_portfolio import ConfigError, ProblemError, from_cvxpy

D = torch.float64

x = cp.Variable(3, name="x")
a, b = cp.Parameter(3, name="a"), cp.Parameter(3, name="b")
NEAREST = cp.Problem(cp.Minimize(cp.sum_squares(x - a) + b @ x), [cp.sum(x) == 1])


def test_lists_that_do_not_fit_the_problem():
    other = cp.Parameter(3, name="other")
    for parameters, message in (
        ([a], r"parameters: 'b' of the problem missing"),
        ([a, b, other], r"parameters\[2\]: other is none of the problem's parameters \(a, b\)"),
        ([a, b, a], r"parameters\[2\]: 'a' is listed twice"),
        ([a, x], r"parameters\[1\]: x is none"),
        (a, r"parameters: expected a list"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_cvxpy(NEAREST, parameters, [x])
    with pytest.raises(ConfigError, match=r"variables\[0\]: y is none of the problem's variables"):
        from_cvxpy(NEAREST, [a, b], [cp.Variable(3, name="y")])
    with pytest.raises(ConfigError, match="at least one variable"):
        from_cvxpy(NEAREST, [a, b], [])
    with pytest.raises(ConfigError, match=r"expected a cvxpy\.Problem, got Minimize"):
        from_cvxpy(NEAREST.objective, [a, b], [x])


def test_variables_and_parameters_that_a_layer_cannot_have():
    def nearest(variable):
        return cp.Problem(cp.Minimize(cp.sum_squares(variable)))

    for kind, message in (
        ({"integer": True}, "variable 'v' is integer; .*relax"),
        ({"boolean": True}, "variable 'v' is boolean"),
        ({"complex": True}, "variable 'v' is complex"),
        ({"symmetric": True}, "variable 'v' is declared symmetric.*X == X.T"),
        ({"PSD": True}, "variable 'v' is declared PSD"),
        ({"diag": True}, "variable 'v' is declared diag"),
    ):
        v = cp.Variable((2, 2), name="v", **kind)
        with pytest.raises(ConfigError, match=message):
            from_cvxpy(nearest(v), [], [v])
    p = cp.Parameter(3, complex=True, name="p")
    problem = cp.Problem(cp.Minimize(cp.norm(x - p)))
    with pytest.raises(ConfigError, match=r"parameter 'p' is complex; .*two real"):
        from_cvxpy(problem, [p], [x])


def test_a_symmetric_variable_beside_those_that_are_returned_is_allowed():
    S = cp.Variable((3, 3), symmetric=True)
    cost = cp.sum_squares(S - 1) + cp.sum_squares(x - a)
    problem = cp.Problem(cp.Minimize(cost), [cp.sum(S) + cp.sum(x) == 0])
    value = torch.tensor([1.0, 2.0, 3.0], dtype=D)
    (found,) = from_cvxpy(problem, [a], [x])(value)
    a.value = value.numpy()
    problem.solve(solver=cp.CLARABEL)
    a.value = None
    np.testing.assert_allclose(found.numpy(), x.value, atol=1e-6)


def test_problems_that_are_not_dpp_or_not_convex():
    S = cp.Parameter((3, 3), PSD=True, name="S")
    k = cp.Parameter(nonneg=True, name="k")
    for problem, parameters, message in (
        (cp.Problem(cp.Minimize(k * (a @ x) + cp.norm(x))), [k, a], "objective, .* is not DPP"),
        (
            cp.Problem(cp.Minimize(a @ x), [x <= 1, cp.quad_form(x, S) <= 1]),
            [a, S],
            r"constraint 1, .*QuadForm.* is not DPP.*sum_squares\(F @ x\)",
        ),
        (
            cp.Problem(cp.Minimize(a @ x), [cp.norm(x) >= 1]),
            [a],
            "constraint 0, .*DCP.*bp.ConvexLayer",
        ),
    ):
        with pytest.raises(ProblemError, match=message):
            from_cvxpy(problem, parameters, [x])


def test_cones_of_other_kinds():
    X = cp.Variable((2, 2), name="X")
    for objective, constraints, message in (
        (cp.sum(-cp.entr(x)) + a @ x, [cp.sum(x) == 1], "3 exponential cones; .*bp.ConvexLayer"),
        (a @ x + cp.sum(X), [X >> 0, X == X.T], "1 positive semidefinite cone; "),
        (a @ x + cp.power(x[0], 2.5, approx=False), [x >= 1], "1 power cone; "),
    ):
        with pytest.raises(ProblemError, match=message):
            from_cvxpy(cp.Problem(cp.Minimize(objective), constraints), [a], [x])


def test_tensors_that_do_not_fit():
    layer = from_cvxpy(NEAREST, [a, b], [x])
    fit = torch.zeros(3, dtype=D)
    for values, message in (
        ((fit,), r"expected 2 tensors, for the parameters \('a', 'b'\) in this order, got 1"),
        ((fit, fit, fit), "got 3"),
        ((fit, torch.zeros(2)), r"parameter 'b': expected shape \(\.\.\., 3\), got shape \(2,\)"),
        ((fit, torch.tensor(1.0)), r"parameter 'b': expected shape"),
        ((torch.zeros(3, 1), fit), r"parameter 'a': expected shape"),
        ((fit, np.zeros(3)), "parameter 'b': expected a tensor of floating point numbers"),
        ((fit, torch.zeros(3, dtype=torch.int64)), "parameter 'b': .* got torch.int64"),
        ((fit, None), "parameter 'b': .*got None"),
        (
            (fit.expand(2, 3), fit.expand(4, 3)),
            r"do not broadcast: parameter 'a' \(2,\), parameter 'b' \(4,\)",
        ),
    ):
        with pytest.raises(ProblemError, match=message):
            layer(*values)


def declared(on_failure="raise"):
    k = cp.Parameter(nonneg=True, name="k")
    S = cp.Parameter((3, 3), PSD=True, name="S")
    d = cp.Parameter((3, 3), diag=True, name="d")
    c = cp.Parameter(3, bounds=[-1, 1], name="c")
    cost = cp.quad_form(x, S) + k * cp.norm1(x) + c @ x + cp.sum_squares(d @ x - 1)
    return from_cvxpy(cp.Problem(cp.Minimize(cost)), [k, S, d, c], [x], on_failure=on_failure)


def good():
    eye = torch.eye(3, dtype=D)
    return [torch.ones((), dtype=D), eye, eye.clone(), torch.zeros(3, dtype=D)]


@pytest.mark.parametrize(
    ("which", "value", "message"),
    [
        (0, -1.0, "item 1: parameter 'k': expected entries of its declared sign"),
        (0, np.nan, "item 1: parameter 'k': expected finite numbers"),
        (1, [[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]], "item 1: parameter 'S': .* symmetric matrix"),
        (2, [[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]], "item 1: parameter 'd': .* zeros outside"),
        (3, [0.0, 2, 0], "item 1: parameter 'c': .* within its bounds"),
        (3, [0.0, np.inf, 0], "item 1: parameter 'c': expected finite numbers"),
    ],
)
def test_values_that_are_not_as_declared(which, value, message):
    values = good()
    bad = torch.tensor(value, dtype=D)
    values[which] = torch.stack((values[which], bad, values[which])).requires_grad_()
    with pytest.raises(ProblemError, match=message):
        declared()(*values)
    (found,), solution = declared(on_failure="nan").solve(*values)
    assert [s is bp.SolveStatus.BAD_DATA for s in solution.status] == [False, True, False]
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()
    found[[0, 2]].sum().backward()
    assert values[which].grad.isfinite().all() and not values[which].grad[1].any()


def test_settings_are_checked_as_those_of_the_layers():
    with pytest.raises(ConfigError, match="osqp"):
        from_cvxpy(NEAREST, [a, b], [x], forward="osqpp")
    with pytest.raises(ConfigError, match="kkt"):
        from_cvxpy(NEAREST, [a, b], [x], backward="ktt")
    with pytest.raises(ConfigError, match="tolerance"):
        from_cvxpy(NEAREST, [a, b], [x], tolerance=0)
