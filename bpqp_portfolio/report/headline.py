"""What a run earned, in sentences: over its benchmark, net of cost, and whether it is chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from ..runs.results import RunResults
from .metrics import FEWEST, books, counted, never_traded
from .statistics import Difference, mean_difference

MINUS, SPACE = "−", "\N{NO-BREAK SPACE}"
EQUAL_WEIGHTS = "equal weights"


@dataclass(frozen=True)
class Excess:
    """Annual return over a benchmark, as a fraction, net of cost where the run states its cost.

    ``benchmark`` is its name, empty for the return itself of a run that has none; ``difference``
    the return over it, with its interval; ``gross`` the same before cost, NaN where ``net`` is
    false, which says that the run states no cost.
    """

    benchmark: str
    difference: Difference
    gross: float
    net: bool


def excesses(results: RunResults) -> list[Excess]:
    """Over the index, then over equal weights, as far as the run has them; else the return itself.

    Empty for a test of fewer than FEWEST days, and for an account that never traded.
    """
    if never_traded(results) or len(results.daily) < FEWEST:
        return []
    series, year = books(results), results.days_per_year
    net = bool(series["net"].notna().any())
    own = series["net" if net else "gross"]
    benchmarks: dict[str, pd.Series | float] = {
        name: series[key]
        for key, name in (("index", results.benchmark), ("equal", EQUAL_WEIGHTS))
        if (series[key] + own).notna().sum() >= FEWEST
    }
    return [
        Excess(
            name,
            mean_difference(own, benchmark, days_per_year=year),
            (series["gross"] - benchmark).mean() * year if net else math.nan,
            net,
        )
        for name, benchmark in (benchmarks or {"": 0.0}).items()
    ]


def headline(results: RunResults) -> list[str]:
    """What happened, with its uncertainty: one sentence, and those that qualify it.

    The first is over the index, or over equal weights where there is no index. Others say that
    trading cost decided the sign, and what the run earned over equal weights. Of a test that is too
    short for a figure a year, the return of its days.
    """
    if never_traded(results):
        return [
            "The account never traded: it stayed in cash, so there is no result of a portfolio."
        ]
    found = excesses(results)
    if not found:
        return [_short(results)]
    first, others = found[0], found[1:]
    sentences = [f"{'Net of cost' if first.net else 'Before cost'} {_over(first)}."]
    if first.gross * first.difference.annual < 0:
        sentences.append(_cost_decides(first))
    return sentences + [f"Over {e.benchmark}: {_figures(e)}." for e in others]


def verdict(difference: Difference) -> str:
    """Does the interval of a difference exclude zero?"""
    return f"{'' if difference.sign else 'not '}distinguishable from chance"


def percent(value: float, *, sign: bool = False) -> str:
    """A fraction in percent, without its unit: one digit, two of what is below a tenth.

    >>> percent(-0.0721), percent(0.0004), percent(0.012, sign=True)
    ('−7.2', '0.04', '+1.2')
    """
    digits = 1 if abs(value) >= 0.001 else 2
    text = f"{100 * value:{'+' if sign else ''}z.{digits}f}"
    if float(text) == 0:
        text = "0.0"
    return text.replace("-", MINUS)


def interval(difference: Difference) -> str:
    """The interval in percent with its level: "95 % from −15.1 to +0.9"."""
    low, high = (percent(bound, sign=True) for bound in (difference.low, difference.high))
    level = f"{100 * difference.level:g}{SPACE}%"
    return f"{level} from {low} to {high}"


def _over(excess: Excess) -> str:
    """Of the first sentence, what follows "Net of cost"."""
    annual, name = excess.difference.annual, excess.benchmark
    if name:
        side = "above" if annual > 0 else "below"
        text = f"{percent(abs(annual))}{SPACE}% a year {side} {_called(name)}"
    else:
        text = f"{percent(annual)}{SPACE}% a year"
    return f"{text}, {interval(excess.difference)}: {verdict(excess.difference)}"


def _figures(excess: Excess) -> str:
    difference = excess.difference
    annual = percent(difference.annual, sign=True)
    return f"{annual}{SPACE}% a year, {interval(difference)}, {verdict(difference)}"


def _cost_decides(excess: Excess) -> str:
    over = f" over {_called(excess.benchmark)}" if excess.benchmark else ""
    cost = percent(excess.gross - excess.difference.annual)
    kind = "gain" if excess.gross > 0 else "loss"
    return (
        f"Before cost it was a {kind} of {percent(abs(excess.gross))}{SPACE}% a year{over}: "
        f"trading cost of {cost}{SPACE}% a year turned the sign."
    )


def returns_of_days(results: RunResults) -> list[tuple[str, str]]:
    """Compounded return of all days, in percent: the run's, then those of its benchmarks.

    Each with its name; the run's is "Net return" or, where it states no cost, "Gross return".
    """
    series = books(results)
    book = "net" if series["net"].notna().any() else "gross"
    names = {
        book: f"{book.capitalize()} return",
        "index": _called(results.benchmark),
        "equal": EQUAL_WEIGHTS,
    }
    total = {name: (1 + series[name]).prod(min_count=1) - 1 for name in names}
    return [
        (name, f"{percent(total[key], sign=True)}{SPACE}%")
        for key, name in names.items()
        if math.isfinite(total[key])
    ]


def _short(results: RunResults) -> str:
    """Of a test that is too short for a figure a year."""
    (kind, own), *others = returns_of_days(results)
    start = "Net of cost" if kind.startswith("Net") else "Before cost"
    text = f"{start} {own} in {counted(len(results.daily), 'trading day')}"
    beside = ", ".join(f"{name} {figure}" for name, figure in others)
    return f"{text}; {beside}." if beside else f"{text}."


def _called(benchmark: str) -> str:
    return f"the {benchmark}" if benchmark == "index" else benchmark
