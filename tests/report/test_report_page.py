"""The page: what it holds, that it stands alone, and that odd runs do not break it."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.report.figures import PLOTS
from bpqp_portfolio.report.headline import headline
from bpqp_portfolio.report.metrics import book_rows, summarise
from bpqp_portfolio.report.page import SECTIONS, SOME, render, write_report
from bpqp_portfolio.report.truth import truth_sentences

EVIL = "<script>alert('x')</script>\"&'"


class Page(HTMLParser):
    """Tags, ids, texts and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name.rpartition(":")[2] in ("src", "href", "srcset", "action", "data", "poster"):
                self.addresses.append((name, value))
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def html(run) -> str:
    return render(run)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_every_section_and_figure_is_there(page):
    assert set(SECTIONS) <= set(page.ids)
    assert {f"figure-{plot.key}" for plot in PLOTS} <= set(page.ids)
    assert page.tags["figure"] == page.tags["figcaption"] == len(PLOTS)
    assert page.tags["svg"] == 2 * len(PLOTS)
    for number, plot in enumerate(PLOTS, start=1):
        assert f"Figure {number}. {plot.caption}" in page.text


def test_it_opens_with_what_happened(html, run, changed):
    first = f'<p class="lead">{headline(run)[0]}</p>'
    truth = f'<p class="lead">{truth_sentences(run)[0]}</p>'
    assert html.index(truth) < html.index(headline(run)[0]) < html.index('class="cards"')
    without = render(changed(truth=pd.DataFrame()))
    assert without.index(first) < without.index('class="cards"')


def test_contents_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    targets = [value for name, value in page.addresses if name == "href" and value[0] == "#"]
    assert {value[1:] for value in targets} <= set(page.ids)
    for key in (*SECTIONS, *(f"figure-{plot.key}" for plot in PLOTS)):
        assert targets.count(f"#{key}") == 2  # beside the page, and folded above it


def test_nothing_outside_the_page(html, page):
    assert page.addresses
    for name, value in page.addresses:
        assert value.startswith(("#", "data:")), (name, value[:80])
    assert page.tags["script"] == page.tags["iframe"] == page.tags["base"] == 0
    assert page.handlers == []
    assert "@import" not in html
    assert html.count("url(") == html.count("url(#")
    assert "default-src 'none'" in html


def test_figures_of_the_table(page, run):
    rows = book_rows(summarise(run), run.benchmark)
    assert len(rows) == 8
    for label, cells in rows:
        assert f"{label} {' '.join(cells)}".replace("\N{NO-BREAK SPACE}", " ") in page.text


def test_configuration_manifest_timing_and_notes(page, run):
    assert "risk_aversion: 1.0" in page.text
    assert run.manifest["sha256"] in page.text
    assert "features 41.7 s" in page.text and "All 116.3 s" in page.text
    assert f"Survivorship. {run.settings['survivorship']}" in page.text
    assert "Exclusions. 41 name-days" in page.text
    assert "18 epochs, the network of epoch 12 kept" in page.text


def test_latest_weights(page, run):
    last = run.weights[run.weights["datetime"] == run.weights["datetime"].max()]
    top = last.sort_values("weight").iloc[-1]
    # Of the account, of which 98 % is invested.
    assert f"{top['instrument']} {98 * top['weight']:.2f} %" in page.text
    assert "100.00 % of the invested part, which is 98 % of the account" in page.text


def test_everything_of_the_run_is_escaped(run, changed):
    renamed = run.weights.assign(
        instrument=run.weights["instrument"].astype(str).replace("SH600007", EVIL)
    )
    evil = changed(
        name=EVIL,
        run_id=EVIL,
        created=EVIL,
        config={EVIL: [EVIL]},
        manifest={EVIL: EVIL},
        settings={"benchmark": EVIL, "market": EVIL, "survivorship": EVIL, EVIL: {EVIL: EVIL}},
        signal=run.signal.assign(status=EVIL),
        weights=renamed,
        timing={EVIL: 1.0},
    )
    text = render(evil)
    page = Page(text)
    assert page.tags["script"] == 0 and "<script" not in text.lower()
    for place in (f"run {EVIL}", f"benchmark {EVIL}", f"{EVIL}: {EVIL}", f"260 {EVIL}"):
        assert place in page.text


