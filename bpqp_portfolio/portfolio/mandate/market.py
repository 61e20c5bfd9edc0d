"""What a mandate knows of a batch of days: forecasts, risk, holdings, groups, what may trade."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import ProblemError

_FLAGS = ("mask", "pinned", "no_buy", "no_sell")


@dataclass(frozen=True)
class Market:
    """One batch of T days and n names.

    ``mu`` (T, n) expected daily return as a fraction; ``loadings`` (T, n, k) and ``specific``
    (T, n), per day²: Σ = B Bᵀ + diag(d); ``mask`` (T, n) bool, names in the day's problem;
    ``previous`` (T, n) drifted weights held now, fractions of the account whose rest is cash: None
    switches turnover limits and costs of trading off; ``benchmark`` (T, n) index weights;
    ``pinned`` (T, n) bool, names that cannot be traded; ``no_buy``, ``no_sell`` (T, n) bool, names
    at a price limit. ``groups`` are codes (T, n) into ``group_names``, or a mapping from a group's
    name to its members (T, n), for names that are in none or in several; ``exposures`` (T, n, f)
    with ``exposure_names``; ``traded_value`` (T, n) what is traded of a name on an average day and
    ``account`` (T,) what a weight of 1 is worth, both in one currency; ``names`` codes.

    Values are checked where a mandate uses them, day by day; what is outside the mask is not read.

    Raises
    ------
    ProblemError
        A shape that does not match ``mu``, a name that is pinned without ``previous``, names of
        groups or exposures that are too few or occur twice.
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
    traded_value: Tensor | None = None
    account: Tensor | None = None
    names: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if self.mu.ndim != 2:
            raise ProblemError(f"mu must be (T, n); got {tuple(self.mu.shape)}.")
        self._check_shapes()
        for name in _FLAGS:
            value = getattr(self, name)
            if value is not None and value.dtype != torch.bool:
                raise ProblemError(f"{name}: expected true and false, got {value.dtype}.")
        self._check_titles()
        if self.previous is None:
            for name in ("pinned", "no_buy", "no_sell"):
                value = getattr(self, name)
                if value is not None and bool((value & self.mask).any()):
                    raise ProblemError(f"{name}: needs previous, the weights that are held now.")

    def _check_shapes(self) -> None:
        T, n = self.mu.shape
        for name in (*_FLAGS, "specific", "previous", "benchmark", "traded_value"):
            value = getattr(self, name)
            if value is not None and value.shape != self.mu.shape:
                raise ProblemError(f"{name} must be (T, n) = {(T, n)}; got {tuple(value.shape)}.")
        for name in ("loadings", "exposures"):
            value = getattr(self, name)
            if value is not None and (value.ndim != 3 or value.shape[:2] != self.mu.shape):
                raise ProblemError(
                    f"{name} must be (T, n, ·) with (T, n) = {(T, n)}; got {tuple(value.shape)}."
                )
        if self.account is not None and self.account.shape != (T,):
            raise ProblemError(f"account must be (T,) = {(T,)}; got {tuple(self.account.shape)}.")

    def _check_titles(self) -> None:
        sizes = {"names": self.mu.shape[1], "group_names": None, "exposure_names": None}
        if self.exposures is not None:
            sizes["exposure_names"] = self.exposures.shape[-1]
        for name, size in sizes.items():
            given = [str(one) for one in getattr(self, name) or ()]
            if given and size is not None and len(given) != size:
                raise ProblemError(f"{name}: expected {size}, got {len(given)}.")
            twice = [one for one, count in Counter(given).items() if count > 1]
            if twice:
                raise ProblemError(f"{name}: {twice[0]!r} occurs twice.")

    def members(self) -> dict[str, Tensor]:
        """Group name → membership (T, n) as 0 and 1, zero outside the mask.

        Raises
        ------
        ProblemError
            The market has no groups, or their shape or kind does not match.
        """
        if self.groups is None:
            raise ProblemError("groups: the market has none; give groups and group_names.")
        if isinstance(self.groups, Mapping):
            given = {str(k): torch.as_tensor(v) for k, v in self.groups.items()}
        else:
            given = {"codes": self.groups}
            if self.groups.is_floating_point():
                raise ProblemError(f"groups: codes are whole numbers, got {self.groups.dtype}.")
        for name, value in given.items():
            if value.shape != self.mu.shape:
                raise ProblemError(
                    f"groups: {name} must be (T, n) = {tuple(self.mu.shape)}; "
                    f"got {tuple(value.shape)}."
                )
        if not isinstance(self.groups, Mapping):
            titles = [str(name) for name in self.group_names or range(self._codes())]
            given = {title: self.groups == i for i, title in enumerate(titles)}
        return {name: torch.where(self.mask, value.double(), 0.0) for name, value in given.items()}

    def nameless(self) -> Tensor | None:
        """Names (T, n) of the mask whose group code has no name; None where there are no codes."""
        if self.groups is None or isinstance(self.groups, Mapping):
            return None
        count = self._codes() if self.group_names is None else len(self.group_names)
        return ((self.groups < 0) | (self.groups >= count)) & self.mask

    def _codes(self) -> int:
        """One more than the largest code of the batch's names."""
        assert isinstance(self.groups, Tensor)
        inside = self.groups[self.mask]
        return int(inside.max()) + 1 if inside.numel() else 0

    def needed(self, field: str, who: str) -> Tensor:
        """A field in float64, zero outside the mask.

        Raises
        ------
        ProblemError
            The market lacks it, and ``who`` wants it.
        """
        value = getattr(self, field)
        if value is None:
            raise ProblemError(f"{who}: the market has no {field}; give it.")
        if value.ndim == 1:
            return value.double()
        mask = self.mask if value.ndim == 2 else self.mask.unsqueeze(-1)
        return torch.where(mask, value.double(), 0.0)
