"""Hard convex QPs by seed, of the kinds that the Maros–Mészáros collection is feared for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bpqp_portfolio.problems import QP

SEEDS = range(5)


def _feasible_rows(rng, n, p, m, *, active=0.5):
    """Dense rows that a random point meets, a share of the inequalities exactly."""
    z = rng.normal(size=n)
    A, G = rng.normal(size=(p, n)), rng.normal(size=(m, n))
    slack = np.where(rng.random(m) < active, 0.0, rng.random(m))
    return z, {"A": A, "b": A @ z, "G": G, "h": G @ z + slack}


def _covariance(rng, n, rank, *, decay=0.0):
    factors = rng.normal(size=(n, rank)) * 10.0 ** (-decay * np.arange(rank) / max(rank - 1, 1))
    return factors @ factors.T / rank


def ill_conditioned(rng):
    """Eigenvalues of P over ten orders of magnitude."""
    n = int(rng.integers(10, 40))
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    P = (Q * 10.0 ** rng.uniform(-8, 2, n)) @ Q.T
    _, rows = _feasible_rows(rng, n, n // 4, n)
    return QP(
        0.5 * (P + P.T), rng.normal(size=n), **rows, lb=np.full(n, -10.0), ub=np.full(n, 10.0)
    )


def near_singular(rng):
    """P of low rank with a ridge of 1e-9: nearly an LP off its range."""
    n = int(rng.integers(20, 50))
    P = _covariance(rng, n, n // 5) + 1e-9 * np.eye(n)
    z, rows = _feasible_rows(rng, n, 3, n // 2)
    return QP(P, rng.normal(size=n), **rows, lb=np.minimum(z, -1.0), ub=np.maximum(z, 1.0))


def linear(rng):
    """An LP: P = 0, bounded by its box."""
    n = int(rng.integers(10, 60))
    z, rows = _feasible_rows(rng, n, n // 5, n // 2)
    return QP(np.zeros((n, n)), rng.normal(size=n), **rows, lb=z - 1.0, ub=z + 1.0)


def nearly_linear(rng):
    """P = 1e-6 I, the usual remedy for an LP: curvature hardly above the tolerance."""
    n = int(rng.integers(10, 60))
    z, rows = _feasible_rows(rng, n, n // 5, n // 2)
    return QP(1e-6 * np.eye(n), rng.normal(size=n), **rows, lb=z - 1.0, ub=z + 1.0)


def degenerate(rng):
    """Many more rows meet at the solution than there are coordinates, with integer data."""
    n = int(rng.integers(5, 15))
    G = rng.integers(-2, 3, size=(6 * n, n)).astype(float)
    z = rng.integers(-3, 4, size=n).astype(float)
    pull = G[: 2 * n].T @ rng.random(2 * n)
    return QP(np.eye(n), -z - pull, G=G, h=G @ z)


def badly_scaled_rows(rng):
    """Rows of sizes 1e-4 to 1e4 and an objective of 1e5."""
    n = int(rng.integers(10, 40))
    _, rows = _feasible_rows(rng, n, n // 5, n)
    sizes_A, sizes_G = 10.0 ** rng.uniform(-4, 4, n // 5), 10.0 ** rng.uniform(-4, 4, n)
    rows = {
        "A": rows["A"] * sizes_A[:, None],
        "b": rows["b"] * sizes_A,
        "G": rows["G"] * sizes_G[:, None],
        "h": rows["h"] * sizes_G,
    }
    return QP(1e5 * _covariance(rng, n, 2 * n), 1e5 * rng.normal(size=n), **rows)


def badly_scaled_columns(rng):
    """Variables in units that differ by 1e4."""
    n = int(rng.integers(10, 30))
    units = 10.0 ** rng.uniform(-2, 2, n)
    _, rows = _feasible_rows(rng, n, n // 5, n)
    return QP(
        _covariance(rng, n, 2 * n) * np.outer(units, units),
        rng.normal(size=n) * units,
        rows["A"] * units,
        rows["b"],
        rows["G"] * units,
        rows["h"],
    )


def redundant_rows(rng):
    """Every equality and inequality three times, in multiples; A has a third of full rank."""
    n = int(rng.integers(10, 30))
    _, rows = _feasible_rows(rng, n, n // 4, n // 2)
    tripled = {
        name: np.concatenate([value, 2.0 * value, 0.5 * value]) for name, value in rows.items()
    }
    return QP(_covariance(rng, n, 2 * n), rng.normal(size=n), **tripled)


def tiny_and_huge_bounds(rng):
    """Boxes from 1e-6 to 1e6 wide, some coordinates fixed, some free."""
    n = int(rng.integers(10, 40))
    z = rng.normal(size=n)
    width = 10.0 ** rng.uniform(-6, 6, n)
    lb, ub = z - width * rng.random(n), z + width * rng.random(n)
    fixed, free = rng.random(n) < 0.1, rng.random(n) < 0.1
    lb, ub = np.where(fixed, z, lb), np.where(fixed, z, ub)
    lb[free], ub[free & ~fixed] = -np.inf, np.inf
    lb, ub = np.minimum(lb, z), np.maximum(ub, z)
    A = rng.normal(size=(2, n))
    return QP(_covariance(rng, n, 2 * n), 5 * rng.normal(size=n), A, A @ z, lb=lb, ub=ub)


def weakly_active(rng):
    """Half of the coordinates and rows are met by the unconstrained minimum exactly."""
    n = int(rng.integers(10, 40))
    P = _covariance(rng, n, 2 * n) + 0.1 * np.eye(n)
    z = np.where(rng.random(n) < 0.5, 0.0, rng.random(n))
    G = rng.normal(size=(n, n))
    h = G @ z + np.where(rng.random(n) < 0.5, 0.0, rng.random(n))
    return QP(P, -P @ z, G=G, h=h, lb=np.zeros(n))


def portfolio(rng):
    """Daily data: returns of 1e-3, a factor covariance of 1e-4, a budget, caps and sectors."""
    n, k = int(rng.integers(40, 80)), 5
    B = 0.01 * rng.normal(size=(n, k))
    d = np.where(rng.random(n) < 0.05, 0.0, 1e-4 * rng.random(n))
    sectors = (rng.integers(0, 8, n) == np.arange(8)[:, None]).astype(float)
    return QP(
        5 * (B @ B.T + np.diag(d)),
        -1e-3 * rng.normal(size=n),
        np.ones((1, n)),
        [1.0],
        sectors,
        np.full(8, 0.3),
        lb=np.zeros(n),
        ub=np.full(n, 0.1),
    )


def no_interior(rng):
    """Opposite inequalities that leave no interior: what an interior point fears."""
    n = int(rng.integers(8, 25))
    z, rows = _feasible_rows(rng, n, 1, n // 2)
    pairs = rng.normal(size=(3, n))
    G = np.concatenate([rows["G"], pairs, -pairs])
    h = np.concatenate([rows["h"], pairs @ z, -pairs @ z])
    return QP(_covariance(rng, n, 2 * n), rng.normal(size=n), rows["A"], rows["b"], G, h)


KINDS: tuple[Callable[[np.random.Generator], QP], ...] = (
    ill_conditioned,
    near_singular,
    linear,
    nearly_linear,
    degenerate,
    badly_scaled_rows,
    badly_scaled_columns,
    redundant_rows,
    tiny_and_huge_bounds,
    weakly_active,
    portfolio,
    no_interior,
)


def hard_problems() -> dict[str, QP]:
    """All of them by name, feasible and bounded, the same in every run."""
    return {
        f"{kind.__name__} {seed}": kind(np.random.default_rng([seed, index]))
        for index, kind in enumerate(KINDS)
        for seed in SEEDS
    }
