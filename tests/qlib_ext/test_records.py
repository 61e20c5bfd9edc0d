"""A whole task on a small market: what the records leave behind, and that it is consistent."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from qlib.model.trainer import task_train
from qlib.workflow import R
from qlib_markets import FEW, MODEL, SEGMENTS, SETTINGS, build, connect, kept

from bpqp_portfolio.backtest.appraisal import appraise, decide, score_figures
from bpqp_portfolio.backtest.realised import realised_weights
from bpqp_portfolio.backtest.references import regret_references
from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.errors import DataError
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.kept_tables import kept_targets
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.qlib_ext.run_description import NOTE, data_digest
from bpqp_portfolio.report.headline import headline
from bpqp_portfolio.report.metrics import flatten, summarise
from bpqp_portfolio.report.tracked_metrics import described
from bpqp_portfolio.runs.results import load_results

OURS = "bpqp_portfolio.qlib_ext"
ROOT = Path(__file__).parents[2]
PER_EPOCH = [
    f"bpqp.{name}"
    for name in (
        *(f"{part}_{what}" for part in ("train", "valid") for what in ("loss", "prediction")),
        *("train_decision", "valid_decision", "valid_ic", "epoch_train_seconds", "epoch_seconds"),
    )
]
LIGHTGBM = {
    "class": "LGBModel",
    "module_path": "qlib.contrib.model.gbdt",
    "kwargs": {"loss": "mse", "num_boost_round": 5, "num_leaves": 4, "verbosity": -1},
}


def task(out: Path, **changes: Any) -> dict:
    """The workflow of the small market."""
    return {
        "model": {"class": "PortfolioModel", "module_path": f"{OURS}.model", "kwargs": MODEL},
        "dataset": {
            "class": "PortfolioDataset",
            "module_path": f"{OURS}.dataset",
            "kwargs": {**SETTINGS, "handler": FEW, "market_rules": {"lot": None}},
        },
        "record": [
            {"class": "SignalRecord", "kwargs": {"model": "<MODEL>", "dataset": "<DATASET>"}},
            {"class": "SigAnaRecord", "kwargs": {"ana_long_short": False}},
            {"class": "BacktestRecord", "module_path": f"{OURS}.records"},
            {
                "class": "ReportRecord",
                "module_path": f"{OURS}.records",
                "kwargs": {"name": "Small market", "out": str(out)},
            },
        ],
        **changes,
    }


@dataclass(frozen=True)
class Run:
    """A finished run: its recorder, what it printed, and where its report was to go."""

    recorder: Any
    printed: str
    report: Path

    def load(self, name: str) -> Any:
        return self.recorder.load_object(name)

    def load_daily(self) -> pd.DataFrame:
        return kept(self.recorder, "daily")

    def artifacts(self, folder: str = "") -> set[str]:
        return {Path(name).name for name in self.recorder.list_artifacts(folder)}

    def file(self, name: str) -> Path:
        return Path(self.recorder.client.download_artifacts(self.recorder.id, name))


def run(market: Provider, folder: Path, name: str, **changes: Any) -> Run:
    connect(market.root, tracking=folder / "mlflow.db")
    printed, report = io.StringIO(), folder / "reports" / f"{name}.html"
    with contextlib.redirect_stdout(printed):
        recorder = task_train(task(report, **changes), experiment_name=name)
    return Run(recorder, printed.getvalue(), report)


@pytest.fixture(scope="module")
def finished(market, folder):
    return run(market, folder, "end_to_end")


@pytest.fixture(scope="module")
def forest(market, folder, finished):
    return run(market, folder, "lightgbm", model=LIGHTGBM)


# What is there ---------------------------------------------------------------------------------


def test_artifacts_keep_qlibs_names(finished):
    assert {"pred.pkl", "label.pkl", "params.pkl", "dataset", "task"} <= finished.artifacts()
    assert finished.artifacts("sig_analysis") == {"ic.pkl", "ric.pkl"}
    assert finished.artifacts("portfolio_analysis") >= {
        "report_normal_1day.pkl",
        "positions_normal_1day.pkl",
        "port_analysis_1day.pkl",
    }
    ours = {"results", "report.html", "model", "figures", "summary.csv", "task.yaml"}
    assert finished.artifacts("bpqp") == ours
    files = {"state_dict.pt", "model.json", "exclusions.csv", "digests.json"}
    assert finished.artifacts("bpqp/model") == files


def test_metrics_keep_qlibs_names_and_ours_have_a_prefix(finished):
    metrics = finished.recorder.list_metrics()
    qlibs = {"IC", "ICIR", "Rank IC", "Rank ICIR"}
    qlibs |= {
        f"1day.excess_return_{cost}_cost.{name}"
        for cost in ("with", "without")
        for name in (
            "annualized_return",
            "information_ratio",
            "max_drawdown",
            "mean",
            "std",
        )
    }
    qlibs |= {"1day.ffr", "1day.pa", "1day.pos"}
    ours = {name for name in metrics if name not in qlibs}
    assert qlibs <= set(metrics)
    assert all(name.startswith("bpqp.") for name in ours)
    assert ours >= {
        f"bpqp.{name}"
        for name in (
            "regret",
            "decision_value",
            "kkt_norm",
            "iterations",
            "effective_names",
            "excluded_name_days",
            "solver.solved",
            "solver.inaccurate",
            "solver.primal_infeasible",
            "turnover",
            "names_held",
            "blocked",
            "excess_equal.annual_return.with_cost",
            "best_epoch",
        )
    }
    assert ours >= set(PER_EPOCH)
    stages = ("data", "features", "risk", "panel", "hindsight", "training", "weights", "backtest")
    assert ours >= {f"bpqp.seconds.{stage}" for stage in (*stages, "report")}
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_figure_is_tracked_once(finished):
    """Several records track; the final table says the same as they do."""
    summary = flatten(summarise(load_results(finished.file("bpqp/results"))))
    metrics = finished.recorder.list_metrics()
    # In a market of 252 days a year only figures that have no year are Qlib's too.
    qlibs = {"bpqp.ic": "IC", "bpqp.icir": "ICIR", "bpqp.rank_ic": "Rank IC",
             "bpqp.rank_icir": "Rank ICIR"}  # fmt: skip
    assert not set(qlibs) & set(metrics)
    tracked = {name: metrics[qlibs.get(name, name)] for name in summary}
    assert tracked == pytest.approx(summary, rel=1e-4)
    for name in set(metrics) - set(PER_EPOCH):
        history = finished.recorder.client.get_metric_history(finished.recorder.id, name)
        assert len(history) == 1, name


def test_tags_say_what_was_run_on_which_data(finished, market):
    tags = finished.recorder.list_tags()
    assert tags["bpqp.method"] == "mlp, squared_regret" and tags["bpqp.region"] == "us"
    assert tags["bpqp.market"] == "sim" and tags["bpqp.benchmark"] == "SIMIDX"
    assert tags["bpqp.universe"] == "14 names in all"
    assert tags["bpqp.test"] == "2015-11-02 to 2016-03-15"
    assert tags["bpqp.data_digest"] == data_digest(market.manifest, market.fingerprint())
    assert tags["bpqp.version"] == version("bpqp-portfolio")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode == 0:
        assert tags["bpqp.commit"].removesuffix("-dirty") == head.stdout.strip()


def test_the_description_says_what_happened_and_in_which_units(finished):
    text = finished.recorder.list_tags()[NOTE]
    results = load_results(finished.file("bpqp/results"))
    assert text.startswith(f"**{headline(results)[0]}**")
    assert "| Over SIMIDX, with cost |" in text
    assert "| `bpqp.regret` | fraction a day |" in text and "bpqp.mandate" not in text
    metrics = finished.recorder.list_metrics()
    assert all(described([name]) for name in metrics), set(metrics)


def test_nothing_that_a_person_reads_is_a_pickle(finished):
    config = yaml.safe_load(finished.file("bpqp/task.yaml").read_text())
    assert config["dataset"]["kwargs"]["market"] == "sim"
    summary = pd.read_csv(finished.file("bpqp/summary.csv"), index_col=[0, 1])
    shown = summarise(load_results(finished.file("bpqp/results")))
    pd.testing.assert_frame_equal(summary, shown, rtol=1e-12)
    assert not [name for name in finished.artifacts("bpqp/results") if name.endswith(".pkl")]


def test_both_losses_are_tracked_by_epoch(finished):
    client, recorder = finished.recorder.client, finished.recorder
    for name in ("prediction", "decision"):
        for part in ("train", "valid"):
            steps = client.get_metric_history(recorder.id, f"bpqp.{part}_{name}")
            assert sorted(m.step for m in steps) == [1, 2]


def test_the_terminal_shows_stages_epochs_and_one_table(finished):
    for text in ("[features]", "[training]", "epoch 2/2", "best epoch", "drawdown"):
        assert text in finished.printed
    for text in ("Rank IC", "One-way turnover a day", "Over equal weights, with cost"):
        assert text in finished.printed
    assert finished.printed.rstrip().endswith(f"report: {finished.report}")


def test_the_report_is_written_where_asked_and_tracked(finished):
    page = finished.report.read_text()
    assert "Small market" in page and page.rstrip().endswith("</html>")
    assert "Small market" in finished.file("bpqp/report.html").read_text()


# That it is right ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def again(market, folder, finished):
    """The run's dataset, built once more from the cache."""
    connect(market.root, tracking=folder / "mlflow.db")
    data = PortfolioDataset(**{**SETTINGS, "handler": FEW, "market_rules": {"lot": None}})
    data.panel()
    return data


