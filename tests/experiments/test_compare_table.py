"""The comparison's table: means and spreads over seeds, paired gains and their parts, the page."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from itertools import groupby

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.errors import DataError
from bpqp_portfolio.experiments.columns import COLUMNS
from bpqp_portfolio.experiments.figures import APART, _beside
from bpqp_portfolio.experiments.notes import absent, markdown, protocol
from bpqp_portfolio.experiments.page import write_comparison
from bpqp_portfolio.experiments.plan import Comparison
from bpqp_portfolio.experiments.table import build_table
from bpqp_portfolio.markets.rules import QLIB_DAYS_PER_YEAR as QLIB
from bpqp_portfolio.runs.results import RunResults

DAYS = pd.bdate_range("2019-01-02", periods=400, name="datetime")
COMPARISON = Comparison(
    workflow="w.yaml",
    experiment_name="study",
    seeds=3,
    configurations_tried=18,
    methods={
        "cheap": {"title": "Cost-aware", "control": ["plain", "best"]},
        "same": {"title": "A <b>copy</b>", "control": "plain"},
        "plain": {"title": "Two-stage"},
        "best": {"title": "Slow label"},
    },
)


def run(gain, cost, seed, days=DAYS, names=25.0, noise=0.0, **facts):
    random = np.random.default_rng(0)  # the same market for all
    market = 0.01 * random.standard_normal(len(days))
    own = 1e-4 * np.random.default_rng(100 + seed).standard_normal(len(days))
    daily = pd.DataFrame(
        {
            "return": market + gain + own,
            "cost": cost + noise * np.random.default_rng(seed).random(len(days)),
            "turnover": cost * 500,
            "names_held": names,
            "orders": 40.0,
            "blocked": 1.0,
            "bench": market,
            "bench_equal": 0.0,
        },
        index=days,
    )
    empty = pd.DataFrame(columns=["datetime", "instrument", "weight"])
    return RunResults(
        name="r",
        run_id="0",
        created="2020-01-01T00:00:00",
        config={},
        manifest={"source": "prices.zip", "end": "2022-12-30"},
        settings={"market": "sim", "benchmark": "SIM", **facts},
        daily=daily,
        signal=pd.DataFrame(index=days),
        weights=empty,
    )


@pytest.fixture(scope="module")
def table():
    results = {}
    for seed in range(3):
        results["cheap", seed] = run(2e-4, 1e-4, seed)
        results["plain", seed] = run(1e-4, 4e-4, seed + 10)
        results["same", seed] = run(1e-4, 4e-4, seed + 10)
        results["best", seed] = run(6e-4, 1e-4, seed + 20, names=30.0, noise=1e-5)
    return build_table(COMPARISON, results)


def test_a_gain_is_gross_plus_cost_saved(table):
    cheap, slow, same = table.paired
    assert cheap.net.annual == pytest.approx(4e-4 * QLIB, abs=2e-5 * QLIB)
    assert cheap.saved.annual == pytest.approx(3e-4 * QLIB)
    for paired in (cheap, slow, same):
        assert paired.net.annual == pytest.approx(paired.gross.annual + paired.saved.annual)
    assert cheap.holds and cheap.p_value < 0.01
    assert same.net.annual == pytest.approx(0) and not same.holds and same.p_value == 1
    # Three comparisons: the smallest p-value counts three times.
    assert cheap.p_value == pytest.approx(3 * cheap.net.p_value)
    assert not slow.holds and slow.net.high < 0 and slow.p_value < 0.01


def test_the_cost_saved_has_an_interval_of_its_own(table):
    cheap, slow, _ = table.paired
    # The costs of `cheap` and `plain` are the same every day and for every seed, so there is no
    # doubt of their difference; those of `best` vary.
    assert cheap.saved.low == pytest.approx(cheap.saved.annual) == pytest.approx(cheap.saved.high)
    assert cheap.gross.low < cheap.gross.annual < cheap.gross.high
    assert slow.saved.low < slow.saved.annual < slow.saved.high
    half = (slow.saved.high - slow.saved.low) / 2
    # The mean of 400 days and 3 seeds of uniform costs has a standard error of 1e-5 √(1/12/1200);
    # that noise counts among days and among seeds, and its size is itself uncertain.
    alone = 1.96 * 1e-5 * np.sqrt(1 / 12 / 1200) * QLIB
    assert alone < half < 4 * alone


def test_a_gain_that_vanishes_against_a_control_is_marked_with_which(table):
    assert table.verdict("cheap") == "vanishes against Slow label"
    assert table.verdict("same") == "vanishes against Two-stage"
    assert table.verdict("plain") == ""
    first = table.groups()["Methods"]["A gain over its controls?"]
    assert first["Cost-aware"] == "vanishes against Slow label" and first["Two-stage"] == ""
    assert list(table.paired_text()["A gain?"]) == ["yes", "no", "no"]
    alone = dataclasses.replace(table, paired=table.paired[:1])
    assert alone.verdict("cheap") == "no runs of Slow label"
    won = dataclasses.replace(table.paired[0], control="best")
    both = dataclasses.replace(table, paired=[table.paired[0], won])
    assert both.verdict("cheap") == "yes, over all 2"


def test_a_gain_must_survive_the_correction(table):
    gain = table.paired[0]
    assert gain.net.low > 0 and not dataclasses.replace(gain, p_value=0.06).holds
    assert dataclasses.replace(gain, p_value=0.04).holds


def test_controls_that_hold_another_number_of_names_are_marked(table):
    names = table.paired_text()["Names held, its / control's"]
    assert list(names) == ["25 / 25", "25 / 30 ≠", "25 / 25"]


def test_a_method_is_followed_by_its_controls_and_told_by_mean_and_spread(table):
    text = table.text()
    assert list(text.index) == ["Cost-aware", "Two-stage", "Slow label", "A <b>copy</b>"]
    net = table.runs.loc["plain"]["net_index"]
    assert text.loc["Two-stage", "Over index, net"].startswith(
        f"{100 * net.mean():.2f}".replace("-", "−")
    )
    assert " ± " in text.loc["Two-stage", "Over index, net"]
    assert "IC" not in text.columns  # no run has one
    assert text.loc["Two-stage", "Orders blocked"].startswith("2.50 ± 0.00")
    for group, frame in table.groups().items():
        assert list(frame.index) == list(text.index), group
    assert "Gross" in table.groups()["Over index"] and "Prediction" not in table.groups()


def test_every_figure_that_a_reader_asks_for_is_a_column():
    """Prediction, decision against both benchmarks, trading, seconds."""
    wanted = {"ic", "icir", "rank_ic", "mse", "regret", "turnover", "names_held", "blocked_share"}
    wanted |= {"epoch_seconds", "run_seconds"}
    for book in ("index", "equal", "portfolio"):
        wanted |= {f"{cost}_{book}" for cost in ("gross", "net", "ratio_gross", "ratio_net")}
        wanted.add(f"drawdown_{book}")
    assert wanted <= set(COLUMNS)
    headers = [figure.header for figure in COLUMNS.values()]
    assert len(set(headers)) == len(headers)


def test_the_protocol_says_what_a_reader_must_know(table):
    said = " ".join(protocol(table))
    for fact in ("2019-01-02", "(400)", "frozen: 18", "blocks of 20", "3, Holm", "sim against SIM"):
        assert fact in said
    assert "prices.zip" in said and "differs between" not in said and absent(table) == []
    single = build_table(COMPARISON, {("plain", 0): run(0, 0, 0)})
    assert "One seed only, so no spread over seeds: Two-stage." in " ".join(protocol(single))
    assert "±" not in markdown(single.text()) and len(single.paired_text()) == 0


def test_runs_of_other_data_or_code_are_named():
    results = {("plain", seed): run(0, 0, seed) for seed in range(2)}
    found = build_table(COMPARISON, results, other_code=["plain-seed1"])
    assert "accepted: 1 of 2 runs (plain-seed1)" in " ".join(protocol(found))
    results["cheap", 0] = run(0, 0, 0, market="other")
    with pytest.raises(DataError, match=r"differs between the runs \(cheap-seed0: other against"):
        build_table(COMPARISON, results)


def test_a_longer_label_may_end_the_training_earlier_but_test_days_must_agree():
    def learned(until, test="2019 to 2020"):
        return {"segments": {"train": f"2011 to {until}", "valid": "2017", "test": test}}

    results = {("plain", seed): run(0, 0, seed, **learned("2016-12-28")) for seed in range(2)}
    results["best", 0] = run(0, 0, 0, **learned("2016-12-15"))
    said = " ".join(protocol(build_table(COMPARISON, results)))
    assert "do not compare" not in said
    assert (
        "Learned on: train 2011 to 2016-12-28, valid 2017; or train 2011 to 2016-12-15, valid 2017."
        in said
    )
    results["best", 0] = run(0, 0, 0, **learned("2016-12-15", test="2019 to 2021"))
    with pytest.raises(DataError, match=r"Universe and days differs between the runs \(best-seed0"):
        build_table(COMPARISON, results)


@pytest.mark.parametrize(
    ("facts", "other", "compared"),
    [
        ({"costs": {"buy": 0.0005}}, {"costs": {"buy": 0.001}}, "costs"),
        ({"account": {"value": 1e8}}, {"account": {"value": 1e6}}, "account"),
        ({"market_rules": {"lot": 100}}, {"market_rules": {"lot": 1}}, "market"),
        ({"excluded_name_days": 0}, {"excluded_name_days": 7}, "data"),
    ],
)
def test_runs_that_differ_in_more_than_the_method_are_refused_unless_that_is_compared(
    facts, other, compared
):
    results = {("plain", seed): run(0, 0, seed, **facts) for seed in range(2)}
    results["cheap", 0] = run(0, 0, 0, **other)
    with pytest.raises(DataError, match=rf"\(cheap-seed0: .*`compare: \[{compared}"):
        build_table(COMPARISON, results)
    table = build_table(dataclasses.replace(COMPARISON, compare=[compared]), results)
    assert any("; or " in fact for fact in table.facts)


def test_a_partial_table_says_what_is_missing(tmp_path):
    results = {("cheap", seed): run(2e-4, 1e-4, seed) for seed in range(3)}
    results["plain", 1] = run(1e-4, 4e-4, 1)
    reasons = {"plain-seed0": "error: no such file", "best-seed0": "ended by SIGKILL"}
    table = build_table(COMPARISON, results, missing=reasons, seconds={("plain", 1): 12.0})
    assert table.paired[0].net.seeds == (3, 1)
    assert table.runs["run_seconds"].dropna().tolist() == [12.0]
    assert absent(table)[0] == "Partial: 2 of 6 runs are missing."
    assert table.verdict("cheap").endswith("no runs of Slow label")
    paths = {path.name: path.read_text() for path in write_comparison(table, tmp_path)}
    for name in ("comparison.md", "comparison.html"):
        assert "plain-seed0: error: no such file" in paths[name]
        assert "Partial: 2 of 6 runs are missing." in paths[name]


def test_files(table, tmp_path):
    paths = {path.name: path for path in write_comparison(table, tmp_path / "out")}
    text, pictures = ("md", "csv", "html"), ("gains", "frontier", "growth")
    assert set(paths) == {
        *(f"comparison.{kind}" for kind in text),
        *(f"{picture}.svg" for picture in pictures),
    }
    page = paths["comparison.html"].read_text()
    assert "A <b>copy" not in page and "A &lt;b&gt;copy" in page and page.count("<svg") == 6
    assert "Partial" not in page
    back = pd.read_csv(paths["comparison.csv"], index_col=["method", "seed"])
    np.testing.assert_allclose(back["net_equal"], table.runs["net_equal"])
    lines = paths["comparison.md"].read_text().splitlines()
    parts = groupby(lines, lambda line: line[:1] == "|")
    tables = [list(rows) for is_row, rows in parts if is_row]
    assert [len(rows) for rows in tables] == [2 + 4, 2 + 3] + [2 + 4] * (len(tables) - 2)
    for rows in tables:
        assert len({row.count("|") for row in rows}) == 1
    forest = paths["gains.svg"].read_text()
    assert forest.count("less Two-stage") == 2 and forest.count("less Slow label") == 1


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_fills_its_width_and_does_not_scroll_sideways(chromium, table, tmp_path, width):
    page = tmp_path / "out" / "comparison.html"
    write_comparison(table, page.parent)
    frame = tmp_path / "frame.html"
    frame.write_text(f"""<!DOCTYPE html>
