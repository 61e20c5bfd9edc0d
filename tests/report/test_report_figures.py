"""What the figures show, computed by hand; and that each is drawn as a well-formed, themed SVG."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.report.figures import PLOTS, inline_svgs, write_figures
from bpqp_portfolio.report.figures_holdings import (
    mean_weights,
    next_day,
    tracking,
    weight_map,
)
from bpqp_portfolio.report.figures_model import learning, monthly_ic, status_counts
from bpqp_portfolio.report.figures_returns import drawdown, rolling_ratio, rolling_window, wealth
from bpqp_portfolio.report.style import (
    COLOURS,
    COLUMNS,
    NARROW,
    WIDE,
    date_ticks,
    drawing,
    power_of_ten,
)

DAYS = pd.bdate_range("2020-03-02", periods=4)
BY_KEY = {plot.key: plot for plot in PLOTS}


def weights(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["datetime", "instrument", "weight"])
    return table.assign(datetime=pd.to_datetime(table["datetime"]))


def test_wealth_compounds_from_one():
    curve = wealth(pd.Series([0.1, -0.5, 0.2, np.nan], index=DAYS))
    assert curve.index[0] < DAYS[0]
    np.testing.assert_allclose(curve[:4], [1, 1.1, 0.55, 0.66])
    assert np.isnan(curve.iloc[4])


def test_drawdown_counts_a_loss_on_the_first_day():
    fall = drawdown(pd.Series([-0.1, 0.2, -0.25, 0.0], index=DAYS))
    np.testing.assert_allclose(fall, [0, -0.1, 0, -0.25, -0.25])


def test_rolling_ratio_is_the_ratio_of_the_window():
    returns = pd.Series([0.01, 0.03, -0.02, 0.02], index=DAYS)
    ratio = rolling_ratio(returns, 3, 238)
    last = returns.to_numpy()[1:]
    assert ratio.isna().tolist() == [True, True, False, False]
    assert ratio.iloc[-1] == pytest.approx(last.mean() / last.std(ddof=1) * np.sqrt(238))


def test_rolling_ratio_of_a_constant_is_undefined():
    assert rolling_ratio(pd.Series(0.0, index=DAYS), 2, 238).isna().all()


@pytest.mark.parametrize(("days", "window"), [(970, 120), (100, 50), (3, 2), (1, 2)])
def test_window_shrinks_with_the_sample(days, window):
    assert rolling_window(days, 120) == window


def test_monthly_ic(changed):
    days = pd.to_datetime(["2020-12-30", "2020-12-31", "2022-01-04"])
    signal = pd.DataFrame({"ic": [0.1, 0.3, -0.2]}, index=days)
    table = monthly_ic(changed(signal=signal))
    assert table.index.tolist() == [2020, 2021, 2022]
    assert table.columns.tolist() == list(range(1, 13))
    assert table.loc[2020, 12] == pytest.approx(0.2)
    assert table.loc[2022, 1] == pytest.approx(-0.2)
    assert int(table.notna().sum().sum()) == 2


def test_targets_are_compared_with_the_next_close(changed):
    daily = pd.DataFrame({"return": 0.0}, index=DAYS)
    target = weights(
        [
            (DAYS[0], "A", 0.6),
            (DAYS[0], "B", 0.4),
            (DAYS[1], "A", 1.0),
            (DAYS[3], "A", 1.0),  # its trading day lies beyond the backtest
        ]
    )
    held = weights(
        [
            (DAYS[0], "Z", 1.0),  # before the first target could be traded
            (DAYS[1], "A", 0.5),
            (DAYS[1], "C", 0.2),
            (DAYS[2], "A", 1.0),
        ]
    )
    results = changed(daily=daily, weights=target, realised=held, settings={})
    gap = tracking(results)
    assert gap.index.tolist() == [DAYS[1], DAYS[2]]
    np.testing.assert_allclose(gap, [0.1 + 0.4 + 0.2, 0.0], atol=1e-15)
    # What is held as wanted has no gap where the targets are fractions of a part of the account.
    invested = changed(
        daily=daily,
        weights=target,
        realised=held.assign(weight=0.98 * held["weight"]),
        settings={"account": {"value": 1e6, "risk_degree": 0.98}},
    )
    np.testing.assert_allclose(tracking(invested), 0.98 * gap, atol=1e-15)


def test_next_day_skips_the_weekend():
    stamps = pd.Series([DAYS[0], DAYS[0] - pd.Timedelta(days=1), DAYS[3]])
    assert next_day(stamps, DAYS)[:2].tolist() == [DAYS[1], DAYS[0]]
    assert next_day(stamps, DAYS).isna().tolist() == [False, False, True]


def test_mean_weight_counts_absent_days_as_zero(changed):
    table = weights([(DAYS[0], "A", 1.0), (DAYS[1], "A", 0.2), (DAYS[1], "B", 0.8)])
    means = mean_weights(changed(weights=table))
    assert means.to_dict() == pytest.approx({"A": 0.6, "B": 0.4})
    assert means.index.tolist() == ["A", "B"]


def test_weight_map_groups_days(changed):
    days = pd.bdate_range("2019-01-01", periods=2 * COLUMNS)
    table = weights([(day, "A", 0.25 if i % 2 else 0.75) for i, day in enumerate(days)])
    shown, edges, length = weight_map(changed(weights=table))
    assert length == 2 and shown.shape == (1, COLUMNS)
    np.testing.assert_allclose(shown, 0.5)
    assert shown.columns.tolist() == days[::2].tolist() == edges[:-1].tolist()


def test_status_counts(run):
    counts = status_counts(run)
    assert counts.index[0] == "solved" and counts.sum() == len(run.signal)


@pytest.mark.parametrize(
    ("value", "text"), [(1e-6, "10⁻⁶"), (1.0, "10⁰"), (1e-16, "10⁻¹⁶"), (100.0, "10²")]
)
def test_power_of_ten(value, text):
    assert power_of_ten(value) == text


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.key)
def test_figure_is_well_formed_themed_and_alone(run, plot):
    for svg in inline_svgs(plot, run):
        root = ElementTree.fromstring(svg)
        assert root.get("viewBox") and root.get("aria-label") == plot.title
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids)) and all(i.startswith(plot.key) for i in ids)
        known = set(ids)
        for reference in re.findall(r'(?:url\(#|href="#)([^)"]+)', svg):
            assert reference in known
        # Colours of the theme are variables; nothing else but the heat map's pixels has one.
        left = set(re.findall(r"#[0-9a-fA-F]{6}\b", re.sub(r"data:[^\"]+", "", svg)))
        assert not left & {light for light, _ in COLOURS.values()}
        assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_figures_leave_matplotlib_as_it_was(run):
    before = dict(mpl.rcParams)
    inline_svgs(BY_KEY["growth"], run)
    assert dict(mpl.rcParams) == before


def test_names_are_text_and_never_markup(changed):
    name = "$x^2$"
    table = weights([(day, name, 1.0) for day in DAYS])
    svg, _ = inline_svgs(BY_KEY["weights"], changed(weights=table))
    labels = [e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]
    assert name in labels


def test_the_epoch_that_was_kept_is_in_the_legend_and_over_no_curve(run, changed):
    with drawing():
        marked, unmarked = learning(run, WIDE), learning(changed(best_epoch=None), WIDE)
    for ax in marked.axes:
        *_, line = ax.lines
        assert line.get_label() == "kept" and line.get_xdata()[0] == run.best_epoch
        assert "kept" in [text.get_text() for text in ax.get_legend().get_texts()]
        # The only text is the heading, above the panel.
        assert [text.get_position()[1] > 1 for text in ax.texts] == [True]
    assert all(line.get_label() != "kept" for ax in unmarked.axes for line in ax.lines)


def labels_in_view(axis) -> int:
    """Numbers or dates that stand along an axis."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    places = axis.get_majorticklocs()
    texts = axis.get_major_formatter().format_ticks(places)
    return sum(
        bool(t) and low - slack <= x <= high + slack for x, t in zip(places, texts, strict=True)
    )


