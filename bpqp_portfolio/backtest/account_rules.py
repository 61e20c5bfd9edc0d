"""The account that a mandate is traded in: its size, and the part of it that is invested."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import check_number


@dataclass(frozen=True)
class AccountRules:
    """The account that a backtest trades in; `bpqp weights` takes ``risk_degree`` alone from it.

    Parameters
    ----------
    value : [currency] size of the account at the start of the backtest, in the currency of the
        prices.
    risk_degree : [fraction of the account] part that is invested and that weights are fractions of,
        in (0, 1]; the rest pays costs and is lost to lots.

    Raises
    ------
    ConfigError
        A number outside its range.
    """

    value: float
    risk_degree: float

    def __post_init__(self) -> None:
        check_number(self.value, "value", low=0, open_low=True)
        check_number(self.risk_degree, "risk_degree", low=0, high=1, open_low=True)
