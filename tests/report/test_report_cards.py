"""The cards: their figures are the table's, with sign, reference, and what is sure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.report.cards import BAD, GOOD, Card, cards
from bpqp_portfolio.report.metrics import FEWEST, format_metric, summarise


def by_label(results) -> dict[str, Card]:
    return {card.label: card for card in cards(results, summarise(results))}


def test_they_are_the_tables_figures_with_a_sign(run):
    shown, summary = by_label(run), summarise(run)
    for label, section, metric in (
        ("Over SH000300", "excess_index", "annual_return"),
        ("Over equal weights", "excess_equal", "annual_return"),
        ("Sharpe ratio", "portfolio", "information_ratio"),
    ):
        number = summary.loc[(section, metric), "with_cost"]
        sign = "+" if number > 0 else ""
        assert shown[label].value == sign + format_metric(metric, number)
        assert shown[label].tone == (GOOD if number > 0 else BAD)
    index = format_metric(
        "information_ratio", summary.loc[("index", "information_ratio"), "without_cost"]
    )
    assert f"SH000300 {index}" in shown["Sharpe ratio"].note
    assert shown["Max drawdown"].value.startswith("−") and not shown["Max drawdown"].tone
    assert len(shown) == 8


def test_what_chance_may_explain_is_not_sure(run, changed):
    over = {}
    for name, gain in (("sure", 0.01), ("unsure", 1e-5), ("lost", -0.01)):
        noise = np.random.default_rng(1).normal(0, 0.004, len(run.daily))
        own = run.daily["bench"] + noise - noise.mean() + gain
        results = changed(daily=run.daily.assign(**{"return": own, "cost": 0.0}))
        over[name] = by_label(results)["Over SH000300"]
    assert [(card.tone, card.sure) for card in over.values()] == [
        (GOOD, True),
        (GOOD, False),
        (BAD, True),
    ]


def test_regret_stands_beside_equal_weights_and_shuffled_scores(run, changed):
    card = by_label(run)["Regret"]
    known = [run.signal[name].mean() for name in ("regret_equal", "regret_shuffled")]
    equal, shuffled = (format_metric("regret", mean) for mean in known)
    assert card.note == (
        f"a day, below equal weights {equal}, below shuffled scores {shuffled}; hindsight 0"
    )
    assert (card.tone, card.sure) == (GOOD, True)
    signal = run.signal.assign(regret_equal=run.signal["regret"] - 0.001)
    between = by_label(changed(signal=signal))["Regret"]
    assert "above equal weights" in between.note and between.tone == "" and not between.sure
    signal = signal.assign(regret_shuffled=signal["regret_equal"])
    worse = by_label(changed(signal=signal))["Regret"]
    assert (worse.tone, worse.sure) == (BAD, True)


def test_references_that_an_earlier_run_did_not_store_are_said_to_be_missing(run, changed):
    earlier = changed(signal=run.signal.drop(columns=["regret_equal", "regret_shuffled"]))
    card = by_label(earlier)["Regret"]
    assert card.note == "a day; hindsight 0; equal weights not recorded by this run"


def test_a_run_without_an_index_shows_its_own_return(run, changed):
    shown = by_label(changed(daily=run.daily.drop(columns="bench")))
    assert list(shown)[:2] == ["Return", "Over equal weights"] and len(shown) == 8
    own = summarise(run).loc[("portfolio", "annual_return"), "with_cost"]
    assert shown["Return"].value.lstrip("+") == format_metric("annual_return", own)
    alone = by_label(changed(daily=run.daily[["return"]]))
    assert "before cost" in alone["Return"].note and len(alone) == 7


@pytest.mark.parametrize("days", [1, FEWEST - 1])
def test_a_short_test_shows_the_return_of_its_days(run, changed, days):
    shown = by_label(changed(daily=run.daily.iloc[:days], signal=run.signal.iloc[:days]))
    total = ((1 + run.daily["return"] - run.daily["cost"]).iloc[:days].prod() - 1) * 100
    assert shown["Net return"].value == f"{total:+.1f}\N{NO-BREAK SPACE}%".replace("-", "−")
    assert shown["Sharpe ratio"].value == "–" and "20 trading days" in shown["Sharpe ratio"].note
    assert not any(card.sure for card in shown.values())


def test_a_problem_that_was_not_solved_is_bad(run, changed):
    signal = run.signal.assign(status="solved")
    assert by_label(changed(signal=signal))["Solved"].tone == ""
    signal.iloc[0, signal.columns.get_loc("status")] = "max_iterations"
    card = by_label(changed(signal=signal))["Solved"]
    assert card.tone == BAD and card.value.startswith("99.6")
    assert by_label(changed(signal=pd.DataFrame()))["Solved"].value == "–"
