"""What a mandate answers: weights, and each constraint's value, limit and dual on each day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...problems.solution import statuses
from .parts import Sense


@dataclass(frozen=True)
class ConstraintLabel:
    """What a column of a solution is about: the term's registered name, the constraint for people,
    the side of its limit, and the limit's unit."""

    term: str
    label: str
    sense: Sense
    unit: str


class ConstraintRow(NamedTuple):
    """A constraint on one day; ``dual`` is the return a day that one more unit of its limit, in
    the direction that loosens it, would bring."""

    label: str
    value: float
    limit: float
    slack: float
    dual: float


@dataclass(frozen=True)
class MandateSolution:
    """Weights of a batch, and what bound on each day.

    ``w`` (T, n); ``codes`` (T,) of the :class:`~bpqp_portfolio.SolveStatus` of the solve that was
    wanted, whatever stands in for it; ``kkt_norm``, ``iterations``, ``objective`` (T,), that in
    units of return and minimised; ``constraints`` the c constraints; ``value``, ``limit`` and
    ``dual`` (T, c): the dual is what a unit of the limit is worth, in units of return, and above
    zero where the constraint binds; of a day that relaxed some constraints they are those of the
    relaxed program, and NaN of any other fallback. ``solver`` is ``structured``, or ``cones`` on a
    day whose multipliers were not found and that went to cone programs. ``fallback`` and ``reason``
    say for each day which fallback was taken and why, None on a day that was solved.
    """

    w: Tensor
    codes: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    objective: Tensor
    constraints: tuple[ConstraintLabel, ...]
    value: Tensor
    limit: Tensor
    dual: Tensor
    solver: tuple[str, ...]
    fallback: tuple[str | None, ...]
    reason: tuple[str | None, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The constraints for people, (c,)."""
        return tuple(one.label for one in self.constraints)

    @property
    def status(self) -> Any:
        """How each day's solve ended: an object array (T,) of SolveStatus."""
        return statuses(self.codes)

    @property
    def counts(self) -> dict[str, int]:
        """How often each fallback was taken."""
        used = [one for one in self.fallback if one]
        return {name: used.count(name) for name in sorted(set(used))}

    @property
    def failed(self) -> Tensor:
        """Days (T,) bool that were not solved, whatever stands in for them."""
        return torch.tensor([one is not None for one in self.reason], device=self.w.device)

    def rows(self, day: int) -> list[ConstraintRow]:
        """Every constraint on ``day``."""
        found = []
        for i, label in enumerate(self.labels):
            value, limit = float(self.value[day, i]), float(self.limit[day, i])
            found.append(
                ConstraintRow(label, value, limit, abs(limit - value), float(self.dual[day, i]))
            )
        return found
