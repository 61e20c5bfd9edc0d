"""The conditions of a cone program, each with its right sign: points that break only some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bpqp_portfolio import SolveStatus
from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.socp import SOCP, SOCPSolution, linear

# min ½‖z‖² + qᵀz with z₁ + z₂ = 3, z₃ ≤ 1, z₄ ≥ 0, z₅ ≤ 1 and ‖(z₆ + 1, z₇ − 1)‖ ≤ z₈ + 1, at
# z = (2, 1, 1, 0, 1, 2, 5, 4), where the cone is (5, 3, 4). With ν = −4, λ = 3, bounds that cost 2
# and 5, and the cone's dual (t, w) = (10, −6, −8):
# q = −z − Aᵀν − Gᵀλ + λ_lb − λ_ub + tc + Fᵀw.
E = np.eye(8)
Q = [2.0, 3, -4, 2, -6, -8, -13, 6]
CONE = (E[5:7], [1.0, -1], E[7], 1.0)
NONE = np.zeros(8)


def program(cones=(CONE,), **changes):
    given = {
        "P": E,
        "q": Q,
        "A": [E[0] + E[1]],
        "b": [3.0],
        "G": [E[2]],
        "h": [1.0],
        "lb": np.where(E[3], 0.0, -np.inf),
        "ub": np.where(E[4], 1.0, np.inf),
    }
    return SOCP(QP(**{**given, **changes}), list(cones))


POINT = SOCPSolution(
    np.array([2.0, 1, 1, 0, 1, 2, 5, 4]),
    np.array([-4.0]),
    np.array([3.0]),
    2 * E[3],
    5 * E[4],
    SolveStatus.SOLVED,
    0.0,
    0,
    "",
    cone_duals=(np.array([10.0, -6, -8]),),
)


def broken(problem=None, **changes):
    given = {
        k: v if isinstance(v, tuple) else np.asarray(v, dtype=float) for k, v in changes.items()
    }
    found = replace(POINT, **given).residuals(problem or program())
    parts = {
        name[0]: float(getattr(found, name))
        for name in ("stationarity", "primal", "dual", "complementarity")
    }
    assert found.norm == max(parts.values())
    return "".join(sorted(name for name, value in parts.items() if value > 1e-3))


def z(**moved):
    out = POINT.z.copy()
    for name, value in moved.items():
        out[int(name[1:]) - 1] = value
    return out


def cone(*dual):
    return (np.array(dual, dtype=float),)


def test_the_solution_breaks_nothing():
    assert broken() == ""


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"nu": [-3.0]}, "s"),
        ({"lam": [2.0]}, "s"),
        ({"lam": [-3.0]}, "ds"),
        ({"lam_lb": 1 * E[3]}, "s"),
        ({"lam_lb": -2 * E[3]}, "ds"),
        ({"lam_ub": 6 * E[4]}, "s"),
        ({"lam_ub": -5 * E[4]}, "ds"),
        ({"lam_lb": 2 * E[3] + E[0]}, "ds"),
        ({"lam_ub": 5 * E[4] + E[0]}, "ds"),
        # The cone's dual: of another length, of too short a head, of too long a one, turned round.
        ({"cone_duals": cone(5, -3, -4)}, "s"),
        ({"cone_duals": cone(9, -6, -8)}, "cds"),
        ({"cone_duals": cone(11, -6, -8)}, "cs"),
        ({"cone_duals": cone(10, 6, 8)}, "cs"),
        ({"cone_duals": cone(-10, 6, 8)}, "ds"),
        ({"z": z(z1=3)}, "ps"),
        ({"z": z(z1=1)}, "ps"),
        ({"z": z(z3=2)}, "cps"),
        ({"z": z(z3=0)}, "cs"),
        ({"z": z(z4=-1)}, "cps"),
        ({"z": z(z4=1)}, "cs"),
        ({"z": z(z5=2)}, "cps"),
        ({"z": z(z5=0)}, "cs"),
        # Out of the cone by its head or its tail, and inside of it.
        ({"z": z(z8=3)}, "cps"),
        ({"z": z(z6=3)}, "cps"),
        ({"z": z(z8=5)}, "cs"),
        ({"z": z(z6=1)}, "cs"),
    ],
)
def test_what_is_broken_is_said(changes, parts):
    assert broken(**changes) == parts


@pytest.mark.parametrize(("side", "parts"), [("lam_lb", "ds"), ("lam_ub", "ds")])
def test_a_program_without_bounds_has_no_duals_of_them(side, parts):
    free = program(lb=None, ub=None, q=np.array(Q) - 2 * E[3] + 5 * E[4])
    none = {"lam_lb": NONE, "lam_ub": NONE}
    assert broken(free, **none) == ""
    assert broken(free, **{**none, side: E[0]}) == parts
    assert broken(free, **{**none, side: -E[0]}) == parts


def test_a_cone_without_a_head_is_a_ball():
    """‖(z₆ + 1, z₇ − 1)‖ ≤ 5 at the same point: z₈ has no price."""
    ball = program([(*CONE[:2], None, 5.0)], q=np.array(Q) - 10 * E[7])
    assert broken(ball) == ""
    assert broken(ball, z=z(z6=2.5)) == "cps"


def test_two_cones_with_one_norm_share_the_dual():
    """The same cone, and one whose head is 1 longer and which has no price."""
    pair = program([CONE, (*CONE[:3], 2.0)])
    none = np.zeros(3)
    assert broken(pair, cone_duals=(POINT.cone_duals[0], none)) == ""
    assert broken(pair, cone_duals=(none, POINT.cone_duals[0])) == "c"
    equal = program([CONE, CONE])
    halves = (0.5 * POINT.cone_duals[0],) * 2
    assert broken(equal, cone_duals=halves) == ""


def test_a_program_of_nothing_is_solved_anywhere():
    nothing = SOCP(QP(linear(1), [0.0]), [(None, None, None, 1.0)])
    none = np.zeros(1)
    at_zero = replace(
        POINT,
        z=none,
        nu=none[:0],
        lam=none[:0],
        lam_lb=none,
        lam_ub=none,
        cone_duals=(none.repeat(2),),
    )
    assert at_zero.residuals(nothing).norm == 0.0


@pytest.mark.parametrize("size", [1.0, 0.01, 0.0])
def test_cones_of_one_norm_share_out_a_dual_by_their_heads(size):
    """Of the heads 1 and 3 the first gets a quarter of w; without any, both get nothing."""
    pair = program([CONE, CONE])
    ((tau, w),) = pair.gather((size * np.array([1.0, 4, -8]), size * np.array([3.0, 0, 4])))
    np.testing.assert_allclose(tau, [size, 3 * size])
    np.testing.assert_allclose(w, [4 * size, -4 * size])
    first, second = pair.spread([(tau, w)])
    np.testing.assert_allclose(first, size * np.array([1.0, 1, -1]))
    np.testing.assert_allclose(second, size * np.array([3.0, 3, -3]))
