"""The cards under the first sentence: a figure each, with its sign, interval and reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from ..runs.results import RunResults
from .figures_model import status_counts
from .headline import EQUAL_WEIGHTS, MINUS, Excess, excesses, interval, returns_of_days
from .metrics import FEWEST, books, counted, format_metric
from .statistics import Difference, mean_difference

GOOD, BAD = "good", "bad"
NOT_RECORDED = "not recorded by this run"
REFERENCES = {"equal weights": "regret_equal", "shuffled scores": "regret_shuffled"}
"""What regret stands beside → its column of ``signal``."""

Value = Callable[..., str]
"""A figure of the summary as text, of its section, metric and, by default gross, cost."""
_COST = {True: ("with_cost", "net"), False: ("without_cost", "before cost")}


@dataclass(frozen=True)
class Card:
    """A figure as text, what it is, and what it is compared with.

    ``tone`` is good or bad as the figure's sign or the note says, empty where there is nothing to
    praise or blame; ``sure`` that chance does not explain it: its interval excludes zero.
    """

    label: str
    value: str
    note: str
    tone: str = ""
    sure: bool = False


def cards(results: RunResults, summary: pd.DataFrame) -> list[Card]:
    """The cards of a run, whose figures are those of ``summary`` of :func:`~.metrics.summarise`."""
    value, found = partial(_value, summary), excesses(results)
    first = [_excess(one, value) for one in found] or [_of_days(results)]
    if found and found[0].benchmark and not results.has_index:
        first.insert(0, _own(results, value))
    makers: tuple[Callable[..., Card], ...] = (_sharpe, _drawdown, _ic, _regret, _trading, _solved)
    return first + [make(results, value) for make in makers]


def _value(
    summary: pd.DataFrame,
    section: str,
    metric: str,
    cost: str = "without_cost",
    *,
    sign: bool = False,
) -> str:
    """A figure of the summary as text, with a plus sign where ``sign`` is wanted."""
    number = summary.loc[(section, metric), cost]
    text = format_metric(metric, number)
    return f"+{text}" if sign and number > 0 else text


def _tone(text: str) -> str:
    """Of a figure with a sign."""
    return {"+": GOOD, MINUS: BAD}.get(text[:1], "")


def _excess(excess: Excess, value: Value) -> Card:
    """The annual return over a benchmark, or the return itself."""
    cost, kind = _COST[excess.net]
    section = "excess_index"
    if excess.benchmark in ("", EQUAL_WEIGHTS):
        section = "excess_equal" if excess.benchmark else "portfolio"
    figure = value(section, "annual_return", cost, sign=True)
    note = f"a year, {kind}; {interval(excess.difference)}"
    if excess.benchmark:
        note += f"; IR {value(section, 'information_ratio', cost)}"
    label = f"Over {excess.benchmark}" if excess.benchmark else "Return"
    return Card(label, figure, note, _tone(figure), excess.difference.sign != 0)


def _own(results: RunResults, value: Value) -> Card:
    """The annual return of a run without an index."""
    (cost, kind), mean = _book(results), _mean(results)
    figure = value("portfolio", "annual_return", cost, sign=True)
    return Card(
        "Return", figure, f"a year, {kind}; {interval(mean)}", _tone(figure), mean.sign != 0
    )


def _of_days(results: RunResults) -> Card:
    """The compounded return of a test too short for a figure a year."""
    own, *others = returns_of_days(results)
    beside = "; ".join(f"{name} {text}" for name, text in others)
    days = f"in {counted(len(results.daily), 'trading day')}"
    return Card(own[0], own[1], f"{days}; {beside}" if beside else days, _tone(own[1]))


def _benchmarks(results: RunResults, value: Value, metric: str) -> str:
    """The figure of both benchmarks, as far as the run has them."""
    named = (("index", results.benchmark), ("equal", EQUAL_WEIGHTS))
    return "".join(f"; {name} {text}" for key, name in named if (text := value(key, metric)) != "–")


def _sharpe(results: RunResults, value: Value) -> Card:
    cost, kind = _book(results)
    figure = value("portfolio", "information_ratio", cost, sign=True)
    if figure == "–":
        short = len(results.daily) < FEWEST
        return Card("Sharpe ratio", figure, f"takes {FEWEST} trading days" if short else "no risk")
    note = kind + _benchmarks(results, value, "information_ratio")
    return Card("Sharpe ratio", figure, note, _tone(figure), _mean(results).sign != 0)


def _drawdown(results: RunResults, value: Value) -> Card:
    cost, kind = _book(results)
    figure = value("portfolio", "max_drawdown", cost)
    return Card("Max drawdown", figure, kind + _benchmarks(results, value, "max_drawdown"))


def _book(results: RunResults) -> tuple[str, str]:
    """The column of the book that is shown, and what it is."""
    return _COST[bool(results.series("daily", "cost").notna().any())]


def _mean(results: RunResults) -> Difference:
    """The annual return of the book that is shown."""
    series = books(results)
    own = series["net"] if series["net"].notna().any() else series["gross"]
    return mean_difference(own, days_per_year=results.days_per_year)


def _ic(results: RunResults, value: Value) -> Card:
    daily = results.series("signal", "ic").dropna()
    figure = value("signal", "ic", sign=True)
    if figure == "–":
        return Card("IC", figure, NOT_RECORDED)
    if len(daily) < FEWEST:
        return Card("IC", figure, f"ICIR {value('signal', 'icir')}", _tone(figure))
    mean = mean_difference(daily, days_per_year=1)
    low, high = (format_metric("ic", bound) for bound in (mean.low, mean.high))
    level = f"{100 * mean.level:g}\N{NO-BREAK SPACE}%"
    note = f"{level} from {low} to {high}; ICIR {value('signal', 'icir')}"
    return Card("IC", figure, note, _tone(figure), mean.sign != 0)


def _regret(results: RunResults, value: Value) -> Card:
    """Regret, where hindsight has none, beside that of portfolios that know nothing."""
    figure, own = value("signal", "regret"), results.series("signal", "regret")
    if figure == "–":
        return Card("Regret", figure, NOT_RECORDED)
    known = {name: results.series("signal", column) for name, column in REFERENCES.items()}
    gains = {name: daily - own for name, daily in known.items() if (daily - own).notna().any()}
    if not gains:
        return Card("Regret", figure, f"a day; hindsight 0; equal weights {NOT_RECORDED}")
    below = {name: bool(gain.mean() > 0) for name, gain in gains.items()}
    side = {True: "below", False: "above"}
    beside = ", ".join(
        f"{side[below[name]]} {name} {format_metric('regret', known[name].mean())}"
        for name in gains
    )
    tone = GOOD if all(below.values()) else "" if any(below.values()) else BAD
    sure = all(
        gain.count() >= FEWEST and mean_difference(gain, days_per_year=1).sign
        for gain in gains.values()
    )
    return Card("Regret", figure, f"a day, {beside}; hindsight 0", tone, bool(tone) and sure)


def _trading(results: RunResults, value: Value) -> Card:
    cost, held = value("trading", "annual_cost"), value("trading", "names_held")
    figure = value("trading", "turnover")
    parts = [f"cost {cost} a year"] if cost != "–" else []
    parts += [f"{held} names held"] if held != "–" else []
    return Card("One-way turnover", figure, "; ".join(["a day", *parts]))


def _solved(results: RunResults, value: Value) -> Card:
    counts = status_counts(results)
    total = int(counts.sum())
    if not total:
        return Card("Solved", "–", "no problem was solved in this run")
    share = counts.get("solved", 0) / total
    figure = f"{100 * share:.4g}\N{NO-BREAK SPACE}%"
    return Card("Solved", figure, f"of {counted(total, 'problem')}", "" if share == 1 else BAD)
