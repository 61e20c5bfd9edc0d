"""The arguments of ``factor_qp``: read, broadcast, and checked by name, day and asset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProblemError, SolverError
from ..problems.solution import SolveStatus
from ..solvers.factor.problem import FactorQP, FactorSolution
from .items import expect_shape, float_shape

# So many failed days are shown in an error.
_SHOWN = 5


def read_problem(
    q: Tensor,
    loadings: Tensor,
    specific: Tensor | float,
    lb: Tensor | float,
    ub: Tensor | float,
    budget: Tensor | float | None,
    A: Tensor | None,
    b: Tensor | float | None,
    G: Tensor | None,
    h: Tensor | float | None,
    cost: Tensor | float | None,
    reference: Tensor | float | None,
    mask: Tensor | None,
) -> FactorQP:
    """The problem in float64, everything in its full shape; see :func:`~.factor.factor_qp`.

    Raises
    ------
    ProblemError
        Shapes that do not match; a matrix without its values, or these without it.
    """
    float_shape("q", q)
    float_shape("loadings", loadings)
    expect_shape("q", q, "T n", {})
    sizes = {"T": q.shape[0], "n": q.shape[1]}
    expect_shape("loadings", loadings, "T n k", sizes)
    if mask is None:
        mask = torch.ones_like(q, dtype=torch.bool)
    expect_shape("mask", mask, "T n", sizes)
    if mask.dtype != torch.bool:
        raise ProblemError(f"mask: expected true and false, got {mask.dtype}.")
    like = q.double()
    A, values_A = _rows(A, b, like, ("A", "b"))
    G, values_G = _rows(G, h, like, ("G", "h"))
    trades = cost is not None
    return FactorQP(
        q=like,
        loadings=loadings.double(),
        d=_broadcast(specific, like, "specific"),
        lb=_broadcast(lb, like, "lb"),
        ub=_broadcast(ub, like, "ub"),
        mask=mask,
        budget=None if budget is None else _broadcast(budget, like.new_empty(len(q)), "budget"),
        A=A,
        b=values_A,
        G=G,
        h=values_G,
        cost=_broadcast(cost, like, "cost") if cost is not None else None,
        reference=_broadcast(0.0 if reference is None else reference, like, "reference")
        if trades
        else None,
    )


def _broadcast(value: Tensor | float, like: Tensor, name: str) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    try:
        return value.expand(like.shape) if value.ndim else value.repeat(like.shape)
    except RuntimeError:
        raise ProblemError(
            f"{name}: expected a shape that broadcasts to {tuple(like.shape)}, got "
            f"{tuple(value.shape)}."
        ) from None


def _rows(
    matrix: Tensor | None, values: Tensor | float | None, like: Tensor, names: tuple[str, str]
) -> tuple[Tensor | None, Tensor | None]:
    """A matrix (T, p, n) and its values (T, p), from shapes that broadcast to these."""
    if matrix is None and values is None:
        return None, None
    if matrix is None or values is None:
        raise ProblemError(f"{names[0]} and {names[1]}: give both or neither.")
    matrix = torch.as_tensor(matrix, dtype=torch.float64, device=like.device)
    if matrix.ndim < 2:
        raise ProblemError(f"{names[0]}: expected (T, rows, n), got {tuple(matrix.shape)}.")
    shape = (len(like), matrix.shape[-2], like.shape[1])
    matrix = _broadcast(matrix, like.new_empty(shape), names[0])
    return matrix, _broadcast(values, like.new_empty(shape[:2]), names[1])


def without_unlimited(problem: FactorQP) -> tuple[FactorQP, Tensor | None]:
    """The problem with 0ᵀw ≤ 1 for rows whose h is plus infinity, and which those are (T, m)."""
    G, h = problem.G, problem.h
    if G is None or h is None or not bool((h == torch.inf).any()):
        return problem, None
    unlimited = h == torch.inf
    G, h = torch.where(unlimited.unsqueeze(-1), 0.0, G), torch.where(unlimited, 1.0, h)
    return replace(problem, G=G, h=h), unlimited


def check_initial_point(start: FactorSolution | Tensor | None, problem: FactorQP) -> None:
    """Refuse a start whose shapes are not those of ``problem``.

    Raises
    ------
    ProblemError
        Says what was expected.
    """
    if start is None:
        return
    T, k = len(problem.q), problem.loadings.shape[-1]
    x = start if isinstance(start, Tensor) else start.x
    expect_shape("initial_point", x, "T k", {"T": T, "k": k})
    if isinstance(start, FactorSolution):
        wanted = problem.q.shape[1], *_row_counts(problem)
        sizes = start.w.shape[-1], start.nu_rows.shape[-1], start.lam.shape[-1]
        if sizes != wanted:
            raise ProblemError(
                f"initial_point has {sizes} names, equalities and inequalities; expected {wanted}."
            )


def _row_counts(problem: FactorQP) -> tuple[int, int]:
    """p and m."""
    p, m = (0 if M is None else M.shape[-2] for M in (problem.A, problem.G))
    return p, m


def bad_days(problem: FactorQP, raises: bool) -> tuple[Tensor, Any]:
    """Days (T,) with bad numbers, and what is wrong with each in words, (T,) or "" for all.

    With ``raises`` it is an error that names argument, day and name.

    Raises
    ------
    ProblemError
        The first bad value, and how many there are.
    """
    mask = problem.mask
    given = {
        "specific" if name == "d" else name: value.detach()
        for name, value in problem.parameters.items()
        if value is not None
    }
    if bool(_all_good(given, mask)):
        return torch.zeros_like(mask[:, 0]), ""
    messages = np.full(len(mask), "", dtype=object)
    bad = torch.zeros_like(mask[:, 0])
    for name, wrong in _checks(given).items():
        if name in ("budget", "b", "h"):
            days = wrong if wrong.ndim == 1 else wrong.any(-1)
            where, place = torch.nonzero(days), "value for day {}"
        else:
            inside = wrong & mask
            days = inside.any(-1)
            where, place = torch.nonzero(inside), "value for name {1} of day {0}"
        if raises and bool(days.any()):
            text = place.format(*where[0].tolist())
            raise ProblemError(f"{name}: bad {text} ({len(where)} in all).")
        for day in torch.nonzero(days & ~bad).flatten().tolist():
            at = where[where[:, 0] == day][0].tolist()
            messages[day] = f"{name}: bad {place.format(*at)}."
        bad |= days
    empty = torch.nonzero(~mask.any(-1))
    if raises and len(empty):
        raise ProblemError(f"mask: day {int(empty[0])} has no name ({len(empty)} days in all).")
    for day in empty.flatten().tolist():
        messages[day] = messages[day] or f"mask: day {day} has no name."
    return bad | ~mask.any(-1), messages


def _checks(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is wrong with each argument: (T, n), (T, rows) or (T,) bool."""
    d, lb, ub = given["specific"], given["lb"], given["ub"]
    checks: dict[str, Tensor] = {}
    for name, value in given.items():
        if name in ("lb", "ub"):
            continue
        finite = torch.isfinite(value)
        if name == "loadings":
            finite = finite.all(-1)
        elif name in ("A", "G"):
            finite = finite.all(-2)
        checks[name] = ~finite
    flat = d == 0
    checks |= {
        "specific (must not be negative)": d < 0,
        "lb": lb.isnan() | (lb == torch.inf),
        "ub": ub.isnan() | (ub == -torch.inf),
        "lb (must be finite where specific is 0)": flat & lb.isinf(),
        "ub (must be finite where specific is 0)": flat & ub.isinf(),
        "bounds (lb must not exceed ub)": lb > ub,
    }
    if "cost" in given:
        checks["cost (must not be negative)"] = given["cost"] < 0
    return checks


