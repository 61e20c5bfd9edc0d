"""The columns of a comparison's table: where each figure is found, and how it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ..report.metrics import format_metric
from ..report.statistics import Difference

SPACE = "\N{NO-BREAK SPACE}"
MINUS, PLUS_MINUS, PERCENT = "−", " ± ", f"{SPACE}%"


@dataclass(frozen=True)
class Column:
    """A column of the table: its ``group`` and ``header``, and the ``place`` (section, metric,
    cost) of its figure in a run's summary; None where it is not there."""

    group: str
    header: str
    place: tuple[str, str, str] | None


def _book(section: str, of: str) -> dict[str, Column]:
    group = f"{of[:1].upper()}{of[1:]}" if section == "portfolio" else f"Over {of}"
    ratio = "Sharpe" if section == "portfolio" else "ratio"
    name = section.removeprefix("excess_")
    out = {}
    for cost, word in (("without_cost", "gross"), ("with_cost", "net")):
        out[f"{word}_{name}"] = Column(group, f"{group}, {word}", (section, "annual_return", cost))
    for cost, word in (("without_cost", "gross"), ("with_cost", "net")):
        place = (section, "information_ratio", cost)
        out[f"ratio_{word}_{name}"] = Column(group, f"{group}, {ratio}, {word}", place)
    place = (section, "max_drawdown", "with_cost")
    return {**out, f"drawdown_{name}": Column(group, f"{group}, drawdown, net", place)}


def _plain(group: str, section: str, headers: Mapping[str, str]) -> dict[str, Column]:
    return {
        name: Column(group, header, (section, name, "without_cost"))
        for name, header in headers.items()
    }


COLUMNS = {
    **_plain(
        "Prediction",
        "signal",
        {
            "ic": "IC",
            "icir": "ICIR",
            "rank_ic": "Rank IC",
            "rank_icir": "Rank ICIR",
            "mse": "MSE, one scale",
        },
    ),
    **_plain(
        "Decision", "signal", {"regret": "Regret a day", "decision_value": "Decision value a day"}
    ),
    **_book("excess_index", "index"),
    **_book("excess_equal", "equal weights"),
    **_book("portfolio", "the portfolio"),
    **_plain(
        "Trading",
        "trading",
        {
            "turnover": "One-way turnover a day",
            "annual_cost": "Cost a year",
            "names_held": "Names held",
            "effective_names": "Effective names",
            "blocked_share": "Orders blocked",
        },
    ),
    "epochs": Column("Learning", "Epochs", None),
    "epoch_seconds": Column("Learning", "Seconds an epoch", None),
    "run_seconds": Column("Learning", "Seconds a run", None),
}
"""Column of the table of runs → what it shows. Seconds of a run that was interrupted are those of
its last part."""


def cell_text(column: str, values: pd.Series) -> str:
    """Mean ± standard deviation (ddof 1) of a column's ``values``, one a seed."""
    values = values.dropna()
    if not len(values):
        return "–"
    mean, spread = _text(column, values.mean()), _text(column, values.std(ddof=1))
    return mean.removesuffix(PERCENT) + PLUS_MINUS + spread if len(values) > 1 else mean


def _text(column: str, value: float) -> str:
    place = COLUMNS[column].place
    if place is not None:
        return format_metric(place[1], value)
    return f"{value:.0f}" if column == "run_seconds" else f"{value:.2f}"


def points(value: float, *, sign: bool = False) -> str:
    """A fraction in percent to one digit, with a true minus sign; an en dash for none.

    >>> points(-0.0123), points(0.5, sign=True)
    ('−1.2', '+50.0')
    """
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:{'+' if sign else ''}.1f}".replace("-", MINUS)


def interval(difference: Difference) -> str:
    """The interval of a difference, in percent."""
    return f"{points(difference.low)} to {points(difference.high)}".replace(" ", SPACE)


def p_text(value: float) -> str:
    """A p-value to three digits."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