def test_every_row_of_the_test_is_scored(finished, again):
    pred = finished.load("pred.pkl")
    assert list(pred.columns) == ["score"] and np.isfinite(pred["score"]).all()
    assert pred.index.equals(again.panel().index(again.days("test")))
    label = finished.load("label.pkl").iloc[:, 0]
    ic = pd.concat([pred["score"], label], axis=1).groupby("datetime").corr().iloc[0::2, 1]
    assert finished.recorder.list_metrics()["IC"] == pytest.approx(ic.mean(), rel=1e-5)
    signal = kept(finished.recorder, "signal")
    assert signal["ic"].mean() == pytest.approx(ic.mean(), rel=1e-5)
    rank = finished.recorder.list_metrics()["Rank IC"]
    assert signal["rank_ic"].mean() == pytest.approx(rank, rel=1e-5)


def test_weights_are_portfolios_and_every_day_is_solved(finished, again):
    weights, signal = kept_targets(finished.recorder), kept(finished.recorder, "signal")
    total = weights.groupby("datetime").sum()
    np.testing.assert_allclose(total, 1.0, atol=1e-9)
    assert (weights > 0).all() and weights.max() <= 0.25 + 1e-12
    assert len(total) == len(signal) == len(again.days("test"))
    assert (signal["status"] == "solved").all() and signal["kkt_norm"].max() <= 1e-10
    worth = appraise(again, weights)
    assert (worth["regret"] >= -1e-12).all() and worth["regret"].mean() > 1e-4
    metrics = finished.recorder.list_metrics()
    assert metrics["bpqp.solver.solved"] == len(signal)


