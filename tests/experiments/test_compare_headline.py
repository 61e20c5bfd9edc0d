"""The first sentence of a comparison, and its figures without an index, controls or spread."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from matplotlib.ticker import NullFormatter

from bpqp_portfolio.experiments.figures import NARROW, WIDE, frontier, gains, growth
from bpqp_portfolio.experiments.headline import headline
from bpqp_portfolio.experiments.page import write_comparison
from bpqp_portfolio.experiments.plan import Comparison
from bpqp_portfolio.experiments.table import build_table
from bpqp_portfolio.report.style import drawing
from bpqp_portfolio.runs.results import RunResults

DAYS = pd.bdate_range("2019-01-02", periods=300, name="datetime")
METHODS = {
    "ours": {"title": "Ours", "control": ["plain", "slow"]},
    "plain": {"title": "Two-stage"},
    "slow": {"title": "Slow label"},
}


def run(gain: float, seed: int, index: bool = True) -> RunResults:
    market = 0.01 * np.random.default_rng(0).standard_normal(len(DAYS))
    noise = 0.001 * np.random.default_rng(10 + seed).standard_normal(len(DAYS))
    noise -= noise.mean()
    daily = pd.DataFrame(
        {"return": market + noise + gain, "cost": 0.0, "turnover": 0.1 + 1000 * abs(gain)},
        index=DAYS,
    ).assign(bench_equal=market - 1e-4)
    if index:
        daily["bench"] = market
    return RunResults(
        name="r",
        run_id="0",
        created="2020-01-01T00:00:00",
        config={},
        manifest={},
        settings={"market": "sim", "benchmark": "SIM" if index else None, "days_per_year": 250},
        daily=daily,
        signal=pd.DataFrame(index=DAYS),
        weights=pd.DataFrame(columns=["datetime", "instrument", "weight"]),
    )


def table(methods=METHODS, seeds=2, index=True, **gains):
    comparison = Comparison(
        workflow="w.yaml", experiment_name="study", seeds=seeds, methods=methods
    )
    runs = {
        (name, seed): run(gain, 10 * place + seed, index)
        for place, (name, gain) in enumerate(gains.items())
        for seed in range(seeds)
    }
    return build_table(comparison, runs)


@pytest.fixture(scope="module")
def won():
    """A table in which ours beats both of its controls."""
    return table(ours=1e-3, plain=0.0, slow=4e-4)


def said(*arguments, **keywords) -> list[str]:
    return plain(table(*arguments, **keywords))


def plain(shown) -> list[str]:
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in headline(shown)]


def test_a_method_that_beats_its_controls_by_how_much_and_over_which(won):
    (first,) = plain(won)
    found = re.fullmatch(
        r"“Ours” beats both of its controls: net of cost \+15\.0 % a year "
        r"\(95 % from \+([\d.]+) to \+([\d.]+); p < 0\.001, corrected for 2 comparisons\) "
        r"over “Slow label”, the hardest to beat\.",
        first,
    )
    assert found and float(found[1]) < 15 < float(found[2])


def test_nothing_is_distinguishable_where_nothing_is():
    (first,) = said(ours=1e-5, plain=0.0, slow=0.0)
    assert first.startswith("No method beats all of its controls: the largest gain, “Ours” over “")
    assert first.endswith(", not distinguishable from chance.")


def test_a_gain_over_one_control_alone_and_a_loss_are_named():
    first, only, less = said(ours=4e-4, plain=0.0, slow=1e-3)
    assert first.startswith(
        "No method beats all of its controls: the largest gain, “Ours” over “Two"
    )
    assert first.endswith(", distinguishable from chance.")
    assert only == "“Ours” beats only “Two-stage” (+10.0 % a year)."
    assert less == "“Ours” earns less than “Slow label” (−15.0 % a year)."


def test_several_winners_and_the_one_that_wins_by_most():
    methods = {
        "a": {"title": "A", "control": "c"},
        "b": {"title": "B", "control": "c"},
        "c": {"title": "C"},
    }
    (first,) = said(methods, a=1e-3, b=2e-3, c=0.0)
    assert first.startswith(
        "“A” and “B” both beat their controls, “B” by most: net of cost +50.0 %"
    )
    assert first.endswith(" over “C”.")


def test_one_seed_says_that_training_may_vary():
    *_, last = said(seeds=1, ours=1e-3, plain=0.0, slow=0.0)
    assert last == "One seed of each method: how much its training varies is not known."


def test_without_controls_nothing_is_tested():
    bare = {name: {"title": method["title"]} for name, method in METHODS.items()}
    (first,) = said(bare, ours=1e-3, plain=0.0)
    assert first == (
        "“Ours” has the highest return, net of cost +25.0 % a year over the index; no method names "
        "a control, so no difference is tested."
    )
    (first,) = said(bare, plain=1e-3)
    assert first.endswith("nothing to compare it with.")


def test_an_account_that_never_traded_has_no_return(tmp_path):
    still = run(0.0, 0)
    still.daily["turnover"] = 0.0
    shown = build_table(table(plain=0.0).comparison, {("plain", 0): still})
    assert headline(shown)[0] == "No method traded, so there is no return to compare."
    names = {path.name for path in write_comparison(shown, tmp_path)}
    assert not {"gains.svg", "frontier.svg"} & names


def test_without_an_index_returns_are_shown_over_equal_weights(tmp_path):
    shown = table(index=False, ours=1e-3, plain=0.0, slow=4e-4)
    assert shown.benchmark_name == "equal weights"
    assert "Net over equal weights, its / control's" in shown.paired_text()
    level = shown.runs["net_equal"].groupby(level="method").mean()
    assert shown.paired[0].levels == pytest.approx((level["ours"], level["plain"]))
    page = {path.name: path.read_text() for path in write_comparison(shown, tmp_path)}
    assert "Net over equal weights, compounded, %" in page["comparison.html"]
    assert "nan" not in page["comparison.html"].lower()


def test_the_page_and_the_text_open_with_the_sentence_and_a_picture(won, tmp_path):
    page = {path.name: path.read_text() for path in write_comparison(won, tmp_path)}
    html, first = page["comparison.html"], headline(won)[0]
    lead = html.index(f'<p class="lead">{escape(first)}</p>')
    assert lead < html.index("<svg") < html.index("<table")
    assert page["comparison.md"].splitlines()[2] == f"**{first}**"


def test_growth_is_compounded(won):
    with drawing():
        figure = growth(won, WIDE)
    excess = won.net["ours"].sub(won.benchmark, axis=0)
    own = figure.axes[0].lines[-2].get_ydata()
    np.testing.assert_allclose(own, 100 * ((1 + excess).cumprod() - 1).mean(axis=1))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_axis_has_three_numbers(won, width):
    with drawing():
        figures = gains(won, width), frontier(won, width), growth(won, width)
    for figure in figures:
        for ax in figure.axes:
            for axis in (ax.xaxis, ax.yaxis):
                low, high = sorted(axis.get_view_interval())
                places = axis.get_majorticklocs()
                assert not isinstance(axis.get_major_formatter(), NullFormatter)
                if len(places) or axis is ax.xaxis:
                    assert sum(low <= place <= high for place in places) >= 3
