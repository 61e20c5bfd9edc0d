"""Kinds of quadratic and linear programs, each a function from a generator to a known problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .problem import (
    ALL,
    DUAL,
    PRIMAL,
    REFUSED,
    Array,
    Problem,
    Random,
    known,
    orthogonal,
    semidefinite,
    size,
    spread,
    well,
)

_IN_OBJECTIVE = frozenset({"P", "q", "B", "d"})


def _split(rng: Random, total: int, parts: int) -> list[int]:
    """At most ``total`` active constraints, shared out at random."""
    count = int(rng.integers(0, total + 1))
    return [int(k) for k in rng.multinomial(count, np.full(parts, 1 / parts))]


def strictly_convex(rng: Random) -> Problem:
    """P positive definite, rows and bounds, some active."""

    def make() -> Problem:
        n = size(rng)
        p, active, lower, upper = _split(rng, n - 1, 4)
        m = active + int(rng.integers(0, n + 1))
        bounds = rng.random() < 0.6
        return known(
            rng, semidefinite(rng, n, n), rng.normal(size=n),
            A=rng.normal(size=(p, n)), G=rng.normal(size=(m, n)), active=active,
            lower=lower * bounds, upper=upper * bounds, others=rng.random() * bounds,
        )  # fmt: skip

    return well(make)


def singular(rng: Random) -> Problem:
    """P rank deficient, enough active constraints for one solution; or too few, and a face."""
    unique = rng.random() < 0.6

    def make() -> Problem:
        n = size(rng, 3)
        rank = int(rng.integers(1, n))
        fixed = int(rng.integers(n - rank, n)) if unique else int(rng.integers(0, n - rank))
        p, active, lower, upper = (int(k) for k in rng.multinomial(fixed, np.full(4, 0.25)))
        m = active + int(rng.integers(0, n + 1))
        return known(
            rng, semidefinite(rng, n, rank), rng.normal(size=n),
            A=rng.normal(size=(p, n)), G=rng.normal(size=(m, n)), active=active,
            lower=lower, upper=upper, others=0.5, unique=unique,
            smooth=ALL if unique else frozenset(), precise=not unique,
        )  # fmt: skip

    # Where one solution is claimed no singular value may be next to nothing.
    while unique and not (problem := well(make)).regular:
        pass
    return problem if unique else well(make)


def least_squares(rng: Random) -> Problem:
    """½‖Rx − y‖² with the residual as variables: P = diag(0, 1), A = [R, I]."""

    def make() -> Problem:
        columns = int(rng.integers(1, 9))
        rows = columns + int(rng.integers(0, 6))
        n = columns + rows
        P = np.diag(np.repeat([0.0, 1.0], [columns, rows]))
        A = np.hstack([rng.normal(size=(rows, columns)), np.eye(rows)])
        problem = known(rng, P, rng.normal(size=n), A=A)
        # The residual's stationarity is e + ν = 0 where q is 0 on it, as in least squares.
        R, e = A[:, :columns], problem.z[columns:].copy()
        e -= R @ np.linalg.lstsq(R, e, rcond=None)[0]
        z = np.concatenate([problem.z[:columns], e])
        return replace(problem, z=z, b=A @ z, nu=-e, q=np.zeros(n))

    return well(make)


def _vertex(rng: Random, **more: object) -> Problem:
    n = size(rng, 2, 9)
    p, active, lower, upper = (int(k) for k in rng.multinomial(n, np.full(4, 0.25)))
    m = active + int(rng.integers(0, n + 1))
    return known(
        rng, np.zeros((n, n)), rng.normal(size=n), A=rng.normal(size=(p, n)),
        G=rng.normal(size=(m, n)), active=active, lower=lower, upper=upper,
        others=0.5, **more,
    )  # fmt: skip


def lp_vertex(rng: Random) -> Problem:
    """A linear program with one solution, n constraints active."""
    return well(lambda: _vertex(rng))


def lp_degenerate(rng: Random) -> Problem:
    """More rows meet at the vertex than there are variables, with multipliers or without."""

    def make() -> Problem:
        base = _vertex(rng, precise=True)
        extra = int(rng.integers(1, 4))
        rows = rng.normal(size=(extra, base.n))
        lam = np.where(rng.random(extra) < 0.5, 0.0, spread(rng, (0.1, 2.0), extra))
        return _with_rows(base, rows, rows @ base.z, lam, frozenset({"q"}))

    return well(make)


def _with_rows(base: Problem, rows: Array, h: Array, lam: Array, smooth: frozenset[str]) -> Problem:
    """``base`` with rows of G that meet at z with multipliers ``lam``; those of 0 are weak."""
    order = np.random.default_rng(len(h) + base.n).permutation(len(base.h) + len(h))
    return replace(
        base,
        q=base.q - rows.T @ lam,
        G=np.concatenate([base.G, rows])[order],
        h=np.concatenate([base.h, h])[order],
        lam=np.concatenate([base.lam, lam])[order],
        active=np.concatenate([base.active, lam > 0])[order],
        smooth=smooth,
        precise=True,
    )


def lp_face(rng: Random) -> Problem:
    """A linear program whose solutions are a face."""

    def make() -> Problem:
        n = size(rng, 2, 9)
        fixed = int(rng.integers(0, n))
        p, active, lower, upper = (int(k) for k in rng.multinomial(fixed, np.full(4, 0.25)))
        problem = known(
            rng, np.zeros((n, n)), rng.normal(size=n), A=rng.normal(size=(p, n)),
            G=rng.normal(size=(active + 2, n)), active=active, lower=lower, upper=upper,
            others=1.0, unique=False, smooth=frozenset(), precise=True,
        )  # fmt: skip
        lb = np.where(np.isfinite(problem.lb), problem.lb, problem.z - 2.0)
        ub = np.where(np.isfinite(problem.ub), problem.ub, problem.z + 2.0)
        return replace(problem, lb=lb, ub=ub)

    return well(make)


def lp_ridge(rng: Random) -> Problem:
    """A linear program with a ridge of a tenth or so."""

    def make() -> Problem:
        n = size(rng, 2, 9)
        p, active, lower, upper = _split(rng, n, 4)
        return known(
            rng, np.zeros((n, n)), rng.normal(size=n), A=rng.normal(size=(p, n)),
            G=rng.normal(size=(active + 2, n)), active=active, lower=lower, upper=upper,
            others=0.5, ridge=float(spread(rng, (0.05, 0.5), 1)[0]),
        )  # fmt: skip

    return well(make)


def box(rng: Random) -> Problem:
    """Bounds alone; P may be a diagonal."""

    def make() -> Problem:
        n = size(rng)
        lower, upper = _split(rng, n, 2)
        diagonal = rng.random() < 0.3
        P = np.diag(spread(rng, (0.3, 3.0), n)) if diagonal else semidefinite(rng, n, n)
        return known(
            rng, P, rng.normal(size=n), lower=lower, upper=upper, others=rng.random()
        )  # fmt: skip

    return well(make)


def portfolio(rng: Random) -> Problem:
    """Budget, long only, a cap, groups; P = B Bᵀ + diag(d)."""

    def make() -> Problem:
        n = size(rng, 3)
        k = int(rng.integers(0, 4))
        B, d = 0.5 * rng.normal(size=(n, k)), spread(rng, (0.1, 1.0), n)
        held = max(1, int(rng.integers(1, n + 1)))
        capped = int(rng.integers(0, held))
        w = np.zeros(n)
        w[:held] = spread(rng, (0.2, 1.0), held)
        w[:capped] = w[:held].max() * 1.2
        scale = w.sum()
        order = rng.permutation(n)
        w, cap = (w / scale)[order], w.max() / scale if capped else 1.5
        lower, upper = w == 0, w == cap
        lam_lb = np.where(lower, spread(rng, (0.1, 2.0), n), 0.0)
        lam_ub = np.where(upper, spread(rng, (0.1, 2.0), n), 0.0)
        # A group of names for each row, one active where a name inside it may move.
        m = int(rng.integers(0, 3))
        G = (rng.random((m, n)) < 0.5).astype(float)
        slack = spread(rng, (0.05, 0.5), m)
        active = np.arange(m) < int(rng.integers(0, m + 1))
        lam = np.where(active, spread(rng, (0.1, 2.0), m), 0.0)
        A, nu = np.ones((1, n)), rng.normal(size=1)
        P = B @ B.T + np.diag(d)
        q = -(P @ w + A.T @ nu + G.T @ lam - lam_lb + lam_ub)
        problem = Problem(
            P, q, A, A @ w, G, G @ w + np.where(active, 0.0, slack), np.zeros(n), np.full(n, cap),
            w, nu, lam, lam_lb, lam_ub, active, B=B, d=d, smooth=ALL, precise=True,
        )  # fmt: skip
        return problem if _independent(problem) else replace(problem, smooth=_IN_OBJECTIVE)

    return well(make)


def _independent(problem: Problem) -> bool:
    rows = np.array([row for _, _, row in problem.normals]).reshape(-1, problem.n)
    return bool(np.linalg.matrix_rank(rows, tol=1e-8) == len(rows))


def redundant(rng: Random) -> Problem:
    """Rows twice, in multiples, as sums, equalities as inequalities, bounds as rows."""

    def make() -> Problem:
        n = size(rng, 3)
        p, active, lower, upper = _split(rng, n - 1, 4)
        if p + active + lower + upper == 0:
            active = 1
        base = known(
            rng, semidefinite(rng, n, n), rng.normal(size=n), A=rng.normal(size=(p, n)),
            G=rng.normal(size=(active + 2, n)), active=active, lower=lower, upper=upper,
            others=0.5,
        )  # fmt: skip
        A, b, nu = [base.A], [base.b], [base.nu]
        rows: list[Array] = []
        eye = np.eye(n)
        for _ in range(int(rng.integers(1, 4))):
            factor = float(rng.choice([1.0, 2.0, 0.5, spread(rng, (0.2, 3.0), 1)[0]]))
            match int(rng.integers(0, 5)):
                case 0 if active:
                    rows.append(factor * base.G[int(rng.integers(0, active))])
                case 1 if p:
                    sign = float(rng.choice([-1.0, 1.0]))
                    rows.append(sign * factor * base.A[int(rng.integers(0, p))])
                case 2 if p:
                    pick = rng.normal(size=p)
                    A.append((pick @ base.A)[None])
                    b.append(np.array([pick @ base.b]))
                    nu.append(np.zeros(1))
                case 3 if lower:
                    rows.append(-factor * eye[int(rng.choice(np.flatnonzero(base.lower)))])
                case 4 if active > 1:
                    rows.append(spread(rng, (0.3, 2.0), active) @ base.G[:active])
                case _:
                    continue
        # Equalities that fix a coordinate at which there is a bound too.
        base = replace(
            base, A=np.concatenate(A), b=np.concatenate(b), nu=np.concatenate(nu),
            smooth=_IN_OBJECTIVE, precise=True,
        )  # fmt: skip
        if not rows:
            return base
        stacked = np.array(rows)
        lam = spread(rng, (0.05, 1.0), len(rows))
        return _with_rows(base, stacked, stacked @ base.z, lam, _IN_OBJECTIVE)

    return well(make)


def no_interior(rng: Random) -> Problem:
    """Inequalities that leave no interior: rows that add up to 0, caps that add up, lb = ub."""

    def make() -> Problem:
        n = size(rng, 4)
        p, active, lower, upper = _split(rng, n // 2, 4)
        base = known(
            rng, semidefinite(rng, n, n), rng.normal(size=n), A=rng.normal(size=(p, n)),
            G=rng.normal(size=(active + 2, n)), active=active, lower=lower, upper=upper,
            others=0.3, smooth=_IN_OBJECTIVE, precise=True,
        )  # fmt: skip
        way = int(rng.integers(0, 4))
        if way == 0:
            # A budget, and parts that cannot do with less or more.
            cut = int(rng.integers(1, n))
            first = (np.arange(n) < cut).astype(float)
            rows = np.array([first, first - 1.0])
            nu = rng.normal(size=1)
            base = replace(
                base, A=np.concatenate([base.A, np.ones((1, n))]), nu=np.append(base.nu, nu),
                b=np.append(base.b, base.z.sum()), q=base.q - nu,
            )  # fmt: skip
        elif way == 1:
            # Two or three half-spaces that meet only in the plane where all are tight.
            rows = rng.normal(size=(int(rng.integers(1, 3)), n))
            rows = np.concatenate([rows, -spread(rng, (0.5, 2.0), len(rows))[None] @ rows])
        elif way == 2:
            # Caps that add up to the budget: every name is at its cap.
            return _full_caps(rng, n)
        else:
            fixed = np.flatnonzero((base.lower == 0) & (base.upper == 0))
            fixed = fixed[rng.random(len(fixed)) < 0.4]
            lb, ub, q = base.lb.copy(), base.ub.copy(), base.q.copy()
            lb[fixed] = ub[fixed] = base.z[fixed]
            q[fixed] += rng.normal(size=len(fixed))
            return replace(base, lb=lb, ub=ub, q=q)
        lam = spread(rng, (0.1, 1.0), len(rows))
        return _with_rows(base, rows, rows @ base.z, lam, _IN_OBJECTIVE)

    return well(make)


def _full_caps(rng: Random, n: int) -> Problem:
    cap = spread(rng, (0.1, 1.0), n)
    A = np.ones((1, n))
    q = rng.normal(size=n)
    P = semidefinite(rng, n, n)
    none = np.zeros(0)
    slope = P @ cap + q
    nu = np.array([-slope.max() - 0.1])
    return Problem(
        P, q, A, A @ cap, np.zeros((0, n)), none, np.zeros(n), cap, cap, nu, none, np.zeros(n),
        -(slope + nu), none.astype(bool), smooth=_IN_OBJECTIVE, precise=True,
    )  # fmt: skip


def nearly_active(rng: Random) -> Problem:
    """Multipliers and slacks of 1e-5 to 1e-2: a product of 1e-8 is no proof of either."""

    def make() -> Problem:
        n = size(rng)
        p, active, lower, upper = _split(rng, n - 1, 4)
        small = (1e-5, 1e-2)
        return known(
            rng, semidefinite(rng, n, n), rng.normal(size=n), A=rng.normal(size=(p, n)),
            G=rng.normal(size=(active + int(rng.integers(0, n + 1)), n)), active=active,
            lower=lower, upper=upper, others=0.6, duals=small, slacks=small, precise=True,
        )  # fmt: skip

    return well(make)


def zero_solution(rng: Random) -> Problem:
    """The solution is 0: rows and bounds through the origin."""

    def make() -> Problem:
        n = size(rng)
        p, active, lower, upper = _split(rng, n - 1, 4)
        return known(
            rng, semidefinite(rng, n, n), np.zeros(n), A=rng.normal(size=(p, n)),
            G=rng.normal(size=(active + 1, n)), active=active, lower=lower, upper=upper,
            others=0.5,
        )  # fmt: skip

    return well(make)


def primal_infeasible(rng: Random) -> Problem:
    """A non-negative combination of rows and bounds says 0 ≤ −1."""
    base = strictly_convex(rng) if rng.random() < 0.5 else lp_vertex(rng)
    n, k = base.n, int(rng.integers(1, 4))
    rows = rng.normal(size=(k, n))
    last = -spread(rng, (0.5, 2.0), k) @ rows
    gap = float(spread(rng, (0.3, 3.0), 1)[0])
    extra = np.concatenate([rows, last[None]])
    h = extra @ rng.normal(size=n)
    h[-1] -= gap * np.linalg.norm(last)
    if rng.random() < 0.3:
        # The same by equalities.
        return replace(
            base, A=np.concatenate([base.A, extra]), b=np.append(base.b, h),
            nu=np.zeros(len(base.b) + k + 1), expect=PRIMAL, unique=False, smooth=frozenset(),
        )  # fmt: skip
    base = _with_rows(base, extra, h, np.zeros(k + 1), frozenset())
    return replace(base, expect=PRIMAL, unique=False)


def dual_infeasible(rng: Random) -> Problem:
    """A direction without curvature along which the objective falls and no constraint ends it."""
    n = size(rng, 3)
    rank = int(rng.integers(0, n - 1))
    P = semidefinite(rng, n, rank) if rank else np.zeros((n, n))
    kernel = np.linalg.svd(P)[0][:, rank:]
    way = kernel @ rng.normal(size=n - rank)
    way /= np.linalg.norm(way)

    def across(count: int) -> Array:
        rows = rng.normal(size=(count, n))
        return rows - np.outer(rows @ way, way)

    A, m = across(int(rng.integers(0, n - 1))), int(rng.integers(0, 4))
    G = across(m) - spread(rng, (0.1, 1.0), m)[:, None] * way
    base = known(rng, P, rng.normal(size=n), A=A, G=G, smooth=frozenset())
    lb = np.where((way > 0) & (rng.random(n) < 0.5), base.z - 1.0, -np.inf)
    ub = np.where((way < 0) & (rng.random(n) < 0.5), base.z + 1.0, np.inf)
    q = rng.normal(size=n)
    q -= way * (q @ way + float(spread(rng, (0.3, 3.0), 1)[0]))
    return replace(base, q=q, lb=lb, ub=ub, expect=DUAL, unique=False, precise=True)


def indefinite(rng: Random) -> Problem:
    """A negative eigenvalue along which nothing keeps z; the box keeps the problem bounded."""
    n = size(rng)
    values = spread(rng, (0.3, 3.0), n)
    values[: int(rng.integers(1, n + 1))] *= -1
    Q = orthogonal(rng, n) if rng.random() < 0.7 else np.eye(n)
    P = (Q * values) @ Q.T
    box_size = float(spread(rng, (0.5, 3.0), 1)[0])
    base = known(rng, 0.5 * (P + P.T), 0.3 * rng.normal(size=n), smooth=frozenset())
    inside = np.zeros(n) if rng.random() < 0.5 else base.z
    m = int(rng.integers(0, 3))
    return replace(
        base, q=-P @ inside, lb=np.full(n, -box_size - 1), ub=np.full(n, box_size + 1),
        G=rng.normal(size=(m, n)), h=np.full(m, 5.0), lam=np.zeros(m), active=np.zeros(m, bool),
        expect=REFUSED, unique=False,
    )  # fmt: skip


QP_KINDS = {
    kind.__name__: kind
    for kind in (
        strictly_convex,
        singular,
        least_squares,
        lp_vertex,
        lp_degenerate,
        lp_face,
        lp_ridge,
        box,
        portfolio,
        redundant,
        no_interior,
        nearly_active,
        zero_solution,
        primal_infeasible,
        dual_infeasible,
        indefinite,
    )
}