def test_regret_is_that_of_what_was_held(finished, again):
    """At the close at which a day's signal was traded; the last day's never was."""
    realised = kept(finished.recorder, "realised")
    realised = realised.set_index(["datetime", "instrument"])["weight"]
    worth = kept(finished.recorder, "signal")[["regret", "decision_value"]]
    panel, problem = again.panel(), again.problem
    positions, dates = again.days("test"), worth.index
    again.fill_oracle_values(["test"])
    for i in (0, 1, 40, len(dates) - 2):
        batch = panel.batch(positions[i : i + 1], features=False)
        names = panel.names[batch.names[0].numpy()]
        held = realised[dates[i + 1]].reindex(names).fillna(0.0).to_numpy() / 0.95
        w = torch.from_numpy(held)[None]
        assert worth["regret"].iloc[i] == pytest.approx(float(problem.regret(w, batch)), abs=1e-12)
    assert worth.isna().all(axis=1).tolist() == [False] * (len(worth) - 1) + [True]
    metrics = finished.recorder.list_metrics()
    shown = load_results(finished.file("bpqp/results")).signal
    for name in ("regret", "decision_value"):
        assert metrics[f"bpqp.{name}"] == pytest.approx(worth[name].mean())
        np.testing.assert_array_equal(shown[name], worth[name])
    targets = appraise(again, kept_targets(finished.recorder))["regret"]
    assert abs(targets.mean() - worth["regret"].mean()) > 1e-9  # lots and prices lie between


