"""The KKT system of a cone program on its active set: which cones bind, and the structured solve.

With u = (Fz + g)/‖Fz + g‖ a cone whose dual binds away from its apex is the smooth constraint
‖Fz + g‖ − cᵀz − d ≤ 0 with gradient Fᵀu − c and Hessian Fᵀ(I − uuᵀ)F/‖Fz + g‖ (arXiv:2411.19285,
Section 3.3, there for F = I). At the apex it is the equalities Fz + g = 0 and cᵀz + d = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...problems.cone_groups import ConeGroup
from ...problems.matrices import Array, FactorMatrix, is_sparse, max_abs, to_dense
from ...problems.socp import SOCP, ConePoint, measure_cones
from ...problems.solution import Measured
from ..common.active_set import ActiveSet, active_set
from ..common.kkt import solve_equality_qp

# A dual below this, in its unit, is rounding.
_WEAK = 1e-11
_FLAT = 1e-8
_RESIDUAL = 1e-11
_ROUNDING = 4e-15
# An entry of the Hessian is 0 below this part of the terms that it is the sum of.
_CANCELLED = 1e-14
_REFINEMENTS = 2


@dataclass(frozen=True, eq=False)
class ActiveGroup:
    """How a group of cones binds: ``rows`` (k,) of its c, none of them where it does not.

    At the apex Fz + g = 0 holds as well; elsewhere ``normal`` (r,) is u, ``norm`` is ‖Fz + g‖ and
    ``curvature`` is Στ/‖Fz + g‖.
    """

    group: ConeGroup
    rows: Array
    apex: bool
    normal: Array
    norm: float
    curvature: float

    @property
    def smooth(self) -> bool:
        """Whether it binds away from its apex."""
        return bool(not self.apex and self.rows.any())

    @classmethod
    def on(
        cls, group: ConeGroup, rows: Array, apex: bool, z: Array, tau: Array, w: Array, unit: float
    ) -> ActiveGroup:
        """Where ``rows`` bind, at the apex or not; ``unit`` is that of a dual by that of Fz + g.

        Slack and dual point the same way, u = (Fz + g)/‖Fz + g‖ = −w/‖w‖: u is the direction of
        their difference, in which the error of each counts for as much as the other's. Of a cone
        that is small beside z the slack alone is rounding. So is ‖Fz + g‖, and cz + d is the better
        one where c = 0.
        """
        s1 = group.norm_vector(z)
        norm = float(np.linalg.norm(s1))
        if rows.any():
            head = float(group.heads(z)[rows].min())
            norm = head if head > 0 else norm
        apart = unit * s1 - w if tau.any() else s1
        size = float(np.linalg.norm(apart))
        normal = apart / size if size > 0 else apart
        # ‖w‖ = Στ away from the apex; at that of ‖z‖ ≤ d, where a solver may think it is, nothing
        # determines τ.
        curvature = float(np.linalg.norm(w)) / norm if norm > 0 and rows.any() else 0.0
        return cls(group, rows, bool((apex or size == 0) and rows.any()), normal, norm, curvature)


def active_group(
    group: ConeGroup, z: Array, tau: Array, w: Array, ratio: float, length: float = 1.0
) -> ActiveGroup:
    """Classify one group; ``length`` is the unit of z, ``ratio`` that of the gradient by it.

    A cone binds where its dual exceeds its slack, and is at its apex where ‖w‖ is further below t
    than Fz + g is from 0; everything is divided by the units, so scale does not matter.
    Under strict complementarity exactly one of each pair is zero. A weakly active cone (slack and
    dual both zero up to rounding) does not bind; one with a dual on the boundary at the apex counts
    as there.
    """
    norm = float(np.linalg.norm(group.norm_vector(z)))
    unit = ratio / group.size / group.size
    total = float(tau.sum())
    inside = total - float(np.linalg.norm(w))
    apex = inside >= unit * norm and total > 0
    slack = group.heads(z) - (0.0 if apex else norm)
    rows = tau > unit * (np.maximum(slack, 0.0) + _WEAK * group.size * length)
    return ActiveGroup.on(group, rows, bool(apex or norm == 0.0), z, tau, w, unit)


@dataclass(frozen=True, eq=False)
class Curvature:
    """The Hessian of the Lagrangian: diag(d) + U diag(s) Uᵀ + dense, the last possibly None."""

    d: Array
    U: Array
    s: Array
    dense: Array | None

    def __matmul__(self, z: Array) -> Array:
        out = self.d * z + self.U @ (self.s * (self.U.T @ z))
        return out if self.dense is None else out + self.dense @ z

    def __truediv__(self, number: float) -> Curvature:
        dense = None if self.dense is None else self.dense / number
        return Curvature(self.d / number, self.U, self.s / number, dense)

    def block(self, free: Array) -> Curvature:
        """Its rows and columns ``free``."""
        dense = None if self.dense is None else self.dense[np.ix_(free, free)]
        return Curvature(self.d[free], self.U[free], self.s, dense)

    def to_dense(self) -> Array:
        """As an (n, n) array.

        What is left by rounding where terms cancel is 0: the curvature of a cone without a
        direction to bend in would else be the only one, and be scaled up to size.
        """
        out = (self.U * self.s) @ self.U.T
        terms = np.abs(self.U * self.s) @ np.abs(self.U.T)
        if self.dense is not None:
            out += self.dense
            terms += np.abs(self.dense)
        diagonal = np.diag_indices_from(out)
        out[diagonal] += self.d
        terms[diagonal] += np.abs(self.d)
        return np.where(np.abs(out) > _CANCELLED * terms, out, 0.0)


def _straight(H: Curvature) -> Curvature:
    """The diagonal of ``H`` alone."""
    return Curvature(H.d, H.U[:, :0], H.s[:0], None)


# H (k, k), g (k,), C (p, k) and c (p,) to x and y, as solve_equality_qp.
Solve = Callable[[Array, Array, Array, Array], tuple[Array, Array]]


def _densely(by: Solve) -> Callable[[Curvature, Array, Array, Array], tuple[Array, Array]]:
    return lambda H, g, C, c: by(H.to_dense(), g, C, c)


@dataclass(frozen=True, eq=False)
class ActiveSystem:
    """The active constraints of a cone program at a point, and the Hessian of its Lagrangian.

    ``rows`` are the gradients of, in this order, A, the active rows of G, and for each group its
    active rows (Fᵀu − c, or c at the apex) and then, at the apex, F.
    """

    problem: SOCP
    linear: ActiveSet
    groups: tuple[ActiveGroup, ...]
    hessian: Curvature
    rows: Array

    @classmethod
    def at(
        cls, problem: SOCP, point: ConePoint, known: tuple[ActiveGroup, ...] | None = None
    ) -> ActiveSystem:
        """The system at ``point``; ``known`` says how its groups bind."""
        if known is not None and not (problem.qp.m or problem.bounded):
            return cls.of(problem, _no_linear(problem), known)
        at = measure_cones(problem, point)
        linear = _active_linear(problem, point, at)
        if known is not None:
            return cls.of(problem, linear, known)
        ratio, length = float(at.gradient / at.length), float(at.length)
        groups = tuple(
            active_group(group, point.z, tau, w, ratio, length)
            for group, (tau, w) in zip(problem.groups, point.duals, strict=True)
        )
        return cls.of(problem, linear, groups)

    @classmethod
    def of(cls, problem: SOCP, linear: ActiveSet, groups: Sequence[ActiveGroup]) -> ActiveSystem:
        """The system of given active constraints."""
        qp = problem.qp
        rows = []
        if qp.p:
            rows.append(to_dense(qp.A))
        if linear.rows.any():
            rows.append(to_dense(qp.G[linear.rows]))
        for a in groups:
            if a.smooth:
                rows.append(a.group.pull(a.normal) - a.group.c[a.rows])
            elif a.apex:
                rows.append(a.group.c[a.rows])
                F = a.group.F
                rows.append(np.eye(qp.n) if F is None else to_dense(F))
        stacked = np.concatenate(rows) if rows else np.zeros((0, qp.n))
        return cls(problem, linear, tuple(groups), _curvature(problem, groups), stacked)

    @property
    def key(self) -> bytes:
        """Which constraints are active, as a value that can be compared."""
        apexes = np.array([a.apex for a in self.groups])
        return self.linear.key + np.concatenate([apexes, *(a.rows for a in self.groups)]).tobytes()

    @property
    def bent(self) -> bool:
        """Whether a cone binds away from its apex, so that one step need not be the last."""
        return any(a.smooth for a in self.groups)

    def split(self, values: Array) -> tuple[Array, Array, list[Array]]:
        """A vector over ``rows`` as its parts: of A (p,), of G (m,), and of each group."""
        qp = self.problem.qp
        lam = np.zeros(qp.m)
        count = int(np.count_nonzero(self.linear.rows))
        lam[self.linear.rows] = values[qp.p : qp.p + count]
        parts, start = [], qp.p + count
        for a in self.groups:
            stop = start + int(np.count_nonzero(a.rows)) + (a.group.r if a.apex else 0)
            parts.append(values[start:stop])
            start = stop
        return values[: qp.p], lam, parts

    @property
    def _ball(self) -> bool:
        """Whether the only bent constraint is ‖Fz + g‖ ≤ d, with a diagonal FᵀF."""
        if len(self.groups) != 1 or not self.groups[0].smooth or self.hessian.dense is not None:
            return False
        alone = len(self.groups[0].rows) == 1 and not self.groups[0].group.headed
        return alone and self.hessian.U.shape[1] == 1

    def solve(
        self, z: Array, gradient: Array, missing: Array, by: Solve | None = None
    ) -> tuple[Array, Array]:
        """min ½ xᵀHx + gradientᵀx s.t. rows x = missing, with x = z on active bounds.

        Returns x (n,) and the multipliers of the rows; ``by`` is another method for this QP.
        """
        # In the units of the problem, of which a Hessian of zero tells nothing.
        units = self.problem.scaling
        unit = units.gradient / units.length
        x, y = self._in_units(unit * z, gradient, unit * missing, self.hessian / unit, by)
        return x / unit, y

    def _in_units(
        self, z: Array, gradient: Array, missing: Array, H: Curvature, by: Solve | None
    ) -> tuple[Array, Array]:
        """:meth:`solve` with the Hessian ``H``."""
        solve = solve_curved if by is None else _densely(by)
        free = self.linear.free
        if not self.problem.bounded or free.all():
            if by is None and self._ball:
                # The Hessian's −κ uuᵀ is along the row uᵀx = missing: a part of its multiplier.
                x, y = solve(_straight(H), gradient, self.rows, missing)
                y[-1] -= H.s[0] * missing[-1]
                return x, y
            return solve(H, gradient, self.rows, missing)
        z = np.where(free, 0.0, z)
        x, y = solve(
            H.block(free), (gradient + H @ z)[free], self.rows[:, free], missing - self.rows @ z
        )
        z[free] = x
        return z, y


def _active_linear(problem: SOCP, point: ConePoint, measured: Measured) -> ActiveSet:
    if problem.qp.m or problem.bounded:
        return active_set(problem.qp, point, measured)  # type: ignore[arg-type]
    return _no_linear(problem)


def _no_linear(problem: SOCP) -> ActiveSet:
    none = np.zeros(problem.n, dtype=bool)
    return ActiveSet(np.zeros(problem.qp.m, dtype=bool), none, none)


def _curvature(problem: SOCP, groups: Sequence[ActiveGroup]) -> Curvature:
    P, n = problem.qp.P, problem.n
    if isinstance(P, FactorMatrix):
        d, columns, signs, dense = P.d.copy(), [P.B], [np.ones(P.B.shape[1])], None
    else:
        d, columns, signs, dense = np.zeros(n), [], [], to_dense(P)
    for a in groups:
        if not a.smooth:
            continue
        F, k = a.group.F, a.curvature
        if F is None:
            d += k
        elif is_sparse(F) and (np.diff(F.indptr) <= 1).all():
            # One entry in each row: FᵀF is diagonal.
            np.add.at(d, F.indices, k * F.data**2)
        elif dense is None and 2 * a.group.r <= n:
            columns.append(to_dense(F).T)
            signs.append(np.full(a.group.r, k))
        else:
            square = F.T @ F
            dense = k * to_dense(square) + (0.0 if dense is None else dense)
        columns.append(a.group.pull(a.normal)[:, None])
        signs.append(np.array([-k]))
    U = np.concatenate(columns, axis=1) if columns else np.zeros((n, 0))
    s = np.concatenate(signs) if signs else np.zeros(0)
    return Curvature(d, U, s, dense)


def solve_curved(H: Curvature, g: Array, C: Array, c: Array) -> tuple[Array, Array]:
    """:func:`~bpqp_portfolio.solvers.common.kkt.solve_equality_qp`, in O(n k²) where H has low
    rank.

    With y = s Uᵀx as unknowns beside x, the diagonal d is eliminated and a symmetric system of
    the size of U's columns and C's rows is left; negative s do no harm. Where d is not positive,
    or the system turns out singular, the dense solve answers.
    """
    n, k = H.U.shape
    if n and H.dense is None and 2 * (k + len(C)) <= n and H.d.min() > _FLAT * H.d.max():
        found = _low_rank(H, g, C, c)
        if found is not None:
            return found
    return solve_equality_qp(H.to_dense(), g, C, c)


def _low_rank(H: Curvature, g: Array, C: Array, c: Array) -> tuple[Array, Array] | None:
    k, d = len(H.s), H.d
    B = np.concatenate([H.U.T, C]) if k else C
    weighted = B / d
    M = weighted @ B.T
    # Rows and columns to unit size, so that rounding is judged relative to each. The diagonal with
    # 1/s may cancel: on a ball it is zero.
    size = M.diagonal().copy()
    if not (H.s.all() and size.all()):
        return None
    if k:
        inner = 1.0 / H.s
        M[np.arange(k), np.arange(k)] += inner
        size[:k] = np.maximum(size[:k], np.abs(inner))
    unit = 1.0 / np.sqrt(size)
    try:
        small = len(M) == 1
        inverse = 1.0 / M if small else np.linalg.inv(M * unit * unit[:, None])
        inverse = inverse if small else inverse * unit * unit[:, None]
    except np.linalg.LinAlgError:
        return None
    # Solution (x, y) of d x + Bᵀy = −g, B x − (y/s, 0) = rhs.
    rhs = np.concatenate([np.zeros(k), c]) if k else c
    y = inverse @ (-(weighted @ g) - rhs)
    x = -g / d - y @ weighted
    scale_g = max_abs(g)
    for left in reversed(range(_REFINEMENTS + 1)):
        bent, turned = d * x, y @ B
        first, second = -g - bent - turned, rhs - B @ x
        if k:
            second[:k] += inner * y[:k]
        # Both equations are differences of terms of these sizes.
        terms = max(scale_g, max_abs(bent), max_abs(turned))
        error = max_abs(first) / (terms or 1.0)
        if len(rhs):
            moves = _moves(B, x, g, d, rhs, inner * y[:k] if k else y[:0])
            error = max(error, max_abs(second / moves))
        if error <= _ROUNDING or not left:
            break
        dy = inverse @ (weighted @ first - second)
        x, y = x + first / d - dy @ weighted, y + dy
    return (x, y[k:]) if error <= _RESIDUAL else None


def _moves(B: Array, x: Array, g: Array, d: Array, rhs: Array, inner: Array) -> Array:
    """The size of the terms of B x − (inner, 0) = rhs, and 1 where all are zero."""
    moves = np.abs(B).sum(1) * max(max_abs(x), max_abs(g / d)) + np.abs(rhs)
    moves[: len(inner)] += np.abs(inner)
    return np.where(moves > 0, moves, 1.0)
