"""A P with a negative eigenvalue is never solved, whichever solver answers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import bpqp_portfolio as bp
from bpqp_portfolio.problems import QP, SolveStatus
from bpqp_portfolio.solvers import available_solvers, get_solver

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("qp"))
SADDLE = QP(np.diag([1.0, -1.0]), np.array([0.3, 0.1]), lb=-np.ones(2), ub=np.ones(2))

BASE = """
import sys
for name in ("piqp", "proxsuite", "daqp", "highspy", "scs"):
    sys.modules[name] = None
import torch, bpqp_portfolio as bp
t = lambda *x: torch.tensor(x, dtype=torch.float64)
assert not {"piqp", "proxqp", "daqp", "highs"} & set(bp.available_solvers("qp"))
for name in bp.available_solvers("qp"):
    layer = bp.QPLayer(name, on_failure="nan")
    found = layer.solve(torch.diag(t(1.0, -1.0)), t(0.3, 0.1), lb=t(-1.0, -1.0), ub=t(1.0, 1.0))
    assert found.status is bp.SolveStatus.BAD_DATA, (name, found)
    assert found.z.isnan().all()
print("refused by", *bp.available_solvers("qp"))
"""


@EACH_SOLVER
def test_a_saddle_is_not_a_solution(name):
    assert get_solver(name).solve(SADDLE).status is SolveStatus.BAD_DATA


@EACH_SOLVER
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(-6.0, 0.0), unit=st.floats(-8.0, 8.0))
def test_no_indefinite_problem_is_solved(name, seed, size, unit):
    rng = np.random.default_rng(seed)
    n = 5
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    P = (Q * np.r_[rng.uniform(0.5, 1.0, n - 1), -(10.0**size)]) @ Q.T
    P = 10.0**unit * (P + P.T)
    problem = QP(
        P, rng.normal(size=n), np.ones((1, n)), np.ones(1), lb=np.full(n, -1.0), ub=np.ones(n)
    )
    assert not get_solver(name).solve(problem).status.usable
    assert (
        not get_solver(name).solve(QP(sparse.csr_array(P), problem.q, lb=problem.lb)).status.usable
    )


def test_the_base_installation_refuses_too():
    run = subprocess.run([sys.executable, "-c", BASE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "dense" in run.stdout and "clarabel" in run.stdout and "osqp" in run.stdout


def test_the_error_says_what_is_wrong():
    P = torch.tensor(SADDLE.P)
    one = torch.ones(2, dtype=torch.float64)
    with pytest.raises(bp.SolverError, match="P is not positive semidefinite"):
        bp.QPLayer("clarabel")(P, torch.tensor(SADDLE.q), lb=-one, ub=one)


@EACH_SOLVER
def test_rounding_of_single_precision_is_no_curvature(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 4)).astype(np.float32)
    P = X @ X.T
    assert np.linalg.eigvalsh(P.astype(float)).min() < 0
    box = np.ones(6)
    found = get_solver(name).solve(QP(P, rng.normal(size=6), lb=-box, ub=box))
    assert found.status is SolveStatus.SOLVED
