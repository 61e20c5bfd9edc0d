"""Small QPs whose solutions are known in closed form, plain and degenerate, to judge solvers by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .matrices import Array
from .qp import QP


@dataclass(frozen=True, eq=False)
class ReferenceProblem:
    """A QP with what is known of its solution.

    ``objective`` is the optimal value; ``z`` (n,) the minimiser, ``nu`` and ``lam`` the duals, each
    None where it is not unique; ``why`` says what the problem tests.
    """

    name: str
    problem: QP
    objective: float
    why: str
    z: Array | None = None
    nu: Array | None = None
    lam: Array | None = None


def reference_problems() -> tuple[ReferenceProblem, ...]:
    """All reference problems, in an order that does not change."""
    return _regular() + _degenerate() + _linear() + _scaled()


def _reference(
    name: str, why: str, problem: QP, z: Any = None, *, objective: float | None = None, **duals: Any
) -> ReferenceProblem:
    known = {key: np.asarray(value, dtype=float) for key, value in duals.items()}
    if z is not None:
        known["z"] = np.asarray(z, dtype=float)
    value = problem.objective(known["z"]) if objective is None else objective
    return ReferenceProblem(name, problem, value, why, **known)


_EYE2, _EYE3, _ONES3 = np.eye(2), np.eye(3), np.ones((1, 3))
_SIMPLEX: dict[str, Any] = {"A": _ONES3, "b": [1.0], "lb": np.zeros(3)}


def _regular() -> tuple[ReferenceProblem, ...]:
    """Strictly convex, with independent active rows: one solution and one set of duals."""
    return (
        _reference(
            "unconstrained",
            "no constraint at all: z = −P⁻¹q",
            QP([[2.0, 0.0], [0.0, 4.0]], [-2.0, 4.0]),
            [1.0, -1.0],
        ),
        _reference(
            "equality",
            "least norm on 1ᵀz = 1: z = 1/n",
            QP(_EYE3, np.zeros(3), _ONES3, [1.0]),
            np.full(3, 1 / 3),
            nu=[-1 / 3],
        ),
        _reference(
            "inequality",
            "projection of (2, 2) on z₁ + z₂ ≤ 2",
            QP(_EYE2, [-2.0, -2.0], G=[[1.0, 1.0]], h=[2.0]),
            [1.0, 1.0],
            lam=[1.0],
        ),
        _reference(
            "inactive inequality",
            "an empty active set",
            QP(_EYE2, [-0.5, -0.5], G=[[1.0, 1.0]], h=[2.0]),
            [0.5, 0.5],
            lam=[0.0],
        ),
        _reference(
            "box",
            "separable: z = clip(−q/d, lb, ub)",
            QP(np.diag([1.0, 2.0, 4.0]), [-3.0, 1.0, 8.0], lb=[-1.0] * 3, ub=[1.0] * 3),
            [1.0, -0.5, -1.0],
        ),
        _reference(
            "simplex",
            "projection of (0.9, 0.4, −0.3) on the simplex: the threshold is 0.15",
            QP(_EYE3, [-0.9, -0.4, 0.3], **_SIMPLEX),
            [0.75, 0.25, 0.0],
            nu=[0.15],
        ),
        _reference(
            "capped simplex",
            "two names fill the budget at their cap, so the budget's dual is not unique",
            QP(_EYE3, [-2.0, -1.0, 0.0], **_SIMPLEX, ub=[0.5] * 3),
            [0.5, 0.5, 0.0],
        ),
        _reference(
            "correlated",
            "coupled variables under a budget: z = P⁻¹1 / 1ᵀP⁻¹1",
            QP([[2.0, 1.0], [1.0, 3.0]], [0.0, 0.0], [[1.0, 1.0]], [1.0]),
            [2 / 3, 1 / 3],
            nu=[-5 / 3],
        ),
    )


def _degenerate() -> tuple[ReferenceProblem, ...]:
    """Dependent, weakly active or empty rows, and points without a free coordinate."""
    return (
        _reference(
            "redundant equalities",
            "the same equality twice: rank-deficient A, duals not unique",
            QP(_EYE3, np.zeros(3), [[1.0] * 3, [2.0] * 3], [1.0, 2.0]),
            np.full(3, 1 / 3),
        ),
        _reference(
            "redundant inequalities",
            "the same active row twice",
            QP(_EYE2, [-2.0, -2.0], G=[[1.0, 1.0], [3.0, 3.0]], h=[2.0, 6.0]),
            [1.0, 1.0],
        ),
        _reference(
            "weakly active",
            "minimum exactly on a bound: slack and dual are both zero",
            QP(_EYE2, [0.0, -1.0], lb=[0.0, 0.0]),
            [0.0, 1.0],
        ),
        _reference(
            "all at bounds",
            "no free coordinate",
            QP(_EYE3, [-9.0, 9.0, -9.0], lb=[-1.0] * 3, ub=[1.0] * 3),
            [1.0, -1.0, 1.0],
        ),
        _reference(
            "zero row",
            "an equality 0 = 0",
            QP(_EYE2, [-1.0, -1.0], [[0.0, 0.0]], [0.0]),
            [1.0, 1.0],
        ),
        _reference(
            "fixed coordinates",
            "lb = ub pins two of three",
            QP(_EYE3, [0.0, 0.0, -5.0], lb=[2.0, -3.0, -np.inf], ub=[2.0, -3.0, np.inf]),
            [2.0, -3.0, 5.0],
        ),
    )


def _linear() -> tuple[ReferenceProblem, ...]:
    """Objectives that are linear, wholly or along a direction."""
    return (
        _reference(
            "linear",
            "P = 0: a vertex of the simplex",
            QP(np.zeros((3, 3)), [3.0, 1.0, 2.0], **_SIMPLEX),
            [0.0, 1.0, 0.0],
        ),
        _reference(
            "linear with rows",
            "P = 0 and general rows: maximise z₁ + z₂, z₁ + 2z₂ ≤ 4, 3z₁ + z₂ ≤ 6, z ≥ 0",
            QP(
                np.zeros((2, 2)),
                [-1.0, -1.0],
                G=[[1.0, 2.0], [3.0, 1.0]],
                h=[4.0, 6.0],
                lb=np.zeros(2),
            ),
            [1.6, 1.2],
            lam=[0.4, 0.2],
        ),
        _reference(
            "flat direction",
            "P is zero along z₂, the constraints make it unique",
            QP([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.5], [[1.0, 1.0]], [1.0], lb=np.zeros(2)),
            [0.5, 0.5],
            nu=[-0.5],
        ),
        _reference(
            "not unique",
            "a whole face is optimal; the value is still known",
            QP(np.zeros((3, 3)), [1.0, 1.0, 2.0], **_SIMPLEX),
            objective=1.0,
        ),
    )


def _scaled() -> tuple[ReferenceProblem, ...]:
    """Data of very small and very large size."""
    return (
        _reference(
            "daily scale",
            "variances of 1e-4 and returns of 1e-3, as daily data have: inverse-variance weights",
            QP(np.diag([1e-4, 2e-4, 4e-4]), np.full(3, -1e-3), _ONES3, [1.0], lb=np.zeros(3)),
            np.array([4.0, 2.0, 1.0]) / 7,
        ),
        _reference(
            "badly scaled rows",
            "rows of size 1e-5 and 1e5 and an objective of 1e6",
            QP(1e6 * _EYE2, [-2e6, -2e6], [[1e-5, -1e-5]], [0.0], G=[[1e5, 1e5]], h=[2e5]),
            [1.0, 1.0],
            lam=[10.0],
        ),
    )
