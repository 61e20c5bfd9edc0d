"""Kinds of second-order cone programs, each a function from a generator to a known problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .problem import (
    DUAL,
    PRIMAL,
    Array,
    Cone,
    Problem,
    Random,
    known,
    semidefinite,
    size,
    spread,
    well,
)


def _tight(rng: Random, F: Array | None, z: Array, g: Array, c: Array) -> Cone:
    """An active cone with a positive multiplier."""
    t = float(np.linalg.norm((z if F is None else F @ z) + g))
    return Cone(F, g, c, t - float(c @ z), tau=float(spread(rng, (0.1, 2.0), 1)[0]))


def _loose(rng: Random, F: Array | None, z: Array, g: Array, c: Array) -> Cone:
    cone = _tight(rng, F, z, g, c)
    return replace(cone, d=cone.d + float(spread(rng, (0.1, 2.0), 1)[0]), tau=0.0)


def _apex(rng: Random, F: Array, z: Array, c: Array) -> Cone:
    """A cone at its apex, its multiplier inside the dual cone."""
    tau = float(spread(rng, (0.1, 2.0), 1)[0])
    w = rng.normal(size=len(F))
    w *= tau * rng.uniform(0.0, 0.9) / np.linalg.norm(w)
    return Cone(F, -F @ z, c, -float(c @ z), tau=tau, w=w)


def _heading(rng: Random, n: int) -> Array:
    """c (n,), zero in half of the draws."""
    return rng.normal(size=n) * (0.4 / n**0.5) * (rng.random() < 0.5)


def ball(rng: Random) -> Problem:
    """min qᵀz, ‖z − a‖ ≤ r or ‖Fz + g‖ ≤ r, with r of 1e-8 to 10."""

    def make() -> Problem:
        n = size(rng, 2, 8)
        r = float(spread(rng, (1e-8, 10.0), 1)[0]) if rng.random() < 0.6 else 1.0
        F = None if rng.random() < 0.5 else np.eye(n) + 0.5 * rng.normal(size=(n, n)) / n**0.5
        z, u = rng.normal(size=n), rng.normal(size=n)
        push = z if F is None else F @ z
        # The centre at 0 in some: then r is the only size there is.
        g = r * u / np.linalg.norm(u) - push
        if rng.random() < 0.3:
            z = z * r / np.linalg.norm(push)
            g = np.zeros(n)
        cone = _tight(rng, F, z, g, np.zeros(n))
        return known(rng, np.zeros((n, n)), z, cones=(cone,))

    return well(make)


def norm_prox(rng: Random) -> Problem:
    """min ½‖z − p‖² + λ‖z‖ by a cone, ‖p‖ near λ in half of the draws."""
    n = size(rng, 2, 8)
    p = rng.normal(size=n)
    p /= np.linalg.norm(p)
    gap = float(spread(rng, (1e-4, 0.5), 1)[0]) * float(rng.choice([-1.0, 1.0]))
    lam = 1.0 - gap
    z = gap * p if gap > 0 else np.zeros(n)
    t = float(np.linalg.norm(z))
    F = np.hstack([np.eye(n), np.zeros((n, 1))])
    c, x = np.eye(n + 1)[n], np.append(z, t)
    cone = Cone(F, np.zeros(n), c, 0.0, tau=lam, w=None if gap > 0 else p.copy())
    problem = known(rng, np.diag(np.append(np.ones(n), 0.0)), x, cones=(cone,))
    return replace(problem, q=np.append(-p, lam), unit=max(abs(gap), 0.01))


def cones(rng: Random) -> Problem:
    """Several cones, active, inactive and at the apex, among rows and bounds."""

    def make() -> Problem:
        n = size(rng, 3, 9)
        z = rng.normal(size=n)
        made = []
        for _ in range(int(rng.integers(1, 4))):
            r = int(rng.integers(1, n + 1))
            F = rng.normal(size=(r, n))
            way = rng.random()
            if way < 0.5:
                made.append(_tight(rng, F, z, rng.normal(size=r), _heading(rng, n)))
            elif way < 0.75 or r > n - 2:
                made.append(_loose(rng, F, z, rng.normal(size=r), _heading(rng, n)))
            else:
                made.append(_apex(rng, F, z, rng.normal(size=n)))
        return _among_rows(rng, n, z, tuple(made))

    return well(make)


def _among_rows(rng: Random, n: int, z: Array, made: tuple[Cone, ...]) -> Problem:
    """Cones with rows and bounds; P of any rank."""
    rank = int(rng.choice([0, n // 2, n]))
    P = semidefinite(rng, n, rank) if rank else np.zeros((n, n))
    p, active, lower, upper = (int(k) for k in rng.multinomial(int(rng.integers(0, n)), [0.25] * 4))
    problem = known(
        rng, P, z, A=rng.normal(size=(p, n)), G=rng.normal(size=(active + 2, n)),
        active=active, lower=lower, upper=upper, others=0.4, cones=made,
    )  # fmt: skip
    return problem if problem.regular else replace(problem, unique=False)


def robust_lp(rng: Random) -> Problem:
    """aᵢᵀz + κ‖z‖ ≤ bᵢ: cones that share their norm, one or two of them active."""

    def make() -> Problem:
        n = size(rng, 3, 8)
        z = rng.normal(size=n)
        kappa = float(spread(rng, (0.1, 1.0), 1)[0])
        F = None if rng.random() < 0.5 else kappa * np.eye(n)
        zero = np.zeros(n)
        heads = rng.normal(size=(int(rng.integers(2, 5)), n))
        tight = int(rng.integers(1, 3))
        made = [(_tight if i < tight else _loose)(rng, F, z, zero, -a) for i, a in enumerate(heads)]
        problem = known(rng, np.zeros((n, n)), z, others=0.3, cones=tuple(made))
        return problem if problem.regular else replace(problem, unique=False)

    return well(make)


def low_rank_cone(rng: Random) -> Problem:
    """F of rank 1 to 3, so that the cone curves in few directions or none."""

    def make() -> Problem:
        n = size(rng, 3, 8)
        z = rng.normal(size=n)
        made = []
        for _ in range(int(rng.integers(1, 3))):
            rank, r = int(rng.integers(1, 3)), int(rng.integers(1, 4))
            F = rng.normal(size=(r, rank)) @ rng.normal(size=(rank, n))
            # In F's range in half of the draws: then rank 1 is |fᵀz + g|, without curvature.
            g = F @ rng.normal(size=n) if rng.random() < 0.5 else rng.normal(size=r)
            made.append(_tight(rng, F, z, g, _heading(rng, n)))
        return _among_rows(rng, n, z, tuple(made))

    return well(make)


def cone_vertex(rng: Random) -> Problem:
    """min qᵀz at a vertex of bounds, rows and |fᵀz + g| ≤ cᵀz + d: no direction is free."""

    def make() -> Problem:
        n = size(rng, 2, 6)
        z = rng.normal(size=n)
        F = rng.normal(size=(1, n)) if rng.random() < 0.5 else (
            rng.normal(size=(2, 1)) @ rng.normal(size=(1, n))
        )  # fmt: skip
        cone = _tight(rng, F, z, F @ rng.normal(size=n), _heading(rng, n))
        active, lower, upper = (int(k) for k in rng.multinomial(n - 1, [1 / 3] * 3))
        return known(
            rng, np.zeros((n, n)), z, G=rng.normal(size=(active + 1, n)), active=active,
            lower=lower, upper=upper, others=0.5, cones=(cone,),
        )  # fmt: skip

    return well(make)


def cone_infeasible(rng: Random) -> Problem:
    """A ball and a half-space, or two balls, that do not meet."""
    n = size(rng, 2, 8)
    centre, u = rng.normal(size=n), rng.normal(size=n)
    u /= np.linalg.norm(u)
    r, gap = (float(v) for v in spread(rng, (0.2, 2.0), 2))
    zero = np.zeros(n)
    first = Cone(None, -centre, zero, r)
    base = known(rng, np.zeros((n, n)), centre, cones=(first,), smooth=frozenset())
    base = replace(base, q=rng.normal(size=n), expect=PRIMAL, unique=False, precise=True)
    if rng.random() < 0.5:
        away = Cone(None, -(centre + u * (r + gap + 0.5)), zero, 0.5)
        return replace(base, cones=(first, away))
    row = np.array([-(u @ centre + r + gap)])
    none = np.zeros(1)
    return replace(base, G=-u[None], h=row, lam=none, active=none.astype(bool))


def cone_unbounded(rng: Random) -> Problem:
    """‖Fz + g‖ ≤ cᵀz + d has directions in which the objective falls for ever."""
    n = size(rng, 2, 8)
    way = rng.normal(size=n)
    way /= np.linalg.norm(way)
    F = rng.normal(size=(int(rng.integers(1, n + 1)), n))
    c = rng.normal(size=n)
    c += way * (1.5 * np.linalg.norm(F @ way) + 0.2 - c @ way)
    z = rng.normal(size=n)
    cone = replace(_loose(rng, F, z, rng.normal(size=len(F)), c), tau=0.0)
    q = rng.normal(size=n)
    q -= way * (q @ way + float(spread(rng, (0.3, 2.0), 1)[0]))
    base = known(rng, np.zeros((n, n)), z, cones=(cone,), smooth=frozenset())
    return replace(base, q=q, expect=DUAL, unique=False, precise=True)


CONE_KINDS = {
    kind.__name__: kind
    for kind in (
        ball,
        norm_prox,
        cones,
        robust_lp,
        low_rank_cone,
        cone_vertex,
        cone_infeasible,
        cone_unbounded,
    )
}
