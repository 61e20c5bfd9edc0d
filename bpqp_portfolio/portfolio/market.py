"""What a mandate knows of a batch of days: forecasts, risk, holdings, groups, what may trade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ProblemError


@dataclass(frozen=True)
class Market:
    """One batch of T days and n names.

    ``mu`` (T, n) expected daily return as a fraction; ``loadings`` (T, n, k) and ``specific``
    (T, n), per day²: Σ = B Bᵀ + diag(d); ``mask`` (T, n) bool, names in the day's problem;
    ``previous`` (T, n) drifted weights held now, fractions of the account whose rest is cash: None
    switches turnover limits and costs of trading off; ``benchmark`` (T, n) index weights;
    ``pinned`` (T, n) bool, names that cannot be traded; ``no_buy``, ``no_sell`` (T, n) bool, names
    at a price limit. ``groups`` are codes (T, n) into ``group_names``, or a mapping from a group's
    name to its members (T, n); ``exposures`` (T, n, f) with ``exposure_names``; ``names`` codes.

    Raises
    ------
    ProblemError
        A shape that does not match ``mu``, or a name that is pinned without ``previous``.
    """

    mu: Tensor
    loadings: Tensor
    specific: Tensor
    mask: Tensor
    previous: Tensor | None = None
    benchmark: Tensor | None = None
    pinned: Tensor | None = None
    no_buy: Tensor | None = None
    no_sell: Tensor | None = None
    groups: Tensor | Mapping[str, Tensor] | None = None
    group_names: Sequence[str] | None = None
    exposures: Tensor | None = None
    exposure_names: Sequence[str] | None = None
    names: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if self.mu.ndim != 2:
            raise ProblemError(f"mu must be (T, n); got {tuple(self.mu.shape)}.")
        same = ("specific", "mask", "previous", "benchmark", "pinned", "no_buy", "no_sell")
        for name in same:
            value = getattr(self, name)
            if value is not None and value.shape != self.mu.shape:
                raise ProblemError(
                    f"{name} must be (T, n) = {tuple(self.mu.shape)}; got {tuple(value.shape)}."
                )
        for name in ("loadings", "exposures"):
            value = getattr(self, name)
            if value is not None and (value.ndim != 3 or value.shape[:2] != self.mu.shape):
                raise ProblemError(
                    f"{name} must be (T, n, ·) with (T, n) = {tuple(self.mu.shape)}; "
                    f"got {tuple(value.shape)}."
                )
        if self.previous is None:
            for name in ("pinned", "no_buy", "no_sell"):
                value = getattr(self, name)
                if value is not None and bool((value & self.mask).any()):
                    raise ProblemError(f"{name}: needs previous, the weights that are held now.")

    def members(self) -> dict[str, Tensor]:
        """Group name → membership (T, n) as 0 and 1.

        Raises
        ------
        ProblemError
            The market has no groups, or their shape does not match.
        """
        if self.groups is None:
            raise ProblemError("groups: the market has none; give groups and group_names.")
        if isinstance(self.groups, Mapping):
            found = {str(k): v.to(torch.float64) for k, v in self.groups.items()}
        else:
            names = self.group_names
            if names is None:
                names = [str(i) for i in range(int(self.groups.max()) + 1)]
            found = {str(name): (self.groups == i).double() for i, name in enumerate(names)}
        for name, value in found.items():
            if value.shape != self.mu.shape:
                raise ProblemError(
                    f"groups: {name} must be (T, n) = {tuple(self.mu.shape)}; "
                    f"got {tuple(value.shape)}."
                )
        return found

    def needed(self, field: str, who: str) -> Tensor:
        """A field in float64, zero outside the mask; ProblemError where ``who`` lacks it."""
        value = getattr(self, field)
        if value is None:
            raise ProblemError(f"{who}: the market has no {field}; give it.")
        mask = self.mask if value.ndim == 2 else self.mask.unsqueeze(-1)
        return torch.where(mask, value.double(), 0.0)
