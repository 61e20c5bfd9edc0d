"""What every constraint and cost of a mandate is: a :class:`Term`, and the market as it sees it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from ....config import check_number, lookup
from ....errors import ProblemError
from ..market import Market
from ..parts import Form, Part

Number: TypeAlias = Any
"""A number, or in Python a tensor () or (T,), which carries gradients."""
ByName: TypeAlias = Any
"""A number, or code or title → number; in Python a tensor too."""


class Term(ABC):
    """A constraint or cost: an object with parameters that states itself as typed parts.

    Parameters are numbers or tensors, which carry gradients; ``str(term)`` names it for people. A
    new one is a file of this folder and a line in its ``__init__``; all else follows from the class
    variables below and from :meth:`parts`.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    """Of its limit, or of what it costs."""
    example: ClassVar[Mapping[str, Any]]
    """A mandate's settings that show it, for its contract tests and its documentation."""
    is_cost: ClassVar[bool] = False
    relaxable: ClassVar[bool] = False
    """Whether ``relax`` may miss its limit at a price: so for rows and cones, not for bounds."""
    sets_budget: ClassVar[bool] = False
    sets_lower: ClassVar[bool] = False
    """In place of the budget, or lower bound, that holds without being said."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Fields of the market that it wants beside those of every mandate."""

    def __str__(self) -> str:
        return f"{self.name} {shown(getattr(self, 'limit', ''))}".rstrip()

    @property
    def benchmarked(self) -> bool:
        """Whether it rests on the benchmark's weights."""
        return "benchmark" in self.needs

    @property
    def allows_short(self) -> bool:
        """Whether a weight below zero is allowed."""
        return False

    @property
    def forbids_short(self) -> bool:
        """Whether no weight may be below zero, whatever other terms allow."""
        return False

    @property
    def allows_leverage(self) -> bool:
        """Whether more than the account may be invested."""
        return False

    @property
    def exposures_named(self) -> tuple[str, ...]:
        """Exposures of the market that it needs by name."""
        return ()

    @property
    def exposures_all(self) -> bool:
        """Whether it bounds every exposure of the market."""
        return False

    @abstractmethod
    def parts(self, view: MarketView) -> Iterator[Part]:
        """The term on the days of ``view``; nothing where it does not apply."""

    def head(self, label: str | None = None) -> tuple[str, str, str]:
        """Name, label and unit of a part; the label is the term in words unless it is given."""
        return self.name, str(self) if label is None else label, self.unit