def test_the_decision_value_is_that_of_the_weights(finished, again):
    """−yᵀw + (γ/2) wᵀΣw with the realised returns of the day, in plain numpy."""
    weights = kept_targets(finished.recorder)
    panel, worth = again.panel(), appraise(again, weights)
    for day in again.days("test")[::20]:
        rows = panel.rows(day.reshape(1)).numpy()
        index = panel.index(day.reshape(1))
        w = weights.reindex(index).fillna(0.0).to_numpy()
        y = np.nan_to_num(panel.returns[rows].numpy())
        exposure = w @ panel.loadings[rows].numpy()
        variance = exposure @ exposure + (panel.specific[rows].numpy() * w * w).sum()
        date = pd.Timestamp(panel.dates[day])
        expected = -y @ w + 0.5 * 5.0 * variance
        assert worth.loc[date, "decision_value"] == pytest.approx(expected, rel=1e-9)


def test_the_error_on_one_scale_is_that_of_a_regression(finished, again):
    """1 − R² of standardised returns on centred scores, every day of the same weight, in pandas."""
    pred, signal = finished.load("pred.pkl")["score"], kept(finished.recorder, "signal")
    panel, rows = again.panel(), again.panel().rows(again.days("test"))
    y = pd.Series(panel.returns[rows].numpy(), index=pred.index, dtype=float).dropna()
    y = y.groupby("datetime").transform(lambda r: (r - r.mean()) / r.std(ddof=0))
    x = pred.reindex(y.index).astype(float)
    x = x - x.groupby("datetime").transform("mean")
    share = 1 / y.groupby("datetime").transform("size")
    slope = max(0.0, (share * x * y).sum() / (share * x * x).sum())
    expected = ((y - slope * x) ** 2).groupby("datetime").mean()
    np.testing.assert_allclose(signal["mse"].dropna(), expected, rtol=1e-5)
    # A unit, or a constant of the day, is no knowledge; less error is more.
    other = score_figures(again, -3.0 * pred - 7.0)["mse"]
    same = score_figures(again, 50 * pred + 1)["mse"]
    np.testing.assert_allclose(same, signal["mse"], rtol=1e-5)
    assert (signal["mse"].mean() < 1) == (slope > 0) and (other.mean() < 1) == (slope < 0)
    known = pd.Series(panel.returns[rows].numpy(), index=pred.index).fillna(0.0)
    assert score_figures(again, known)["mse"].mean() < 0.3


def test_realised_weights_come_by_day_and_name():
    """Whatever the order in which a process happens to list what is held."""
    days = pd.to_datetime(["2020-01-03", "2020-01-02"])
    held = {"B": 0.25, "C": 0.5, "A": 0.125}
    orders = [list(held), sorted(held), sorted(held, reverse=True)]
    tables = []
    for order in orders:
        weights = {name: held[name] for name in order}
        position = SimpleNamespace(get_stock_weight_dict=lambda only_stock, w=weights: w)
        tables.append(realised_weights(dict.fromkeys(days, position)))
    assert tables[0]["instrument"].tolist() == ["A", "B", "C"] * 2
    assert tables[0]["datetime"].is_monotonic_increasing
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)


