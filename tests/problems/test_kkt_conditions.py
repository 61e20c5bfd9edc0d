"""Each condition of optimality is checked with its right sign: points that break only one."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.problems import QP, kkt_residuals
from bpqp_portfolio.problems.qp import ARGUMENTS

# min ½‖z‖² + qᵀz with z₁ + z₂ = 3, z₁ − z₃ ≤ 1, 0 ≤ z₄ and z₅ ≤ 1, at z = (2, 1, 1, 0, 1) with
# ν = −4, λ = 3, and bounds that cost 2 and 5: q = −z − Aᵀν − Gᵀλ + λ_lb − λ_ub.
PROBLEM = QP(
    P=np.eye(5),
    q=[-1.0, 3.0, 2.0, 2.0, -6.0],
    A=[[1.0, 1, 0, 0, 0]],
    b=[3.0],
    G=[[1.0, 0, -1, 0, 0]],
    h=[1.0],
    lb=[-np.inf, -np.inf, -np.inf, 0.0, -np.inf],
    ub=[np.inf, np.inf, np.inf, np.inf, 1.0],
)
POINT = {
    "z": [2.0, 1, 1, 0, 1],
    "nu": [-4.0],
    "lam": [3.0],
    "lam_lb": [0.0, 0, 0, 2, 0],
    "lam_ub": [0.0, 0, 0, 0, 5],
}


def residuals(problem=PROBLEM, **changes):
    given = {**POINT, **changes}
    found = kkt_residuals(problem, **{k: np.asarray(v, dtype=float) for k, v in given.items()})
    parts = {
        name: float(getattr(found, name))
        for name in ("stationarity", "primal", "dual", "complementarity")
    }
    assert float(found.norm) == max(parts.values())
    return {name for name, value in parts.items() if value > 1e-3}


def test_the_solution_breaks_nothing():
    assert residuals() == set()


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"nu": [-3.0]}, {"stationarity"}),
        ({"lam": [2.0]}, {"stationarity"}),
        ({"lam": [4.0]}, {"stationarity"}),
        ({"lam_lb": [0.0, 0, 0, 1, 0]}, {"stationarity"}),
        ({"lam_ub": [0.0, 0, 0, 0, 6]}, {"stationarity"}),
        ({"lam": [-3.0]}, {"stationarity", "dual"}),
        ({"lam_lb": [0.0, 0, 0, -2, 0]}, {"stationarity", "dual"}),
        ({"lam_ub": [0.0, 0, 0, 0, -5]}, {"stationarity", "dual"}),
        # Duals of bounds that there are not.
        ({"lam_lb": [1.0, 0, 0, 2, 0]}, {"stationarity", "dual"}),
        ({"lam_ub": [0.0, 0, 0, 1, 5]}, {"stationarity", "dual"}),
        # Points off one constraint, with the gradient that belongs to them.
        ({"z": [2.0, 2, 1, 0, 1]}, {"primal", "stationarity"}),
        ({"z": [2.0, 0, 1, 0, 1]}, {"primal", "stationarity"}),
        ({"z": [2.0, 1, 0, 0, 1]}, {"primal", "stationarity", "complementarity"}),
        ({"z": [2.0, 1, 2, 0, 1]}, {"stationarity", "complementarity"}),
        ({"z": [2.0, 1, 1, -1, 1]}, {"primal", "stationarity", "complementarity"}),
        ({"z": [2.0, 1, 1, 1, 1]}, {"stationarity", "complementarity"}),
        ({"z": [2.0, 1, 1, 0, 2]}, {"primal", "stationarity", "complementarity"}),
        ({"z": [2.0, 1, 1, 0, 0]}, {"stationarity", "complementarity"}),
    ],
)
def test_what_is_broken_is_said(changes, broken):
    assert residuals(**changes) == broken


@pytest.mark.parametrize(
    ("q", "changes", "broken"),
    [
        ([-2.0], {}, set()),
        # Mostly stationary points, whose bound duals belong to no bound.
        ([-1.0], {"lam_lb": [0.0], "lam_ub": [-1.0]}, {"dual"}),
        ([-1.0], {"lam_lb": [1.0], "lam_ub": [2.0]}, {"stationarity", "dual"}),
        ([-3.0], {"lam_ub": [1.0]}, {"dual"}),
        ([-1.0], {"lam_lb": [1.0]}, {"dual"}),
        ([-3.0], {"lam_lb": [-1.0]}, {"dual"}),
    ],
)
def test_a_problem_without_bounds_has_no_duals_of_them(q, changes, broken):
    """min ½z² + qz at z = 2."""
    point = {"z": [2.0], "nu": [], "lam": [], "lam_lb": [0.0], "lam_ub": [0.0], **changes}
    assert residuals(QP(np.eye(1), q), **point) == broken


@pytest.mark.parametrize("unit", [1e3, 1e6])
@pytest.mark.parametrize(
    "changes", [{"nu": [-3.0]}, {"z": [2.0, 2, 1, 0, 1]}, {"z": [2.0, 1, 1, 0, 2]}, {"lam": [-1.0]}]
)
def test_a_smaller_unit_of_z_changes_nothing(unit, changes):
    """The same point of the same problem with numbers of z that are ``unit`` times as large."""
    scale = {"P": unit**-2, "q": 1 / unit, "A": 1 / unit, "G": 1 / unit, "lb": unit, "ub": unit}
    data = {name: scale.get(name, 1.0) * getattr(PROBLEM, name) for name in ARGUMENTS}
    point = {k: np.asarray(v, dtype=float) for k, v in {**POINT, **changes}.items()}
    other = {**point, "z": unit * point["z"]}
    for side in ("lam_lb", "lam_ub"):
        other[side] = point[side] / unit
    plain, moved = kkt_residuals(PROBLEM, **point), kkt_residuals(QP(**data), **other)
    for name in ("stationarity", "primal", "dual", "complementarity"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name), rel=1e-9, abs=1e-15)
