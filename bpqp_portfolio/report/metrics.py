"""The final table of a run: annual figures by its market's year."""

from __future__ import annotations

import math

import pandas as pd

from ..runs.results import RunResults

FEWEST = 20
"""Trading days below which no annual figure is given: about a month."""

BOOK_METRICS = ("annual_return", "annual_volatility", "information_ratio", "max_drawdown")

METRICS = {
    "ic": ("IC", "{:.4f}"),
    "icir": ("ICIR, daily", "{:.3f}"),
    "rank_ic": ("Rank IC", "{:.4f}"),
    "rank_icir": ("Rank ICIR, daily", "{:.3f}"),
    "mse": ("MSE, returns standardised by day", "{:.5f}"),
    "regret": ("Regret a day", "{:.3%}"),
    "regret_equal": ("Regret of equal weights", "{:.3%}"),
    "regret_shuffled": ("Regret of shuffled scores", "{:.3%}"),
    "decision_value": ("Decision value a day", "{:.3%}"),
    "annual_return": ("Annual return", "{:.2%}"),
    "annual_volatility": ("Annual volatility", "{:.2%}"),
    "information_ratio": ("Sharpe or information ratio", "{:.2f}"),
    "max_drawdown": ("Maximum drawdown", "{:.2%}"),
    "turnover": ("One-way turnover a day", "{:.1%}"),
    "annual_cost": ("Cost a year", "{:.2%}"),
    "names_held": ("Names held", "{:.1f}"),
    "effective_names": ("Effective names", "{:.1f}"),
    "blocked": ("Blocked orders a day", "{:.2f}"),
    "blocked_share": ("Share of orders blocked", "{:.2%}"),
    "trading_days": ("Trading days", "{:,.0f}"),
}
"""Metric → its label and format."""


def books(results: RunResults) -> dict[str, pd.Series]:
    """Daily return series by name, all on ``results.daily``'s days.

    ``gross`` (before cost), ``net`` (gross − cost), ``index``, ``equal`` and the four excess
    series ``gross_index``, ``net_index``, ``gross_equal``, ``net_equal`` (book − benchmark).
    """
    gross = results.series("daily", "return")
    net = gross - results.series("daily", "cost")
    bench = {
        "index": results.series("daily", "bench"),
        "equal": results.series("daily", "bench_equal"),
    }
    excess = {
        f"{book}_{name}": series - benchmark
        for name, benchmark in bench.items()
        for book, series in (("gross", gross), ("net", net))
    }
    return {"gross": gross, "net": net, **bench, **excess}


def wealth(returns: pd.Series) -> pd.Series:
    """Compounded growth of 1, with the 1 itself on the eve of the first day: (T + 1,)."""
    eve = returns.index[:1] - pd.Timedelta(days=1)
    start = pd.Series(1.0 if returns.notna().any() else math.nan, index=eve)
    return pd.concat([start, (1 + returns).cumprod()])


def drawdown(returns: pd.Series) -> pd.Series:
    """Compounded wealth relative to its highest point so far, minus 1: (T + 1,).

    >>> days = pd.bdate_range("2020-01-01", periods=2)
    >>> drawdown(pd.Series([0.1, -0.5], days)).round(6).tolist()
    [0.0, 0.0, -0.5]
    """
    curve = wealth(returns)
    return curve / curve.cummax() - 1


def annual(mean: float, days: int, days_per_year: float) -> float:
    """A daily mean over ``days`` as a figure a year; NaN where they are fewer than FEWEST."""
    return mean * days_per_year if days >= FEWEST else math.nan


def risk(returns: pd.Series, days_per_year: float) -> dict[str, float]:
    """Annual figures of a daily return series (T,), and its largest drawdown.

    Arithmetic: return = N·mean, volatility = √N·std (ddof 1) with N = ``days_per_year``,
    information ratio = return / volatility (of a book that is no excess, its Sharpe ratio at a
    risk-free rate of zero): Qlib's ``risk_analysis``, whose N is 238. The drawdown is the largest
    fall of the *compounded* returns, those over a benchmark too, from their highest point, the
    start included; it is never below −1. NaN days are left out; the annual figures of fewer than
    FEWEST days are NaN.
    """
    mean, std, root = returns.mean(), returns.std(ddof=1), math.sqrt(days_per_year)
    figures = {
        "annual_return": mean * days_per_year,
        "annual_volatility": std * root,
        "information_ratio": mean / std * root if std > 0 else math.nan,
    }
    if returns.notna().sum() < FEWEST:
        figures = dict.fromkeys(figures, math.nan)
    return {**figures, "max_drawdown": drawdown(returns).min()}


def cautions(results: RunResults) -> list[str]:
    """What limits the conclusions of a short test, one sentence each; none of a long one."""
    days, out = len(results.daily), []
    if days < FEWEST:
        out.append(
            f"{counted(days, 'trading day')}: too few for any figure a year, which takes {FEWEST}."
        )
    elif results.years < 1:
        out.append(
            f"{counted(days, 'trading day')} are {results.years:.2f} years: the standard error of "
            f"an annual information ratio is about 1/√years = {results.years**-0.5:.1f}, so the "
            "figures a year are mostly noise."
        )
    return out


def never_traded(results: RunResults) -> bool:
    """Did the account buy nothing on any day? False where the run has no turnover."""
    turnover = results.series("daily", "turnover")
    return bool(turnover.notna().any() and not turnover.fillna(0.0).any())


