"""What is wrong with the numbers of a mandate's days, found before anything is solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .qp_form import LEVERAGE, TRACKING, TURNOVER, Setup

# Of the market itself; exposures and groups are looked at as far as they are limited.
_FIELDS = ("mu", "loadings", "specific", "previous", "benchmark")
_ALWAYS = {"mu", "loadings", "specific"}


def faults(setup: Setup, gamma: Tensor, kappa: Tensor | None) -> dict[int, str]:
    """Day → which of the numbers that its problem rests on are not finite or out of range.

    ``gamma`` and ``kappa`` (T,) are the risk aversion and that of the robust objective. What is
    outside the mask, or in no constraint, is not looked at.
    """
    draft, market, mask = setup.draft, setup.draft.market, setup.mask
    found = _Found(market.names)
    for name in _FIELDS:
        value = getattr(market, name)
        if value is not None and name in draft.used | _ALWAYS:
            finite = value.isfinite()
            found.at_names(name, ~(finite if value.ndim == 2 else finite.all(-1)) & mask, value)
    found.at_names("specific", (market.specific < 0) & mask, market.specific)
    nameless = market.nameless() if "groups" in draft.used else None
    if nameless is not None and isinstance(market.groups, Tensor):
        found.at_names("groups, a code without a name", nameless, market.groups)
    # What follows is made of these, so that a day is told the cause alone.
    found.settle()
    for words, bound, end in (
        (draft.lower_words, draft.lower, torch.inf),
        (draft.upper_words, draft.upper, -torch.inf),
    ):
        found.at_names(words, (bound.isnan() | (bound == end)) & mask, bound)
    for name, value in (("buy", draft.buy), ("sell", draft.sell), ("impact", draft.impact)):
        if value is not None:
            found.at_names(f"the cost {name}", ~_number(value) & mask, value)
    for row in draft.rows:
        found.at_names(row.words, ~row.matrix.isfinite() & mask, row.matrix)
        limit, end = row.limit, torch.inf if row.floor else -torch.inf
        found.of_days(f"the limit of {row.words}", limit.isnan() | (limit == end), limit)
    found.of_days(draft.budget_words, ~draft.budget.isfinite(), draft.budget)
    for name, value in (
        (TURNOVER, draft.turnover),
        (LEVERAGE, draft.leverage),
        (TRACKING, draft.tracking),
        ("tracking_penalty", draft.penalty),
        ("risk_aversion", gamma),
        ("kappa", kappa),
    ):
        if value is not None:
            wrong = ~_number(value)
            found.of_days(name, wrong | (value == 0) if name == TRACKING else wrong, value)
    return {day: "bad data in " + ", ".join(parts) for day, parts in found.words.items()}


def _number(value: Tensor) -> Tensor:
    """Where a value is finite and at least 0."""
    return value.isfinite() & (value >= 0)


class _Found:
    """Day → what is wrong, in words that have the first value for each."""

    def __init__(self, codes: Sequence[Any] | None) -> None:
        self.codes = codes
        self.words: dict[int, list[str]] = {}
        self._settled: set[int] = set()

    def settle(self) -> None:
        """Add no more to the days that have something by now."""
        self._settled = set(self.words)

    def at_names(self, what: str, wrong: Tensor, value: Tensor) -> None:
        """Names (T, n) that are wrong; ``value`` (T, n, ...)."""
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
