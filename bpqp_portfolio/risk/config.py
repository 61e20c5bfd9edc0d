"""Settings of the rolling risk model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import check_number
from ..errors import ConfigError
from .registry import build_risk_model


@dataclass(frozen=True)
class RiskConfig:
    """How each day's Σ = B Bᵀ + diag(d) is estimated.

    Parameters
    ----------
    model : a name of ``RISK_MODELS``, a ``name`` and options, or ``class`` and ``module_path``.
    factors : [factors] number k of factors.
    window : [days] trading days of returns that are used, the day itself the last of them. Fewer at
        the beginning of the data.
    min_history : [days] a name with fewer observed returns in the window is not modelled that day.
    winsorise : [interquartile ranges] returns of a name are clipped to ``[Q1 − c·IQR, Q3 + c·IQR]``
        of its own window (Q1, Q3 its quartiles, IQR their distance), c this number; null leaves
        them as they are. Tukey (1977), "Exploratory Data Analysis": c = 3 is the outer fence, which
        a normal variable passes twice in a million. It tames wrong adjustment factors and the
        returns over long suspensions. A name whose IQR is zero gets the median IQR of the day's
        names.
    floor : [fraction of the median] the smallest specific variance of a day, of its median over the
        day's modelled names; solvers divide by it.

    Raises
    ------
    ConfigError
        An unknown model, or a number outside its range.
    """

    model: str | Mapping[str, Any] = "pca"
    factors: int = 10
    window: int = 240
    min_history: int = 60
    winsorise: float | None = 3.0
    floor: float = 0.01

    def __post_init__(self) -> None:
        check_number(self.factors, "factors", low=1, integer=True)
        try:
            build_risk_model(self.model, int(self.factors))
        except ConfigError as error:
            raise ConfigError(f"model: {error}") from error
        check_number(self.window, "window", low=2, integer=True)
        check_number(self.min_history, "min_history", low=2, integer=True)
        for name in ("factors", "window", "min_history"):
            object.__setattr__(self, name, int(getattr(self, name)))
        if not self.factors < self.min_history <= self.window:
            raise ConfigError(
                "min_history: must be above factors and at most window, got "
                f"{self.min_history} with factors {self.factors} and window {self.window}."
            )
        if self.winsorise is not None:
            check_number(self.winsorise, "winsorise", low=0)
        check_number(self.floor, "floor", low=0, high=1, open_low=True)
