"""A smooth program's derivatives by hand, at z = (2, 3) with p = 4 and r = 5."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio.problems.convex import ConvexProgram

Z = np.array([2.0, 3.0])
NU, LAM = np.array([7.0]), np.array([2.0, 3.0])


@pytest.fixture
def program():
    """f = z₁²z₂ + p z₁ + r z₂², h = p z₁ − 2, g = (z₂³ − r z₁, z₁z₂)."""
    return ConvexProgram(
        objective=lambda z, p, r, unused: z[0] ** 2 * z[1] + p * z[0] + r * z[1] ** 2,
        equalities=lambda z, p, r, unused: (p * z[0] - 2).reshape(1),
        inequalities=lambda z, p, r, unused: torch.stack([z[1] ** 3 - r * z[0], z[0] * z[1]]),
        parameters=(torch.tensor(4.0), torch.tensor(5.0), torch.tensor(1)),
        initial_point=np.ones(2),
    )


def test_values_and_first_derivatives(program):
    assert (program.n, program.p, program.m) == (2, 1, 2)
    assert program.value(Z) == 65
    assert program.gradient(Z).tolist() == [16, 34]
    assert program.h(Z).tolist() == [6] and program.jacobian_h(Z).tolist() == [[4, 0]]
    assert program.g(Z).tolist() == [17, 6]
    assert program.jacobian_g(Z).tolist() == [[-5, 27], [3, 2]]


@pytest.mark.parametrize(
    ("nu", "lam", "weight", "expected"),
    [
        ([0.0], [0.0, 0.0], 1.0, [[6, 4], [4, 10]]),
        ([0.0], [0.0, 0.0], 0.5, [[3, 2], [2, 5]]),
        ([9.0], [1.0, 0.0], 0.0, [[0, 0], [0, 18]]),
        ([9.0], [0.0, 1.0], 0.0, [[0, 1], [1, 0]]),
        ([7.0], [2.0, 3.0], 0.5, [[3, 5], [5, 41]]),
    ],
)
def test_the_hessian_is_weighted(program, nu, lam, weight, expected):
    found = program.hessian(Z, np.array(nu), np.array(lam), weight)
    np.testing.assert_allclose(found, expected)


def test_the_equalities_curve_too():
    program = ConvexProgram(
        lambda z: z.square().sum(), lambda z: (z[0] * z[1] - 1).reshape(1), None, (), np.ones(2)
    )
    assert program.hessian(Z, NU, np.zeros(0)).tolist() == [[2, 7], [7, 2]]
    assert program.local_qp(Z, NU, np.zeros(0)).P.tolist() == [[2, 7], [7, 2]]


def test_the_local_qp_has_the_same_slopes_and_slacks(program):
    """P = ∇²L, q = ∇f − Pz; rows b = A z − h and limits G z − g."""
    qp = program.local_qp(Z, NU, LAM)
    np.testing.assert_allclose(qp.P, [[6, 7], [7, 46]])
    np.testing.assert_allclose(qp.q, [-17, -118])
    np.testing.assert_allclose(qp.A, [[4, 0]])
    np.testing.assert_allclose(qp.b, [2])
    np.testing.assert_allclose(qp.G, [[-5, 27], [3, 2]])
    np.testing.assert_allclose(qp.h, [54, 6])


@pytest.mark.parametrize(
    ("dz", "dnu", "dlam", "expected"),
    [
        # ∇L = (2 z₁z₂ + p + ν p − λ₁r + λ₂z₂, z₁² + 2 r z₂ + 3 λ₁z₂² + λ₂z₁).
        ((1, 0), 0, (0, 0), (8, -2)),
        ((0, 1), 0, (0, 0), (0, 6)),
        ((0, 0), 1, (0, 0), (2, 0)),
        ((0, 0), 0, (1, 0), (0, -2)),
        ((0, 0), 0, (0, 1), (0, 0)),
        ((1, 2), 3, (4, 5), (14, 2)),
    ],
)
def test_gradients_in_the_parameters(program, dz, dnu, dlam, expected):
    directions = np.array(dz, float), np.array([dnu], float), np.array(dlam, float)
    p, r, whole = program.pullback(Z, NU, LAM, *directions)
    assert whole is None
    assert (float(p), float(r)) == expected