def test_realised_weights_follow_the_targets_by_one_day(finished):
    targets, daily = kept_targets(finished.recorder), finished.load_daily()
    realised = kept(finished.recorder, "realised")
    realised = realised.set_index(["datetime", "instrument"])["weight"]
    days = daily.index
    assert realised.index.get_level_values("datetime").min() == days[1]
    close = 0
    for before, day in itertools.pairwise(days):
        want, have = targets[before], realised[day]
        assert 0.8 < have.sum() < 1.0
        if daily.loc[day, "blocked"] == 0:
            close += 1
            assert set(have.index) <= set(want.index)
            assert (have / have.sum() - want).abs().max() < 0.06
    assert close > 0.8 * len(days)


def test_the_daily_table_is_qlibs_with_the_targets_on_their_trading_day(finished, again):
    daily, report = (
        finished.load_daily(),
        finished.load("portfolio_analysis/report_normal_1day.pkl"),
    )
    for name in ("return", "cost", "turnover", "bench"):
        np.testing.assert_array_equal(daily[name], report[name])
    equal = again.market_data.equal_weight_returns()
    np.testing.assert_array_equal(daily["bench_equal"], equal.reindex(daily.index))
    squares = kept_targets(finished.recorder).pow(2).groupby("datetime").sum()
    np.testing.assert_allclose(daily["effective_names"].iloc[1:], 1 / squares.iloc[:-1])
    assert daily["names_held"].iloc[0] == 0 and (daily["names_held"].iloc[1:] >= 4).all()
    assert daily["cost"].iloc[1:].gt(0).mean() > 0.9


def test_results_load_from_the_artifacts(finished, again):
    results = load_results(finished.file("bpqp/results"))
    assert results.name == "Small market" and results.run_id == finished.recorder.id
    pd.testing.assert_frame_equal(results.daily, finished.load_daily(), check_freq=False)
    assert results.config["model"]["class"] == "PortfolioModel"
    assert results.manifest["kind"] == "simulated"
    assert results.settings["segments"]["train"] == "2015-03-02 to 2015-07-29"
    assert results.settings["score_scale"] == again.problem.scale
    assert len(results.epochs) == 2 and results.best_epoch in (1, 2)
    assert set(results.timing) >= {"features", "risk", "training", "backtest"}


def test_the_network_reloads_without_pickle_to_the_same_scores(finished, again):
    settings = json.loads((finished.file("bpqp/model") / "model.json").read_text())
    assert settings["features"] == again.handler.feature_names
    assert settings["score_scale"] == again.problem.scale
    model = PortfolioModel(**settings["model"])
    model.network = model._predictor(len(settings["features"]))
    state = torch.load(finished.file("bpqp/model") / "state_dict.pt", weights_only=True)
    model.network.load_state_dict(state)
    pd.testing.assert_series_equal(
        model.predict(again), finished.load("pred.pkl")["score"], check_exact=True
    )


def test_qlibs_own_copies_of_model_and_dataset_are_small(finished):
    """Data are not pickled into the run, so the dataset is settings without its tables."""
    assert isinstance(finished.load("params.pkl"), PortfolioModel)
    assert finished.load("dataset").span_names["test"] == ("2015-11-02", "2016-03-15")
    assert finished.file("dataset").stat().st_size < 100_000


# Other models and other scores -----------------------------------------------------------------


def test_forecasts_of_another_model_go_through_the_same_problem(forest, again):
    weights, signal = kept_targets(forest.recorder), kept(forest.recorder, "signal")
    np.testing.assert_allclose(weights.groupby("datetime").sum(), 1.0, atol=1e-9)
    assert (signal["status"] == "solved").all()
    assert (appraise(again, weights)["regret"] >= -1e-12).all()
    expected, _ = decide(again, forest.load("pred.pkl").iloc[:, 0])
    pd.testing.assert_series_equal(weights, expected, check_exact=True, check_index_type=False)
    assert "lightgbm.txt" in forest.artifacts("bpqp/model")
    assert load_results(forest.file("bpqp/results")).epochs.empty
    assert "Portfolio, with cost" in forest.printed