@pytest.mark.parametrize(("days", "width"), [(None, WIDE), (None, NARROW), (12, WIDE), (3, NARROW)])
def test_every_axis_has_three_labels(run, changed, days, width):
    """Or as many as there are days or epochs, on the axes of names none at all."""
    results = run if days is None else changed(**first_days(run, days))
    for plot in PLOTS:
        with drawing():
            figure = plot.draw(results, width)
        assert figure is not None or (plot.key, days) in {
            ("ratio", 12),
            ("ratio", 3),
            ("signal", 1),
        }
        for ax in figure.axes if figure else []:
            if not ax.axison or not ax.get_xticks().size:
                continue
            assert labels_in_view(ax.xaxis) >= 3, (plot.key, "x")
            names = plot.key in ("weights", "binding", "ic")
            assert names or labels_in_view(ax.yaxis) >= 3, (plot.key, "y")


def first_days(run, days: int) -> dict[str, pd.DataFrame]:
    """The tables of the first ``days`` signal days and of their trades."""
    until = run.daily.index[days - 1]
    tables = {name: getattr(run, name) for name in ("weights", "realised", "activity", "events")}
    cut = {name: table[table["datetime"] <= until] for name, table in tables.items()}
    return cut | {
        "daily": run.daily.iloc[:days],
        "signal": run.signal.iloc[:days],
        "implementation_shortfall": run.implementation_shortfall.iloc[:days],
    }


