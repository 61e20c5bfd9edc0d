"""What is wrong with the numbers of a program's days, found before anything is solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .market import Market
from .parts import Form, Of, Row, Sense
from .program import MandateProgram

# Of the market itself; exposures and groups are looked at as far as they are limited.
_FIELDS = ("mu", "loadings", "specific", "previous", "benchmark", "traded_value")
_ALWAYS = {"mu", "loadings", "specific"}


def faults(program: MandateProgram, market: Market) -> dict[int, str]:
    """Day → which of the numbers that its program rests on are not finite or out of range.

    What is outside the mask of ``market``, or in no constraint or cost, is not looked at.
    """
    found = _Found(program.mask, market.names)
    if not program.mask.shape[1]:
        return dict.fromkeys(range(len(program.q)), "no name in the problem")
    _of_market(found, program, market)
    # What follows is made of these, so that a day is told the cause alone.
    found.settle()
    for bound in program.bounds:
        if bound.lower is not None:
            found.at_names(bound.label, ~(bound.lower < torch.inf), bound.lower)
        if bound.upper is not None:
            found.at_names(bound.label, ~(bound.upper > -torch.inf), bound.upper)
    for cost in program.trading:
        for side in ("buy", "sell"):
            rate = getattr(cost, side)
            found.at_names(f"{cost.label}, the cost {side}", ~_number(rate), rate)
    for quadratic in program.costs:
        _of_form(found, quadratic.label, quadratic.form)
        found.of_days(
            f"the strength of {quadratic.label}", ~_number(quadratic.weight), quadratic.weight
        )
    for row in (*program.rows, *program.trades):
        wrong = ~row.matrix.isfinite() if row.of is Of.WEIGHTS else ~_number(row.matrix)
        found.at_names(row.label, wrong, row.matrix)
        found.of_days(f"the limit of {row.label}", _no_limit(row), row.limit)
    found.of_days(program.budget.label, ~program.budget.limit.isfinite(), program.budget.limit)
    for cone in program.cones:
        _of_form(found, cone.label, cone.form)
        found.of_days(
            f"the limit of {cone.label}", ~(_number(cone.limit) & (cone.limit > 0)), cone.limit
        )
    found.of_days("risk_aversion", ~_number(program.gamma), program.gamma)
    if program.kappa is not None:
        found.of_days("kappa", ~_number(program.kappa), program.kappa)
    return {day: "bad data in " + ", ".join(parts) for day, parts in found.words.items()}


def _of_market(found: _Found, program: MandateProgram, market: Market) -> None:
    used = program.used | _ALWAYS
    for name in _FIELDS:
        value = getattr(market, name)
        if value is not None and name in used:
            finite = value.isfinite()
            found.at_names(name, ~(finite if value.ndim == 2 else finite.all(-1)), value)
    for name in ("specific", "traded_value"):
        value = getattr(market, name)
        if value is not None and name in used:
            found.at_names(name, value < 0, value)
    if market.account is not None and "account" in used:
        account = market.account
        found.of_days("account", ~(account.isfinite() & (account > 0)), account)
    nameless = market.nameless() if "groups" in used else None
    if nameless is not None and isinstance(market.groups, Tensor):
        found.at_names("groups, a code without a name", nameless, market.groups)


def _of_form(found: _Found, label: str, form: Form) -> None:
    """Data of a form that is not the market's risk."""
    if form.loadings is not None:
        found.at_names(label, ~form.loadings.isfinite().all(-1), form.loadings)
    if form.specific is not None:
        found.at_names(label, ~_number(form.specific), form.specific)
    if form.target is not None:
        found.of_days(f"the target of {label}", ~form.target.isfinite().all(-1), form.target[:, 0])


def _no_limit(row: Row) -> Tensor:
    """Days (T,) on which a row has no limit that could be meant."""
    if row.of is not Of.WEIGHTS:
        return ~_number(row.limit)
    end = torch.inf if row.sense is Sense.LOWER else -torch.inf
    return row.limit.isnan() | (row.limit == end)


def _number(value: Tensor) -> Tensor:
    """Where a value is finite and at least 0."""
    return value.isfinite() & (value >= 0)


class _Found:
    """Day → what is wrong, in words that have the first value for each."""

    def __init__(self, mask: Tensor, codes: Sequence[Any] | None) -> None:
        self.mask, self.codes = mask, codes
        self.words: dict[int, list[str]] = {}
        self._settled: set[int] = set()

    def settle(self) -> None:
        """Add no more to the days that have something by now."""
        self._settled = set(self.words)

    def at_names(self, what: str, wrong: Tensor, value: Tensor) -> None:
        """Names (T, n) of the mask that are wrong; ``value`` (T, n, ...)."""
        wrong = wrong & self.mask
        for day in torch.nonzero(wrong.any(-1)).flatten().tolist():
            name = int(torch.nonzero(wrong[day])[0])
            own = value[day, name].detach().reshape(-1)
            bad = own[~own.isfinite()]
            first = float(bad[0] if len(bad) else own[0])
            who = name if self.codes is None else self.codes[name]
            more = int(wrong[day].sum()) - 1
            others = f" and {more} more" if more else ""
            self._add(day, f"{what} ({first:g} for name {who}{others})")

    def of_days(self, what: str, wrong: Tensor, value: Tensor) -> None:
        """Days (T,) that are wrong; ``value`` (T,)."""
        for day in torch.nonzero(wrong).flatten().tolist():
            self._add(day, f"{what} ({float(value[day].detach()):g})")

    def _add(self, day: int, words: str) -> None:
        if day not in self._settled:
            self.words.setdefault(day, []).append(words)