def test_perfect_scores_have_no_regret(again):
    """The realised returns in units of the scale are the scores of hindsight."""
    panel, days = again.panel(), again.days("test")
    rows = panel.rows(days)
    scores = panel.returns[rows].nan_to_num() / again.problem.scale
    scores = pd.Series(scores.numpy(), index=panel.index(days))
    regret = appraise(again, decide(again, scores)[0])["regret"]
    np.testing.assert_allclose(regret, 0.0, atol=1e-10)
    np.testing.assert_allclose(score_figures(again, scores)["ic"], 1.0, atol=0.05)


def test_regret_stands_beside_that_of_equal_weights_and_of_shuffled_scores(finished, again):
    signal = kept(finished.recorder, "signal")
    batch = again.panel().batch(again.days("test")[3:4], features=False)
    w = batch.mask / batch.mask.sum().double()
    equal = float(again.problem.regret(w, batch))
    assert signal["regret_equal"].iloc[3] == pytest.approx(equal, abs=1e-12)
    # To shuffle the same score for all changes nothing; to shuffle hindsight's costs.
    index = again.panel().index(again.days("test"))
    same = pd.Series(0.5, index=index)
    found = regret_references(again, same)
    own = appraise(again, decide(again, same)[0])["regret"]
    np.testing.assert_allclose(found["regret_shuffled"], own, atol=1e-9)
    returns = again.panel().returns[again.panel().rows(again.days("test"))].nan_to_num()
    perfect = pd.Series(returns.numpy() / again.problem.scale, index=index)
    shuffled = regret_references(again, perfect)["regret_shuffled"]
    assert shuffled.mean() > 0.3 * signal["regret_equal"].mean() > 0


def test_the_order_of_rows_and_names_without_a_problem_do_not_matter(again):
    index = again.panel().index(again.days("valid"))
    rng = np.random.default_rng(0)
    scores = pd.Series(rng.standard_normal(len(index)), index=index)
    more = pd.concat([scores, pd.Series(1.0, index=index[:1].set_levels(["ZZZ"], level=1))])
    shuffled = more.iloc[rng.permutation(len(more))]
    for ours, theirs in zip(
        decide(again, scores, "valid"), decide(again, shuffled, "valid"), strict=True
    ):
        assert ours.equals(theirs)
    assert score_figures(again, scores, "valid").equals(score_figures(again, shuffled, "valid"))


@pytest.mark.parametrize("how", ["absent", "nan"])
def test_a_name_without_a_score_is_an_error(again, how):
    index = again.panel().index(again.days("test"))
    scores = pd.Series(0.5, index=index)
    if how == "nan":
        scores.iloc[7] = np.nan
    else:
        scores = scores.drop(index[7])
    message = f"1 names of the test problem .* {index[7][1]} on {index[7][0]:%Y-%m-%d}"
    with pytest.raises(DataError, match=message):
        decide(again, scores)
    with pytest.raises(DataError, match=message):
        score_figures(again, scores)


def test_regret_of_a_day_whose_returns_are_still_unknown_is_unknown(market, tmp_path):
    """The last day of a test that is cut at the end of the calendar has no label yet."""
    segments = {**SEGMENTS, "test": [SEGMENTS["test"][0], "2016-04-30"]}
    data = build(market.root, handler=FEW, segments=segments)
    assert data.span_names["test"][1] == f"{market.calendar[-2]:%Y-%m-%d}"
    index = data.panel().index(data.days("test"))
    scores = pd.Series(np.linspace(-1, 1, len(index)), index=index)
    weights, health = decide(data, scores)
    signal = score_figures(data, scores).join(appraise(data, weights))
    assert health.index.equals(signal.index)
    assert (weights.groupby("datetime").size() > 0).all()
    assert weights.index[-1][0] == signal.index[-1]
    for name in ("regret", "decision_value", "ic", "rank_ic", "mse"):
        assert signal[name].isna().tolist() == [False] * (len(signal) - 1) + [True]


def test_a_second_run_reads_features_and_risk_from_the_cache(folder, finished, forest):
    for kind in ("features", "risk"):
        assert len(list((folder / "cache" / kind).iterdir())) == 1
    assert not list((folder / "cache" / "checkpoints").iterdir())
    assert R.exp_manager.active_experiment is None