<iframe src="{page.as_uri()}" style="width: {width}px; height: 800px; border: 0"></iframe>
<script>
document.querySelector("iframe").onload = event => {{
  const inner = event.target.contentDocument, main = inner.querySelector("main");
  document.title = ["measured", inner.documentElement.scrollWidth,
    Math.round(main.getBoundingClientRect().width), [...inner.querySelectorAll("svg")]
    .filter(svg => svg.getBoundingClientRect().height > 50).length].join(" ");
}};
</script>""")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
    command = [chromium, *flags, "--window-size=1400,900", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    measured = re.search(r"<title>measured (\d+) (\d+) (\d+)</title>", done.stdout)
    assert measured, done.stderr
    scroll, main, figures = map(int, measured.groups())
    assert scroll <= width and main > 0.8 * width and figures == 3
    assert not [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_nothing_to_compare_has_no_forest(tmp_path):
    table = build_table(COMPARISON, {("plain", 0): run(0, 0, 0)})
    assert "gains.svg" not in {path.name for path in write_comparison(table, tmp_path)}


def test_numbers_stand_free_of_each_other_and_of_the_dots():
    places = np.random.default_rng(0).uniform(0, (500, 380), (20, 2))
    labels = places + _beside(places)
    everything = np.vstack([labels, places])
    for i, label in enumerate(labels):
        gaps = np.abs(np.delete(everything, i, axis=0) - label) / APART
        assert (gaps.max(axis=1) >= 0.9).all()


def test_a_number_keeps_off_the_lines_of_cost():
    """The line of the dot's own cost stands to its right, in the first place of a number."""
    line = np.array([[15.0, y] for y in range(-40, 41, 4)])
    ((x, y),) = _beside(np.zeros((1, 2)), line)
    gaps = np.abs(line - (x, y)) / APART
    assert (gaps.max(axis=1) >= 0.9).all()
    assert _beside(np.zeros((1, 2))) == [(15, 0)]


def test_runs_of_other_days_are_refused(table):
    results = {("plain", 0): run(0, 0, 0), ("plain", 1): run(0, 0, 1, DAYS[1:])}
    with pytest.raises(DataError, match="'plain' were not made on the same days"):
        build_table(COMPARISON, results)
    results = {("plain", 0): run(0, 0, 0), ("cheap", 0): run(0, 0, 1, DAYS[1:])}
    with pytest.raises(DataError, match="same days"):
        build_table(COMPARISON, results)
