"""The unit that z, the objective or a row is given in changes neither status nor answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.problems import QP, SolveStatus
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.solvers import available_solvers, get_solver

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("qp"))
FACTORS = st.floats(-8.0, 8.0).map(lambda x: 10.0**x)


def draw(seed, kind):
    """A problem with a known solution: arguments, z and λ of G, constructed from the answer.

    ``kind`` is "strict" (P definite), "flat" (P of rank 2, held by the active rows), "linear"
    (P = 0, a vertex) or "factor" (P as B Bᵀ + diag(d)).
    """
    rng = np.random.default_rng([seed, len(kind)])
    n, p, m = 6, 1, 4
    z = rng.normal(size=n)
    B = rng.normal(size=(n, 2))
    d = {"strict": rng.uniform(0.5, 2.0, n), "factor": rng.uniform(0.5, 2.0, n)}
    P = {"flat": B @ B.T, "linear": np.zeros((n, n))}.get(kind)
    if P is None:
        P = B @ B.T + np.diag(d[kind])
    A, G = rng.normal(size=(p, n)), rng.normal(size=(m, n))
    on = {"strict": (1, 1), "factor": (1, 1), "flat": (2, 2), "linear": (2, n - p - 2)}[kind]
    active = np.arange(m) < on[0]
    pinned = np.arange(n) < on[1]
    lam = np.where(active, rng.uniform(0.5, 2.0, m), 0.0)
    low = np.where(pinned, rng.uniform(0.5, 2.0, n), 0.0)
    q = -(P @ z) - A.T @ rng.normal(size=p) - G.T @ lam + low
    data = {
        "P": FactorMatrix(B, d["factor"]) if kind == "factor" else P,
        "q": q,
        "A": A,
        "b": A @ z,
        "G": G,
        "h": G @ z + np.where(active, 0.0, rng.uniform(0.2, 1.0, m)),
        "lb": z - np.where(pinned, 0.0, rng.uniform(0.2, 1.0, n)),
        "ub": z + rng.uniform(0.2, 1.0, n),
    }
    return data, z, lam


def in_units(data, c, s, rows_A, rows_G):
    """The problem with z multiplied by c, the objective by s and each row by a factor."""
    P = data["P"]
    if isinstance(P, FactorMatrix):
        P = FactorMatrix(P.B * (np.sqrt(s) / c), P.d * (s / c**2))
    else:
        P = P * (s / c**2)
    return QP(
        P,
        data["q"] * (s / c),
        data["A"] * (rows_A / c)[:, None],
        data["b"] * rows_A,
        data["G"] * (rows_G / c)[:, None],
        data["h"] * rows_G,
        data["lb"] * c,
        data["ub"] * c,
    )


@EACH_SOLVER
@pytest.mark.parametrize("kind", ["strict", "flat", "linear", "factor"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), c=FACTORS, s=FACTORS, row=FACTORS)
def test_units_together(name, kind, seed, c, s, row):
    data, z, lam = draw(seed, kind)
    rows_G = row ** np.linspace(-1.0, 1.0, 4)
    problem = in_units(data, c, s, np.array([row]), rows_G)
    found = get_solver(name).solve(problem)
    first_order = name in ("osqp", "proxqp") and kind == "linear"
    if first_order and found.status is SolveStatus.ITERATION_LIMIT:
        return  # they do not solve every linear program, and say so
    assert found.status is SolveStatus.SOLVED
    assert np.abs(found.z / c - z).max() <= 1e-6 * np.abs(z).max()
    if kind == "strict":
        scaled = found.lam * rows_G / s
        assert np.abs(scaled - lam).max() <= 1e-6 * np.abs(lam).max()


@EACH_SOLVER
@pytest.mark.parametrize("c", [1e-8, 1e-7, 1e-6, 1e-4, 1e4, 1e8])
@pytest.mark.parametrize("what", ["z", "objective", "rows"])
def test_one_unit_alone(name, c, what):
    data, z, _ = draw(3, "strict")
    unit, one = (c if what == "z" else 1.0), np.ones(4)
    rows = c if what == "rows" else 1.0
    problem = in_units(data, unit, c if what == "objective" else 1.0, rows * one[:1], rows * one)
    found = get_solver(name).solve(problem)
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z / unit, z, rtol=0.0, atol=1e-8 * np.abs(z).max())


@EACH_SOLVER
@pytest.mark.parametrize("c", [1e-8, 1.0, 1e8])
def test_infeasible_in_any_unit(name, c):
    # z₁ + z₂ ≤ −1 and z ≥ 0 contradict each other; the objective falls along z₁ without end.
    eye, one = np.eye(2) / c**2, np.ones(2)
    closed = QP(eye, one / c, G=one[None] / c, h=-np.ones(1), lb=np.zeros(2), ub=9 * c * one)
    assert get_solver(name).solve(closed).status is SolveStatus.PRIMAL_INFEASIBLE
    open_ended = QP(
        np.diag([0.0, 1.0 / c**2]), np.array([-1.0, 0.0]) / c, G=one[None] / c - 2 / c, h=np.ones(1)
    )
    assert get_solver(name).solve(open_ended).status is SolveStatus.DUAL_INFEASIBLE


@EACH_SOLVER
def test_a_small_answer_of_large_entries(name):
    # P of rank 2 with entries of 1e6, held by a box: z in its null space is far from the answer.
    rng = np.random.default_rng(7)
    for _ in range(10):
        n = 6
        B = 1e3 * rng.normal(size=(n, 2))
        z = rng.normal(size=n) * 5.0
        side = np.array([1, 1, -1, -1, 0, 0])
        dual = np.where(side != 0, rng.uniform(0.5, 2.0, n), 0.0)
        lb = np.where(side > 0, z, z - 3000.0)
        ub = np.where(side < 0, z, z + 3000.0)
        found = get_solver(name).solve(QP(B @ B.T, -(B @ B.T) @ z + side * dual, lb=lb, ub=ub))
        if found.status is SolveStatus.SOLVED:
            assert np.abs(found.z - z).max() <= 1e-5 * np.abs(z).max()
        else:
            assert found.status is SolveStatus.INACCURATE
            assert name not in ("auto", "dense")


@EACH_SOLVER
@pytest.mark.parametrize("spread", [1e4, 1e11, 1e13])
def test_units_of_single_variables(name, spread):
    # z₁ in one unit and z₂ in another: right as far as one norm of z can see, else never "solved".
    units = np.array([spread**0.5, spread**-0.5, 1.0, 1.0, 1.0, 1.0])
    for seed in range(4):
        data, z, _ = draw(seed, "strict")
        problem = QP(
            data["P"] / np.outer(units, units),
            data["q"] / units,
            data["A"] / units,
            data["b"],
            data["G"] / units,
            data["h"],
            data["lb"] * units,
            data["ub"] * units,
        )
        found = get_solver(name).solve(problem)
        if spread > 1e9:
            assert found.status is not SolveStatus.SOLVED
        elif found.status is SolveStatus.SOLVED:
            assert np.abs(found.z / units - z).max() <= 1e-6 * np.abs(z).max()
