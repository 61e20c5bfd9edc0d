"""The direct solve of an equality-constrained QP against dense linear algebra, regular or not."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.solvers.common.kkt import solve_equality_qp

RNG = np.random.default_rng(1)


def kkt(H, C):
    return np.block([[H, C.T], [C, np.zeros((len(C), len(C)))]])


def check_least_norm(H, g, C, c, atol=1e-9):
    x, y = solve_equality_qp(H, g, C, c)
    expected = np.linalg.pinv(kkt(H, C), rcond=1e-10, hermitian=True) @ np.concatenate([-g, c])
    np.testing.assert_allclose(np.concatenate([x, y]), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("k", "p"), [(1, 0), (5, 0), (5, 2), (5, 5), (40, 10)])
@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("rows", [1e-4, 1e4])
def test_regular_systems(k, p, size, rows):
    X = RNG.normal(size=(k, k))
    H, g = size * (X @ X.T + 0.1 * np.eye(k)), size * RNG.normal(size=k)
    C, c = rows * RNG.normal(size=(p, k)), rows * RNG.normal(size=p)
    x, y = solve_equality_qp(H, g, C, c)
    np.testing.assert_allclose(H @ x + C.T @ y, -g, rtol=0, atol=1e-10 * size)
    np.testing.assert_allclose(C @ x, c, rtol=0, atol=1e-10 * rows)


def test_ill_conditioned_systems_keep_their_digits():
    Q, _ = np.linalg.qr(RNG.normal(size=(8, 8)))
    for smallest in (1e-4, 1e-8):
        H = (Q * np.geomspace(1, smallest, 8)) @ Q.T
        g = RNG.normal(size=8)
        x, _ = solve_equality_qp(0.5 * (H + H.T), g, np.zeros((0, 8)), np.zeros(0))
        expected = -(Q / np.geomspace(1, smallest, 8)) @ (Q.T @ g)
        assert np.linalg.norm(x - expected) <= 1e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize("p", [0, 2])
def test_no_free_coordinate(p):
    x, y = solve_equality_qp(np.zeros((0, 0)), np.zeros(0), np.zeros((p, 0)), np.ones(p))
    assert x.shape == (0,)
    np.testing.assert_array_equal(y, np.zeros(p))


def test_redundant_rows_share_the_dual():
    C = np.array([[1.0, 1.0, 1.0]] * 2)
    check_least_norm(np.eye(3), np.array([1.0, 2.0, 6.0]), C, np.array([0.5, 0.5]))


def test_contradictory_rows_meet_in_the_middle():
    C = np.array([[1.0, 0.0]] * 2)
    check_least_norm(np.eye(2), np.array([1.0, 2.0]), C, np.array([1.0, 3.0]))


def test_a_flat_direction_does_not_move():
    H = np.diag([1.0, 0.0])
    none = np.zeros((0, 2)), np.zeros(0)
    np.testing.assert_allclose(
        solve_equality_qp(H, np.array([1.0, 5.0]), *none)[0], [-1.0, 0.0], atol=1e-12
    )
    check_least_norm(H, np.array([1.0, 5.0]), *none)
    check_least_norm(H, np.array([1.0, 0.0]), *none)


def test_no_objective_and_as_many_rows_as_coordinates():
    C = np.array([[1.0, 2.0], [3.0, 1.0]])
    g, c = np.array([1.0, -1.0]), np.array([1.0, 2.0])
    x, y = solve_equality_qp(np.zeros((2, 2)), g, C, c)
    np.testing.assert_allclose(x, np.linalg.solve(C, c), atol=1e-10)
    np.testing.assert_allclose(y, -np.linalg.solve(C.T, g), atol=1e-10)


def test_no_objective_and_no_rows():
    x, _ = solve_equality_qp(np.zeros((2, 2)), np.ones(2), np.zeros((0, 2)), np.zeros(0))
    np.testing.assert_array_equal(x, np.zeros(2))


@pytest.mark.parametrize("negative", [-1e-9, -1e-3])
def test_a_slightly_indefinite_hessian_is_solved_as_it_is(negative):
    H = np.diag([1.0, 2.0, negative])
    x, _ = solve_equality_qp(H, np.array([1.0, 2.0, 1.0]), np.zeros((0, 3)), np.zeros(0))
    np.testing.assert_allclose(x, [-1.0, -1.0, -1 / negative], rtol=1e-6)