def counted(number: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "day"), counted(1200, "day")
    ('1 day', '1,200 days')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def summarise(results: RunResults) -> pd.DataFrame:
    """The final table: index ``(section, metric)``, columns ``without_cost`` and ``with_cost``.

    Sections: ``signal``, ``portfolio``, ``excess_index``, ``excess_equal`` (portfolio minus the
    index, minus the equally weighted universe), ``index``, ``equal`` and ``trading``; metrics are
    the keys of :data:`METRICS`. Returns, drawdowns, regret, cost and turnover are fractions.
    ``with_cost`` is NaN where cost does not enter, and so is every figure that the run has no
    data for.

    IC figures are means over signal days; ICIR is mean / std (ddof 1) of the daily IC, not
    annualised, as Qlib's ``SigAnaRecord`` has it. One-way turnover is half of what Qlib reports,
    which counts buys and sells both. The other conventions are :func:`risk`'s. Of an account that
    never traded, the portfolio's figures are NaN.
    """
    series, year = books(results), results.days_per_year
    if never_traded(results):
        own = [name for name in series if name.startswith(("gross", "net"))]
        series |= {name: series[name] * math.nan for name in own}
    rows: dict[tuple[str, str], tuple[float, float]] = {}

    def both(section: str, without: pd.Series, with_cost: pd.Series | None) -> None:
        left = risk(without, year)
        right = risk(with_cost, year) if with_cost is not None else dict.fromkeys(left, math.nan)
        for metric, value in left.items():
            rows[section, metric] = value, right[metric]

    def one(section: str, metric: str, value: float) -> None:
        rows[section, metric] = value, math.nan

    for name in ("ic", "rank_ic"):
        daily = results.series("signal", name)
        std = daily.std(ddof=1)
        one("signal", name, daily.mean())
        one("signal", f"{name}ir", daily.mean() / std if std > 0 else math.nan)
    for name in ("mse", "regret", "regret_equal", "regret_shuffled", "decision_value"):
        one("signal", name, results.series("signal", name).mean())
    both("portfolio", series["gross"], series["net"])
    both("excess_index", series["gross_index"], series["net_index"])
    both("excess_equal", series["gross_equal"], series["net_equal"])
    both("index", series["index"], None)
    both("equal", series["equal"], None)
    one("trading", "turnover", results.series("daily", "turnover").mean() / 2)
    cost = results.series("daily", "cost").mean()
    one("trading", "annual_cost", annual(cost, len(results.daily), year))
    one("trading", "trading_days", len(results.daily))
    for name in ("names_held", "effective_names", "blocked"):
        one("trading", name, results.series("daily", name).mean())
    orders = results.series("daily", "orders").sum()
    blocked = results.series("daily", "blocked").sum()
    one("trading", "blocked_share", blocked / orders if orders > 0 else math.nan)

    table = pd.DataFrame.from_dict(rows, orient="index", columns=["without_cost", "with_cost"])
    table.index = pd.MultiIndex.from_tuples(table.index, names=["section", "metric"])
    return table.astype(float)


def flatten(summary: pd.DataFrame) -> dict[str, float]:
    """The finite figures of ``summary`` under names that a tracker takes, prefix ``bpqp.``.

    ``bpqp.regret`` for what cost does not enter, ``bpqp.excess_index.annual_return.with_cost``
    (and ``.without_cost``) for the books, ``bpqp.index.annual_return`` for the benchmarks.
    """
    out = {}
    for (section, metric), row in summary.iterrows():
        if section in ("signal", "trading"):
            names = {"without_cost": f"bpqp.{metric}"}
        elif section in ("index", "equal"):
            names = {"without_cost": f"bpqp.{section}.{metric}"}
        else:
            names = {cost: f"bpqp.{section}.{metric}.{cost}" for cost in summary.columns}
        out.update({name: float(row[c]) for c, name in names.items() if math.isfinite(row[c])})
    return out


def book_rows(summary: pd.DataFrame, index: str = "index") -> list[tuple[str, list[str]]]:
    """Rows of the table of books: a label, and :data:`BOOK_METRICS` as text.

    A book with no figure at all (a benchmark that the run does not have) has no row.
    """
    books_shown = (
        ("portfolio", "Portfolio"),
        ("excess_index", f"Over {index}"),
        ("excess_equal", "Over equal weights"),
    )
    rows = [
        (f"{label}, {cost.replace('_', ' ')}", section, cost)
        for section, label in books_shown
        for cost in ("without_cost", "with_cost")
    ]
    rows += [
        (index[:1].upper() + index[1:], "index", "without_cost"),
        ("Equal weights", "equal", "without_cost"),
    ]
    out = []
    for label, section, cost in rows:
        values = summary.loc[section][cost].reindex(BOOK_METRICS)
        if values.notna().any():
            out.append((label, [format_metric(m, v) for m, v in values.items()]))
    return out


def other_rows(summary: pd.DataFrame, section: str) -> list[tuple[str, str]]:
    """Label and text of each figure of the section ``signal`` or ``trading`` that is there."""
    values = summary.loc[section]["without_cost"].dropna()
    return [(METRICS[metric][0], format_metric(metric, v)) for metric, v in values.items()]


def format_metric(metric: str, value: float) -> str:
    """``value`` as the tables print it, with a true minus sign; an en dash for none."""
    if not math.isfinite(value):
        return "–"
    return METRICS[metric][1].format(value).replace("-", "−").replace("%", "\N{NO-BREAK SPACE}%")