def one_day(run):
    day = run.daily.index[:1]
    eve = run.signal.index[:1]
    return {
        "daily": run.daily.loc[day],
        "signal": run.signal.loc[eve],
        "weights": run.weights[run.weights["datetime"].isin(eve)],
        "realised": run.realised[run.realised["datetime"].isin(day)],
    }


NOTHING = pd.DataFrame()
# Each row changes tables that no other figure of the same row looks at.
ODD_RUNS = {
    "no epochs, NaN index, exact solves": lambda run: {
        "epochs": NOTHING,
        "best_epoch": None,
        "daily": run.daily.assign(bench=np.nan),
        "signal": run.signal.assign(kkt_norm=0.0, iterations=0.0),
    },
    "one epoch, gaps in the index, failed solves": lambda run: {
        "epochs": run.epochs.iloc[:1],
        "best_epoch": 1,
        "daily": run.daily.assign(bench=run.daily["bench"].where(run.daily.index.day > 9)),
        "signal": run.signal.assign(kkt_norm=np.inf, status="infeasible", ic=np.nan),
    },
    "no losses by kind, no benchmarks, zero IC": lambda run: {
        "epochs": run.epochs[["epoch", "train_loss"]],
        "daily": run.daily.drop(columns=["bench", "bench_equal"]),
        "signal": run.signal.assign(ic=0.0),
    },
    "returns alone": lambda run: {
        "daily": run.daily[["return"]],
        "signal": NOTHING,
        "weights": NOTHING,
        "realised": NOTHING,
        "epochs": NOTHING,
        **dict.fromkeys(("activity", "events", "implementation_shortfall", "truth"), NOTHING),
        "timing": {},
        "settings": {},
        "config": {},
        "manifest": {},
    },
    "one day": one_day,
    "two days": lambda run: {"daily": run.daily.iloc[:2], "signal": run.signal.iloc[:2]},
    "nothing gained": lambda run: {"daily": 0 * run.daily},
}


@pytest.mark.parametrize("odd", ODD_RUNS)
@pytest.mark.filterwarnings("error")
def test_odd_runs(run, changed, odd):
    results = changed(**ODD_RUNS[odd](run))
    page = Page(render(results))
    plots = [plot for plot in PLOTS if plot.section not in SOME or SOME[plot.section](results)]
    absent = sum(plot.absent in page.text for plot in plots)
    assert page.tags["figure"] + absent == len(plots)
    assert not {"nan", "inf", "nat"} & set(re.split(r"[^a-z]+", page.text.lower()))


def test_what_is_missing_is_said(run, changed):
    plots = {plot.key: plot for plot in PLOTS if plot.section not in SOME}
    page = Page(render(changed(**ODD_RUNS["returns alone"](run))))
    shown = {"growth", "drawdown"}
    assert page.tags["figure"] == len(shown)
    for key, plot in plots.items():
        assert (plot.absent in page.text) == (key not in shown), key
    assert "Figure 2." in page.text and "Figure 3." not in page.text
    assert "Survivorship. Not stated by the run." in page.text


def test_a_failure_leaves_the_old_page(changed, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr("bpqp_portfolio.report.page.summarise", fail)
    with pytest.raises(RuntimeError, match="planted"):
        write_report(changed(), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_same_run_gives_the_same_page_at_the_path_returned(run, html, tmp_path):
    path = write_report(run, tmp_path / "deep" / "report.html")
    assert path == tmp_path / "deep" / "report.html"
    assert path.read_text(encoding="utf-8") == html
