"""The draft of a mandate's problem, which constraints and costs fill in, and what they share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ....config import check_number
from ....errors import ProblemError
from ..market import Market


@dataclass(frozen=True)
class Row:
    """matrixᵀw ≤ limit, or ≥ where it is a ``floor``, on each day: (T, n) and (T,).

    ``term`` names the constraint that it belongs to; ``words`` are for people alone.
    """

    term: str
    words: str
    matrix: Tensor
    limit: Tensor
    floor: bool = False


@dataclass
class Draft:
    """min ½ wᵀ(γΣ)w + qᵀw + buyᵀ(w−w⁰)₊ + sellᵀ(w⁰−w)₊ + κᵀ(w−w⁰)² and its constraints.

    ``lower``, ``upper`` (T, n); ``budget`` (T,); ``rows``; ``turnover`` limit (T,) of ½‖w−w⁰‖₁,
    ``leverage`` limit (T,) of ‖w‖₁, ``tracking`` limit (T,) of ‖Σ^½(w−w_b)‖ per day, ``penalty``
    (T,) θ of ½θ(w−w_b)ᵀΣ(w−w_b).
    ``own`` are the mandate's bounds where the market's, of names that cannot trade, replace them.
    ``used`` names the market's fields that the problem rests on.
    """

    market: Market
    lower: Tensor
    upper: Tensor
    budget: Tensor
    budget_words: str = "budget = 1"
    lower_words: str = "long only: weights >= 0"
    upper_words: str = "weights <= 1"
    rows: list[Row] = field(default_factory=list)
    turnover: Tensor | None = None
    turnover_words: str = ""
    leverage: Tensor | None = None
    leverage_words: str = ""
    tracking: Tensor | None = None
    tracking_words: str = ""
    tracking_unit: float = 1.0
    penalty: Tensor | None = None
    buy: Tensor | None = None
    sell: Tensor | None = None
    impact: Tensor | None = None
    own: tuple[Tensor, Tensor] | None = None
    used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, market: Market) -> Draft:
        """Long only, fully invested."""
        zero = torch.zeros_like(market.mu, dtype=torch.float64)
        return cls(market, zero, zero + 1.0, zero.new_ones(len(zero)))

    def needed(self, name: str, who: str) -> Tensor:
        """The market's field ``name`` in float64, zero outside the mask.

        Raises
        ------
        ProblemError
            The market lacks it, and the term ``who`` wants it.
        """
        self.used.add(name)
        return self.market.needed(name, who)

    def per_day(self, value: Any, who: str) -> Tensor:
        """A number or tensor of the term ``who`` as (T,) float64."""
        value = torch.as_tensor(value, dtype=torch.float64, device=self.budget.device)
        try:
            return value.expand(self.budget.shape)
        except RuntimeError:
            raise ProblemError(
                f"{who}: expected one number, or one for each of {len(self.budget)} days; got "
                f"shape {tuple(value.shape)}."
            ) from None

    def row(
        self, term: str, words: str, matrix: Tensor, limit: Tensor | float, *, floor: bool
    ) -> None:
        """Add matrixᵀw ≤ limit, or ≥ where it is a ``floor``, for ``matrix`` (T, n) and ``limit``
        broadcastable to (T,)."""
        self.rows.append(Row(term, words, matrix, self.per_day(limit, words), floor))


class Term(Protocol):
    """A constraint or cost: an object with parameters that writes itself into a draft.

    ``str(term)`` says it in words; parameters are numbers or tensors, which carry gradients.
    """

    name: ClassVar[str]

    def apply(self, draft: Draft) -> None:
        """Write the term into ``draft``."""
        ...


def number(value: Any, name: str, **limits: Any) -> Any:
    """A checked number, or a tensor as it is: of one entry that is checked, of more when it is
    used, day by day."""
    if not isinstance(value, Tensor):
        check_number(value, name, **limits)
    elif value.numel() == 1:
        check_number(value.detach().item(), name, **limits)
    return value


def shown(value: Any) -> str:
    """A parameter in words."""
    if isinstance(value, Tensor):
        return f"{value.detach().item():.6g}" if value.numel() == 1 else "its own value a name"
    return f"{value:.6g}" if isinstance(value, float | int) else str(value)


def per_name(value: Any, market: Market, default: float) -> Tensor:
    """(T, n) from a number, a tensor (n,) or (T, n), or a mapping code → number.

    Codes that the market lacks are no error: a universe changes from day to day.
    """
    like = torch.zeros_like(market.mu, dtype=torch.float64)
    if isinstance(value, dict):
        if market.names is None:
            raise ProblemError("bounds by name: the market has no names; give their codes.")
        rest: float = value.get("default", default)
        own = [float(value.get(str(code), rest)) for code in market.names]
        return torch.tensor(own, dtype=torch.float64, device=like.device).expand(like.shape)
    value = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    try:
        return value.expand(like.shape)
    except RuntimeError:
        raise ProblemError(
            f"a value by name must be one number, (n,) or (T, n) = {tuple(like.shape)}; got shape "
            f"{tuple(value.shape)}."
        ) from None


def check_per_name(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    """Check the numbers of a value that :func:`per_name` takes."""
    for key, one in value.items() if isinstance(value, dict) else [("", value)]:
        number(one, f"{name}.{key}" if key else name, low=low, high=high)
