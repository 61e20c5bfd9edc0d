"""The metrics of a tracked run: their units and meaning, and which of them Qlib tracks itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class TrackedMetric:
    """Metrics that a pattern names (``*`` for any text), their unit, and what they are."""

    name: str
    unit: str
    text: str


_YEAR, _QLIBS = "fraction a year", "fraction a year of 238 days"
METRICS = tuple(
    TrackedMetric(*row)
    for row in (
        ("IC", "correlation", "mean over test days of scores with the returns they forecast"),
        ("ICIR", "ratio, daily", "IC over its standard deviation"),
        ("Rank IC", "correlation", "the same of ranks"),
        ("Rank ICIR", "ratio, daily", "Rank IC over its standard deviation"),
        ("1day.excess_return_*.annualized_return", _QLIBS, "over the index, arithmetic; Qlib's"),
        ("1day.excess_return_*.information_ratio", "ratio, of 238 days", "over the index; Qlib's"),
        ("1day.excess_return_*.max_drawdown", "fraction", "of summed returns over the index, which "
         "may fall below −1; Qlib's"),
        ("1day.excess_return_*.mean", "fraction a day", "over the index; Qlib's"),
        ("1day.excess_return_*.std", "fraction a day", "over the index; Qlib's"),
        ("1day.ffr", "fraction", "of the ordered amount that was traded; Qlib's"),
        ("1day.pa", "fraction", "price advantage of the trades; Qlib's"),
        ("1day.pos", "fraction", "of the trades with a price advantage; Qlib's"),
        ("bpqp.ic", "correlation", "as IC, of the return that decisions earn"),
        ("bpqp.icir", "ratio, daily", "bpqp.ic over its standard deviation"),
        ("bpqp.rank_ic", "correlation", "as Rank IC, of the return that decisions earn"),
        ("bpqp.rank_icir", "ratio, daily", "bpqp.rank_ic over its standard deviation"),
        ("bpqp.mse", "variances of a day's returns", "squared error; 1 is no information"),
        ("bpqp.regret", "fraction a day", "objective lost against the hindsight portfolio"),
        ("bpqp.regret_equal", "fraction a day", "that of equal weights on the same days"),
        ("bpqp.regret_shuffled", "fraction a day", "that of the forecasts dealt out at random"),
        ("bpqp.decision_value", "fraction a day", "objective of what was held at the true returns"),
        ("bpqp.truth.*.regret", "fraction a day", "objective lost against the true optimum"),
        ("bpqp.truth.*.expected", _YEAR, "true expected return over equal weights, after cost"),
        ("bpqp.truth.*.realised", _YEAR, "return over equal weights, after cost"),
        ("bpqp.truth.*.turnover", "fraction a day", "bought, of the account"),
        ("bpqp.*.annual_return*", _YEAR, "of a book, arithmetic, by the market's days a year"),
        ("bpqp.*.annual_volatility*", _YEAR, "standard deviation"),
        ("bpqp.*.information_ratio*", "ratio", "annual return over volatility, or Sharpe ratio"),
        ("bpqp.*.max_drawdown*", "fraction", "largest fall of compounded returns"),
        ("bpqp.annual_cost", _YEAR, "paid for trading, of the account"),
        ("bpqp.turnover", "fraction a day", "one way, of the account"),
        ("bpqp.names_held", "names", "mean over days"),
        ("bpqp.effective_names", "names", "1/Σw² of the targets, mean over days"),
        ("bpqp.blocked", "orders a day", "that a suspension or a price limit stopped"),
        ("bpqp.blocked_share", "fraction", "of the orders that were stopped"),
        ("bpqp.trading_days", "days", "of the test"),
        ("bpqp.excluded_name_days", "name-days", "left out as invalid"),
        ("bpqp.kkt_norm", "norm, scaled", "largest KKT residual of a day's solution"),
        ("bpqp.iterations", "iterations a day", "of the solver"),
        ("bpqp.solver.*", "days", "whose solve ended so"),
        ("bpqp.mandate.fallback*", "days", "on which a fallback was taken"),
        ("bpqp.mandate.by_cones", "days", "solved by the cone solver"),
        ("bpqp.mandate.gap", "fraction of the account", "off the targets, summed over names"),
        ("bpqp.mandate.gap_annual_return", _YEAR, "earned on that difference"),
        ("bpqp.mandate.orders", "orders", "in all"),
        ("bpqp.mandate.cut", "orders", "that the cash could not pay whole"),
        ("bpqp.learned.kappa", "fraction a day", "the learned return of a standardised score of 1"),
        ("bpqp.learned.*", "log of a scale", "mean size of what the network adds to the risk"),
        ("bpqp.*kappa", "fraction a day", "by epoch"),
        ("bpqp.*best_epoch", "epoch", "whose network was kept"),
        ("bpqp.*valid_ic", "correlation", "of the validation days, by epoch"),
        ("bpqp.*train_loss", "the loss's", "by epoch"),
        ("bpqp.*valid_loss", "the loss's", "by epoch"),
        ("bpqp.*_prediction", "variances of a day's returns", "squared error, by epoch"),
        ("bpqp.*_decision", "the loss's", "its part that goes through the problem, by epoch"),
        ("bpqp.*epoch_seconds", "seconds", "of an epoch"),
        ("bpqp.*epoch_train_seconds", "seconds", "of an epoch without its validation"),
        ("bpqp.seconds.*", "seconds", "of a stage of the run"),
    )
)  # fmt: skip
"""In order: the first pattern that a metric has describes it. Fractions: 0.01 is 1 %."""

SAME = {
    "bpqp.ic": "IC",
    "bpqp.icir": "ICIR",
    "bpqp.rank_ic": "Rank IC",
    "bpqp.rank_icir": "Rank ICIR",
    **{
        f"bpqp.excess_index.{ours}.{cost}": f"1day.excess_return_{cost}.{qlibs}"
        for ours, qlibs in (
            ("annual_return", "annualized_return"),
            ("information_ratio", "information_ratio"),
        )
        for cost in ("with_cost", "without_cost")
    },
}
"""Metrics of ours and of Qlib's that are the same number where label and days a year agree."""
AGREE = 1e-4  # relative: Qlib computes its own in single precision


def tracked_once(figures: Mapping[str, float], known: Mapping[str, float]) -> dict[str, float]:
    """Those of ``figures`` that are not ``known`` already, under their own name or Qlib's.

    >>> tracked_once({"bpqp.ic": 0.05, "bpqp.regret": 0.01, "bpqp.blocked": 0.0},
    ...              {"IC": 0.05, "bpqp.blocked": 0.0})
    {'bpqp.regret': 0.01}
    """
    return {
        name: value
        for name, value in figures.items()
        if name not in known
        and not math.isclose(value, known.get(SAME.get(name, ""), math.nan), rel_tol=AGREE)
    }


def described(names: Iterable[str]) -> list[TrackedMetric]:
    """The descriptions that metrics of these ``names`` have, in order; none twice."""
    found = {_first(name) for name in names}
    return [metric for metric in METRICS if metric in found]


def _first(name: str) -> TrackedMetric | None:
    return next((metric for metric in METRICS if fnmatchcase(name, metric.name)), None)
