"""Is an answer right? What is claimed is held against what is known, in natural units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bpqp_portfolio import SolveStatus

from .problem import DUAL, PRIMAL, REFUSED, SOLVED, Array, Problem

SOLUTION, GRADIENT, SINGLE = 1e-6, 1e-4, 1e-5
# A gradient among redundant rows may be shared out in many ways, but not blown up.
_MANY_TIMES = 10.0
_HONEST = (SolveStatus.INACCURATE, SolveStatus.ITERATION_LIMIT)


@dataclass(frozen=True)
class Finding:
    """What is not right: a ``fault``, in words ``told``.

    It is "honest" where the status admits it, "backward" where a solver that was asked for the
    backward QP says that it could not.
    """

    fault: str
    told: str

    @property
    def wrong(self) -> bool:
        return self.fault not in ("honest", "backward")


def judge_status(problem: Problem, status: Any, z: Array) -> Finding | None:
    """A status that claims what is not so."""
    S = SolveStatus
    allowed: dict[str, tuple[Any, ...]] = {
        SOLVED: (S.SOLVED,),
        PRIMAL: (S.PRIMAL_INFEASIBLE,),
        DUAL: (S.DUAL_INFEASIBLE,),
        REFUSED: (S.BAD_DATA,),
    }
    honest: dict[str, tuple[Any, ...]] = {
        SOLVED: _HONEST,
        PRIMAL: (S.ITERATION_LIMIT,),
        DUAL: (S.ITERATION_LIMIT,),
        REFUSED: (S.ITERATION_LIMIT,),
    }
    if status in allowed[problem.expect]:
        return None
    if status in honest[problem.expect]:
        return Finding("honest", status.name)
    return Finding("status", f"{status.name} where {problem.expect} is right")


def judge_z(problem: Problem, z: Array, dtype: torch.dtype = torch.float64) -> Finding | None:
    """A solution that is none: z where it is unique, else its objective and feasibility."""
    tolerance = (SOLUTION if dtype is torch.float64 else SINGLE) * problem.condition
    unit = problem.unit or float(np.abs(problem.z).max()) or 1.0
    if not np.isfinite(z).all():
        return Finding("solution", "not finite")
    if problem.unique:
        error = float(np.abs(z - problem.z).max()) / unit
        if error > tolerance:
            return Finding("solution", f"z is wrong by {error:.1e} (tolerance {tolerance:.0e})")
        return None
    violation = problem.violation(z) / max(unit, float(np.abs(z).max()))
    if violation > tolerance:
        return Finding("solution", f"violates a constraint by {violation:.1e}")
    size = problem.objective_size(problem.z) + abs(problem.objective(problem.z))
    gap = abs(problem.objective(z) - problem.objective(problem.z)) / (size or 1.0)
    if gap > tolerance:
        return Finding("solution", f"the objective is wrong by {gap:.1e}")
    return None


def judge_gradients(
    trial: Any, items: list[Problem], found: dict[str, Array], count: int
) -> Finding | None:
    """Gradients against the exact ones where there are such, and against what must always hold."""
    for name, value in found.items():
        if not np.isfinite(value).all():
            return Finding("gradient", f"not finite in {name}")
    own = [_item(found, i, count, items[0]) for i in range(len(items))]
    tolerance = GRADIENT if trial.dtype is torch.float64 else 100 * SINGLE
    tolerance *= max(1.0, items[0].condition / 100)
    exact = [item.gradients(w) for item, w in zip(items, trial.w, strict=False)]
    unit = max((float(np.abs(v).max(initial=0.0)) for g in exact for v in g.values()), default=0.0)
    unit = max(unit, float(np.abs(trial.w).max()))
    vectors = ("q", "b", "h", "lb", "ub", "g", "d")
    for name in found:
        key = name.split(".")[-1]
        if name not in exact[0]:
            continue
        if key in vectors and name != "d":
            pairs = [(got[name], right[name]) for got, right in zip(own, exact, strict=True)]
        else:
            right = sum(g[name] for g in exact)
            got = found[name].sum(0) if found[name].ndim > right.ndim else found[name]
            if trial.form == "diagonal" and name == "P":
                right = np.diag(right)
                got = found[name].sum(0) if found[name].ndim > 1 else found[name]
            elif trial.layouts.get(name) in ("coo", "csr"):
                right = np.where(getattr(items[0], name) != 0, right, 0.0)
            pairs = [(got, right)]
        for got, right in pairs:
            fault = differs(name, got, right, unit, tolerance)
            if fault is not None:
                return fault
    if items[0].cones:
        return None
    for got, item, w in zip(own, items, trial.w, strict=False):
        fault = _moving(got, item, w, tolerance)
        if fault is not None:
            return fault
    return None


def differs(name: str, got: Array, right: Array, unit: float, tolerance: float) -> Finding | None:
    """A gradient off by more than ``tolerance`` of its size, or of 1 % of ``unit``."""
    size = max(float(np.abs(right).max(initial=0.0)), 1e-2 * unit)
    error = float(np.abs(got - right).max(initial=0.0)) / size
    if np.isfinite(got).all() and error <= tolerance:
        return None
    return Finding("gradient", f"in {name} wrong by {error:.1e}: {_few(got)}, right {_few(right)}")


def _moving(got: dict[str, Array], item: Problem, w: Array, tolerance: float) -> Finding | None:
    """Moving all constraints by v moves z by v, less what the objective's slope then asks for."""
    needed = {"q": True, "b": len(item.b), "h": len(item.h), "lb": item.bounded}
    if any(wanted and name not in got for name, wanted in needed.items()):
        return None
    z, _, largest = item.backward(w)
    moved = item.A.T @ got.get("b", np.zeros(len(item.b)))
    moved = moved + item.G.T @ got.get("h", np.zeros(len(item.h)))
    moved = moved + got.get("lb", 0.0) + got.get("ub", 0.0)
    curvature = item.P + 2 * item.ridge * np.eye(item.n)
    error = float(np.abs(moved - w - curvature @ got["q"]).max())
    unit = max(float(np.abs(w).max()), float(np.abs(z).max()), largest)
    if error > tolerance * unit:
        return Finding("gradient", f"b, h, lb, ub do not move z by what they should: {error:.1e}")
    largest = item.one_sided(w)
    bound = _MANY_TIMES * max(largest, 0.1 * float(np.abs(w).max()))
    for name, rows in (("b", item.A), ("h", item.G), ("lb", None), ("ub", None)):
        if name in got and got[name].size:
            lengths = 1.0 if rows is None else np.linalg.norm(rows, axis=1)
            worst = float(np.abs(got[name] * lengths).max())
            if worst > bound:
                return Finding("gradient", f"in {name} {worst:.1e}, one-sided {largest:.1e}")
    return None


def _item(found: dict[str, Array], i: int, count: int, like: Problem) -> dict[str, Array]:
    """The gradients in item ``i``'s own vectors."""
    if count == 1:
        return found
    shared = ("P", "A", "G", "B", "F", "c")
    return {
        k: v[i] for k, v in found.items()
        if k.split(".")[-1] not in shared and not (k == "d" and like.d is not None)
    }  # fmt: skip


def _few(values: Array) -> str:
    flat = np.asarray(values).reshape(-1)
    return "[" + ", ".join(f"{v:.3g}" for v in flat[:6]) + (", ...]" if len(flat) > 6 else "]")