@pytest.mark.parametrize("most", [5, 6, 10])
def test_dates_of_any_span_are_three_or_more_and_fit(most):
    starts = ["2019-01-01", "2019-12-20", "2016-02-29", "2021-06-30"]
    for start in starts:
        for count in [
            1,
            2,
            3,
            4,
            7,
            10,
            13,
            21,
            30,
            44,
            61,
            90,
            150,
            250,
            400,
            520,
            970,
            2011,
            8000,
        ]:
            days = pd.bdate_range(start, periods=count)
            ticks, form = date_ticks(days, most)
            assert min(3, count) <= len(ticks) <= most, (start, count)
            assert days[0] <= ticks[0] and ticks[-1] <= days[-1]
            assert len({f"{day:{form}}" for day in ticks}) == len(ticks)


def test_a_panel_with_nothing_in_it_is_one_line(run, changed):
    daily = run.daily.assign(blocked=0.0, orders=30.0, turnover=0.0)
    still = changed(daily=daily, signal=run.signal.assign(kkt_norm=1e-18))
    for key, text in (
        ("realised", "Orders that could not be traded: none of 7,800"),
        ("concentration", "One-way turnover: none, the account never traded"),
        ("solver", "KKT norm of each day's solve: never above 10⁻¹⁶, rounding error"),
    ):
        with drawing():
            figure = BY_KEY[key].draw(still, WIDE)
        (empty,) = [ax for ax in figure.axes if not ax.axison]
        assert [t.get_text() for t in empty.texts] == [text] and not empty.lines


def test_learning_has_a_line_for_each_network(run, changed):
    """Joined into one, the epochs of several networks would run back and forth."""
    several = pd.concat(
        [run.epochs.assign(member=i, valid_ic=run.epochs["valid_ic"] + 0.01 * i) for i in (1, 2)]
    )
    figure = learning(changed(epochs=several, best_epoch=None), 640)
    assert figure is not None
    for ax in figure.axes:
        assert all(np.all(np.diff(line.get_xdata()) > 0) for line in ax.lines)
    assert [len(ax.lines) for ax in figure.axes] == [4, 4, 2]
    assert len(figure.axes[-1].get_legend_handles_labels()[1]) == 1


def test_figures_as_files(changed, tmp_path):
    paths = write_figures(changed(epochs=pd.DataFrame({"epoch": []})), tmp_path / "figures")
    assert {path.stem for path in paths} == set(BY_KEY) - {"learning"}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(--" not in text and COLOURS["muted"][0] in text


def test_a_day_without_a_decision_is_none_that_failed(run):
    signal = run.signal.assign(status="solved")
    signal.loc[signal.index[-1], "status"] = "no decision"
    counts = status_counts(replace(run, signal=signal))
    assert counts.to_dict() == {"solved": len(signal) - 1}