def _all_good(given: dict[str, Tensor], mask: Tensor) -> Tensor:
    """Whether every number, masked ones too, is fine (): a sum is finite if all its terms are."""
    d, lb, ub = given["specific"], given["lb"], given["ub"]
    rest = [v for k, v in given.items() if k not in ("lb", "ub")]
    total = torch.stack([v.sum() for v in rest]).sum() + (ub - lb).sum()
    sign = torch.minimum(d.amin(), given["cost"].amin()) if "cost" in given else d.amin()
    return total.isfinite() & (sign >= 0) & (ub >= lb).all() & mask.any(-1).all()


def without_bad_days(problem: FactorQP, bad: Tensor) -> FactorQP:
    """The problem with nothing in the days that are ``bad`` (T,)."""
    parts = {"mask": problem.mask & ~bad.unsqueeze(-1)}
    for name in ("budget", "b", "h"):
        value = getattr(problem, name)
        if value is not None:
            shaped = bad.reshape(-1, *(1,) * (value.ndim - 1))
            parts[name] = torch.where(shaped, torch.zeros_like(value), value)
    return replace(problem, **parts)


def solution_without_names(problem: FactorQP, raises: bool) -> FactorSolution:
    """The solution of no days; or of days without names, which are bad data.

    Raises
    ------
    ProblemError
        With ``raises``, where there are days.
    """
    none, k = problem.q.detach(), problem.loadings.shape[-1]
    if raises and len(none):
        raise ProblemError(f"mask: day 0 has no name ({len(none)} days in all).")
    unknown = none.new_full((len(none),), torch.nan)
    zero = torch.zeros_like(unknown, dtype=torch.int64)
    p, m = _row_counts(problem)
    return FactorSolution(
        w=problem.q.clone(),
        nu=unknown,
        x=none.new_full((len(none), k), torch.nan),
        free=torch.zeros_like(none, dtype=torch.bool),
        kkt_norm=unknown.clone(),
        iterations=zero,
        codes=zero + SolveStatus.BAD_DATA.code,
        nu_rows=none.new_full((len(none), p), torch.nan),
        lam=none.new_full((len(none), m), torch.nan),
        lam_lb=none,
        lam_ub=none.clone(),
        message="mask: the day has no name." if len(none) else "",
    )


def refuse_unsolved(solution: FactorSolution) -> None:
    """Raise where a day was not solved.

    Raises
    ------
    SolverError
        Says how many days, and status and KKT norm of the first.
    """
    failed = torch.nonzero(solution.codes != SolveStatus.SOLVED.code).squeeze(-1)
    if len(failed):
        shown = ", ".join(
            f"day {int(t)}: {solution.status[int(t)].label}, "
            f"KKT norm {float(solution.kkt_norm[t]):.1e}"
            for t in failed[:_SHOWN]
        )
        raise SolverError(f"{len(failed)} of {len(solution.w)} days were not solved ({shown}).")
