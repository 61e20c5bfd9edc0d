"""What stands in for a day that was not solved: relaxed limits, the held weights, equal weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...config import check_keys, check_number, keys_of, lookup
from ...errors import ConfigError, SolverError
from ...problems.solution import SolveStatus
from .constraint_table import ConstraintTable
from .program import MandateProgram
from .solution import MandateSolution
from .solve import solve
from .terms.base import Term

FALLBACKS = ("raise", "relax", "hold", "equal_weights")


@dataclass(frozen=True)
class Relaxation:
    """An entry of ``on_failure`` that lets some limits be missed at a price.

    Parameters
    ----------
    relax : names of constraints that may be missed; by default all that can be.
    penalty : [return per day for a unit of the limit] daily return that missing a limit by one of
        its units costs.
    """

    relax: str | Sequence[str] = ()
    penalty: float = 1.0


@dataclass(frozen=True)
class Fallback:
    """``name`` of :data:`FALLBACKS`; of ``relax`` the terms that are ``soft`` and the ``penalty``,
    return for a unit by which a limit is missed."""

    name: str
    soft: tuple[str, ...] = ()
    penalty: float = 1.0

    @classmethod
    def of(cls, one: Any, terms: Sequence[Term]) -> Fallback:
        """A fallback by name or as ``{"relax": [names], "penalty": number}``, for ``terms``.

        Raises
        ------
        ConfigError
            An unknown name (the nearest is named), or a term that cannot be relaxed.
        """
        soft: Any = ()
        penalty = 1.0
        able = [term.name for term in terms if term.relaxable]
        if isinstance(one, Mapping):
            check_keys(one, keys_of(Relaxation), "on_failure")
            soft, penalty = one.get("relax", ()), one.get("penalty", 1.0)
            soft = (soft,) if isinstance(soft, str) else soft
            if not isinstance(soft, list | tuple):
                raise ConfigError(f"on_failure.relax: expected a list of names, got {soft!r}.")
            soft = tuple(soft)
            for name in soft:
                known = {term.name: term for term in terms}
                lookup(known, name, "soft constraint", "on_failure.relax")
                if name not in able:
                    raise ConfigError(
                        f"on_failure: {name} cannot be relaxed; of this mandate's constraints "
                        f"{', '.join(able) or 'none'} can."
                    )
            one = "relax"
        check_number(penalty, "on_failure.penalty", low=0, open_low=True)
        lookup(dict.fromkeys(FALLBACKS), one, "fallback", "on_failure")
        return cls(one, (soft or tuple(able)) if one == "relax" else (), float(penalty))

    def __str__(self) -> str:
        if not self.soft:
            return self.name
        return f"relax {', '.join(self.soft)} (a unit costs {self.penalty:g} of return)"


@dataclass(frozen=True)
class StandIn:
    """Weights (T, n) on the days (T,) bool that are ``good``, and what binds where a program was
    solved for them."""

    w: Tensor
    good: Tensor
    table: ConstraintTable | None = None


def stand_in(fallback: Fallback, program: MandateProgram, bad: Mapping[int, str]) -> StandIn:
    """What ``fallback`` offers on every day of ``program``; ``bad`` data by day."""
    if fallback.name == "relax":
        return _relaxed(program.softened(fallback.soft, fallback.penalty), bad)
    if fallback.name == "hold":
        if program.held is None:
            return StandIn(program.previous, torch.zeros_like(program.mask[:, :1]).any(-1))
        good = torch.isfinite(program.held.detach()).all(-1)
        return StandIn(torch.where(good.unsqueeze(-1), program.held, 0.0), good)
    count = program.mask.sum(-1, keepdim=True)
    budget = program.budget.limit.detach().unsqueeze(-1)
    good = (count > 0) & budget.isfinite()
    equal = torch.where(program.mask & good, budget / count.clamp_min(1), 0.0)
    return StandIn(equal, good.squeeze(-1))


def _relaxed(program: MandateProgram, bad: Mapping[int, str]) -> StandIn:
    """The softened program's weights; of a point that is not exact, the duals are NaN."""
    solved = solve(program, bad, cones=False)
    point, good = solved.point, ~solved.failed
    table = solved.table
    inexact = (point.status != SolveStatus.SOLVED.code).unsqueeze(-1)
    table = replace(table, dual=table.dual.masked_fill(inexact, torch.nan))
    return StandIn(torch.where(good.unsqueeze(-1), point.w, 0.0), good, table)


def with_fallbacks(
    solution: MandateSolution,
    program: MandateProgram,
    fallbacks: Sequence[Fallback],
    bad: Mapping[int, str],
) -> MandateSolution:
    """``solution`` with its failed days by the first fallback that offers weights.

    Raises
    ------
    SolverError
        Days are left, by ``raise`` or since no fallback offers any; the first are told with their
        reasons.
    """
    left = solution.failed
    w, value, dual = solution.w, solution.value, solution.dual
    taken = list(solution.fallback)
    for fallback in fallbacks:
        if fallback.name == "raise" or not bool(left.any()):
            break
        other = stand_in(fallback, program, bad)
        take = left & other.good
        days = take.unsqueeze(-1)
        w = torch.where(days, other.w, w)
        if other.table is not None:
            value = torch.where(days, other.table.value, value)
            dual = torch.where(days, other.table.dual, dual)
        for day in torch.nonzero(take).flatten().tolist():
            taken[day] = fallback.name
        left = left & ~take
    if bool(left.any()):
        days_left = torch.nonzero(left).flatten().tolist()
        shown = "; ".join(f"day {day}: {solution.reason[day]}" for day in days_left[:5])
        raise SolverError(
            f"{len(days_left)} of {len(left)} days were not solved ({shown}). Loosen a constraint, "
            "or set on_failure to relax, hold or equal_weights."
        )
    return replace(solution, w=w, value=value, dual=dual, fallback=tuple(taken))