class MarketView:
    """A market as terms see it: float64, zero outside the mask; it notes which fields were used."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.used: set[str] = set()
        self.zero = torch.zeros_like(market.mu, dtype=torch.float64)

    @property
    def previous(self) -> Tensor | None:
        """Weights (T, n) held now, None where the market does not say."""
        if self.market.previous is None:
            return None
        return self.needed("previous", "mandate")

    def needed(self, field: str, who: str) -> Tensor:
        """A field of the market that the term ``who`` wants.

        Raises
        ------
        ProblemError
            The market lacks it.
        """
        self.used.add(field)
        return self.market.needed(field, who)

    def groups(self) -> dict[str, Tensor]:
        """Group name → members (T, n) as 0 and 1."""
        self.used.add("groups")
        return self.market.members()

    def exposures(self, who: str) -> dict[str, Tensor]:
        """Exposure name → exposures (T, n), in their own units."""
        X = self.needed("exposures", who)
        names = self.market.exposure_names or range(X.shape[-1])
        return {str(name): X[..., j] for j, name in enumerate(names)}

    def risk(self, centre: Tensor) -> Form:
        """(w − centre)ᵀΣ(w − centre), per day²."""
        return Form(*risk_of(self.market), centre=centre, risk=True)

    def per_day(self, value: Any, who: str) -> Tensor:
        """A number or tensor of the term ``who`` as (T,) float64.

        Raises
        ------
        ProblemError
            Its shape is no number's, and not that of the days.
        """
        days = self.zero.new_zeros(len(self.zero))
        value = torch.as_tensor(value, dtype=torch.float64, device=days.device)
        try:
            return value.expand(days.shape)
        except RuntimeError:
            raise ProblemError(
                f"{who}: expected one number, or one for each of {len(days)} days; got shape "
                f"{tuple(value.shape)}."
            ) from None

    def per_name(self, value: Any, default: float) -> Tensor:
        """(T, n) from a number, a tensor (n,) or (T, n), or a mapping code → number.

        Codes that the market lacks are no error: a universe changes from day to day.

        Raises
        ------
        ProblemError
            A mapping for a market without names, or a shape that does not fit.
        """
        like = self.zero
        if isinstance(value, Mapping):
            if self.market.names is None:
                raise ProblemError("bounds by name: the market has no names; give their codes.")
            rest: float = value.get("default", default)
            own = [float(value.get(str(code), rest)) for code in self.market.names]
            return torch.tensor(own, dtype=torch.float64, device=like.device).expand(like.shape)
        value = torch.as_tensor(value, dtype=torch.float64, device=like.device)
        try:
            return value.expand(like.shape)
        except RuntimeError:
            raise ProblemError(
                f"a value by name must be one number, (n,) or (T, n) = {tuple(like.shape)}; got "
                f"shape {tuple(value.shape)}."
            ) from None


def risk_of(market: Market) -> tuple[Tensor, Tensor]:
    """Loadings (T, n, k) and specific variances (T, n) in float64, zero outside the mask."""
    loadings = torch.where(market.mask.unsqueeze(-1), market.loadings.double(), 0.0)
    return loadings, torch.where(market.mask, market.specific.double(), 0.0)


def number(value: Any, name: str, **limits: Any) -> Any:
    """A checked number, or a tensor as it is: of one entry that is checked, of more when it is
    used, day by day.

    Raises
    ------
    ConfigError
        It is not finite, or out of ``limits``; see :func:`~bpqp_portfolio.config.check_number`.
    """
    if not isinstance(value, Tensor):
        check_number(value, name, **limits)
    elif value.numel() == 1:
        check_number(value.detach().item(), name, **limits)
    return value


def shown(value: Any) -> str:
    """A parameter for people."""
    if isinstance(value, Tensor):
        return f"{value.detach().item():.6g}" if value.numel() == 1 else "its own value a name"
    return f"{value:.6g}" if isinstance(value, float | int) else str(value)


def check_each(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    """Check a number, or every number of a mapping; None in a mapping is no limit."""
    for key, one in value.items() if isinstance(value, Mapping) else [("", value)]:
        if one is not None:
            number(one, f"{name}.{key}" if key else name, low=low, high=high)


@dataclass(frozen=True, eq=False)
class Ranged(Term):
    """Limits by title, of w or of w − w_b.

    Parameters
    ----------
    limit : upper limits: title → number, or one number for all titles; in Python tensors (T,) too.
    lower : lower limits, likewise.
    relative : whether they are of w − w_b instead of w.
    """

    limit: ByName = None
    lower: ByName = None
    relative: bool = False
    relaxable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for key in ("limit", "lower"):
            value = getattr(self, key)
            check_each(value if isinstance(value, dict) else {"all": value}, f"{self.name}.{key}")

    def __str__(self) -> str:
        each = ", ".join(
            f"{key} {sign} {shown(one)}"
            for value, sign in ((self.lower, ">="), (self.limit, "<="))
            for key, one in (value.items() if isinstance(value, Mapping) else [("each", value)])
            if one is not None
        )
        return f"{self.name}: {each}{' (relative to the benchmark)' if self.relative else ''}"

    @property
    def benchmarked(self) -> bool:
        return self.relative


def by_title(value: Any, known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Title → limit from a mapping, or from one number for all of ``known``; without a limit left
    out.

    Raises
    ------
    ConfigError
        A title that is not known; the nearest is named.
    """
    pairs = value if isinstance(value, Mapping) else dict.fromkeys(known, value)
    for title in pairs:
        lookup(known, title, what)
    return {title: one for title, one in pairs.items() if one is not None}
