"""What to hold tomorrow: the backtest's own weights, from one day's data, and clear refusals."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from qlib_markets import MODEL, SEGMENTS, build, lists, rewrite, run_task, with_outsider
from typer.testing import CliRunner

from bpqp_portfolio.backtest.rebalance import LEFT_UNIVERSE
from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.errors import ConfigError, DataError, ProviderError
from bpqp_portfolio.files.digests import seal
from bpqp_portfolio.live.decision import decide, target_facts
from bpqp_portfolio.live.snapshot import snapshot
from bpqp_portfolio.live.target_weights import target_weights, tracked_model
from bpqp_portfolio.qlib_ext.kept_tables import kept_targets
from bpqp_portfolio.runs.artifact import load_run
from bpqp_portfolio.training import predict_scores

OURS = "bpqp_portfolio.qlib_ext"
GRU = {**MODEL, "predictor": {"name": "gru", "hidden": 4}, "trainer": {"epochs": 1}}
LIGHTGBM = {
    "class": "LGBModel",
    "module_path": "qlib.contrib.model.gbdt",
    "kwargs": {"loss": "mse", "num_boost_round": 5, "num_leaves": 4, "verbosity": -1},
}


@dataclass(frozen=True)
class Tracked:
    """A finished run, where it is tracked, and what its records decided."""

    id: str
    uri: str
    name: str
    folder: Path
    weights: pd.Series
    scores: pd.Series

    def day(self, date: pd.Timestamp) -> pd.Series:
        """The backtest's target weights of a day, by name."""
        return self.weights.xs(date, level="datetime")


def train(market: Provider, folder: Path, name: str, model: dict, **changes) -> Tracked:
    record = {"class": "BacktestRecord", "module_path": f"{OURS}.records"}
    changes = {"exclusions": "check", "market_rules": {"lot": 100}, **changes}
    recorder = run_task(market, folder / "mlflow.db", name, model, record, **changes)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    weights = kept_targets(recorder)
    scores = recorder.load_object("pred.pkl").iloc[:, 0]
    return Tracked(recorder.id, uri, name, folder, weights, scores)


def ours(config: dict) -> dict:
    return {"class": "PortfolioModel", "module_path": f"{OURS}.model", "kwargs": config}


@pytest.fixture(scope="module")
def mlp(market, folder):
    return train(market, folder, "end_to_end", ours(MODEL))


@pytest.fixture(scope="module")
def gru(market, folder):
    return train(market, folder, "sequence", ours(GRU))


@pytest.fixture(scope="module")
def forest(market, folder):
    return train(market, folder, "forest", LIGHTGBM)


@pytest.fixture(scope="module")
def several(market, folder):
    return train(market, folder, "several", ours({**MODEL, "members": 2}))


@pytest.fixture(params=["mlp", "gru", "forest", "several"])
def run(request):
    return request.getfixturevalue(request.param)


def decided(target) -> pd.Series:
    table = target.table[target.table["weight"] > 0]
    return table.set_index("instrument")["weight"]


# The backtest's weights --------------------------------------------------------------------------


def test_it_gives_the_weights_that_the_backtest_traded(run):
    dates = run.weights.index.get_level_values("datetime").unique()
    for date in dates[[0, 1, len(dates) // 2, -2, -1]]:
        target = target_weights(run.id, f"{date:%Y-%m-%d}", tracking_uri=run.uri)
        expected = run.day(date)
        got = decided(target)
        assert set(got.index) == set(expected.index)
        assert np.abs(got - expected[got.index]).max() < 1e-9
        scores = run.scores.xs(date, level="datetime")
        scored = target.table.dropna(subset="score").set_index("instrument")["score"]
        assert np.abs(scored - scores[scored.index]).max() < 1e-9


def test_no_price_after_the_day_matters(run, market, tmp_path):
    """Neither other prices after the day nor their absence change a bit."""
    date = pd.Timestamp("2016-01-13")
    base = target_weights(run.id, "2016-01-13", tracking_uri=run.uri)
    rng = np.random.default_rng(0)

    def other(name, frame):
        later = frame.index > date
        frame.loc[later] *= np.exp(0.3 * rng.standard_normal((later.sum(), 1)))
        return frame

    changed = rewrite(market, tmp_path / "changed", other)
    cut = until(market, tmp_path / "cut", date)
    for provider in (changed, cut):
        again = target_weights(run.id, "2016-01-13", provider=provider.root, tracking_uri=run.uri)
        pd.testing.assert_frame_equal(base.table, again.table, check_exact=True)


def test_a_price_of_the_day_does_matter(mlp, market, tmp_path):
    """The check above can fail."""
    date = pd.Timestamp("2016-01-13")
    base = target_weights(mlp.id, "2016-01-13", tracking_uri=mlp.uri)
    name = base.table["instrument"][0]

    def other(code, frame):
        if code == name:
            frame.loc[frame.index >= date, ["open", "high", "low", "close"]] *= 1.05
        return frame

    changed = rewrite(market, tmp_path / "changed", other)
    again = target_weights(mlp.id, "2016-01-13", provider=changed.root, tracking_uri=mlp.uri)
    assert not base.table.equals(again.table)


def until(source: Provider, to: Path, last: pd.Timestamp) -> Provider:
    """A copy of the provider that ends with the day ``last``."""
    calendar = source.calendar[source.calendar <= last]
    series = {}
    for folder in source.folders:
        name = folder.upper()
        columns = {f: source.series(name, f)[: len(calendar)] for f in source.fields(name)}
        series[name] = pd.DataFrame(columns, index=calendar, dtype=float)
    spells = {m: (table := source.spells(m))[table["start"] <= last] for m in source.markets}
    to.mkdir(parents=True)
    return write_provider(to, calendar, series, spells)


@pytest.fixture(scope="module")
def earlier(market, folder, tmp_path_factory):
    """A run of the sequence network on data that end within the test segment."""
    cut = until(market, tmp_path_factory.mktemp("cut") / "market", pd.Timestamp("2016-01-29"))
    segments = {**SEGMENTS, "test": ["2015-11-02", "2016-01-28"]}
    return train(cut, folder, "earlier", ours(GRU), segments=segments)


def test_days_after_the_runs_data_are_scored_and_judged_as_a_new_dataset_would(
    earlier, market, tmp_path
):
    """A move that nobody believes, after the run's data, is left out of features and risk."""
    odd = pd.Timestamp("2016-02-10")
    name = snapshot(tracked_model(earlier.id, earlier.uri), market, "2016-02-10").names[0]

    def jump(code, frame):
        if code == name:
            later = frame.index >= odd
            frame.loc[later, ["open", "high", "low", "close"]] *= 3.0
        return frame

    longer = rewrite(market, tmp_path / "longer", jump)
    saved = tracked_model(earlier.id, earlier.uri)
    data = build(longer.root, exclusions="check")
    assert data.excluded_name_days > 0
    panel = data.panel(saved.window)
    days = data.days("test")[-15:]
    scores = predict_scores(saved.scorer, panel, days).numpy()
    index = panel.index(days)
    problem = saved.problem
    for i, day in enumerate(days):
        date = pd.Timestamp(panel.dates[day])
        here = snapshot(saved, longer, f"{date:%Y-%m-%d}")
        rows = index.get_level_values("datetime") == date
        assert list(here.names) == list(index[rows].get_level_values("instrument"))
        np.testing.assert_array_equal(
            here.batch.features[:, -1], panel.batch(days[[i]]).features[:, -1]
        )
        np.testing.assert_allclose(here.scores, scores[rows], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(here.batch.loadings, panel.batch(days[[i]]).loadings)
        plan = decide(saved, longer, here).plan
        weights = plan.table["target"].reindex(here.names)
        solution = problem.solve(torch.from_numpy(scores[rows])[None], panel.batch(days[[i]]))
        np.testing.assert_allclose(weights, solution.w[0], rtol=0, atol=1e-9)
        assert (date != odd) == (name in here.names)
    assert "excluded as invalid" in snapshot(saved, longer, "2016-02-10").left_out[name]


def test_the_default_day_is_the_last_with_data(mlp, market):
    target = target_weights(mlp.id, tracking_uri=mlp.uri)
    assert target.summary["date"] == f"{market.calendar[-1]:%Y-%m-%d}"
    assert target.summary["trade_on"] is None
    day = target_weights(mlp.id, "2016-01-13", tracking_uri=mlp.uri).summary
    assert day["trade_on"] == "2016-01-14" and not day["in_sample"]


def test_a_run_is_found_by_the_name_of_its_experiment(mlp):
    assert tracked_model("end_to_end", mlp.uri).run_id == mlp.id


# What it says ------------------------------------------------------------------------------------


def changed(run, **problem):
    """The run with changes to its problem."""
    facts = {**run.facts, "problem": {**run.facts["problem"], **problem}}
    return replace(run, facts=facts)


def test_figures_follow_from_the_weights(mlp, market):
    saved = tracked_model(mlp.id, mlp.uri)
    day = snapshot(saved, market, "2016-01-13")
    decision = decide(saved, market, day)
    plan = decision.plan
    facts = target_facts(decision, day, saved.days_per_year)
    loadings, specific = day.batch.loadings[0].numpy(), day.batch.specific[0].numpy()
    sigma = loadings @ loadings.T + np.diag(specific)
    mu, w = saved.problem.scale * day.scores, plan.table["target"].reindex(day.names).to_numpy()
    assert facts["expected_return"] == pytest.approx(mu @ w, abs=1e-15)
    assert facts["risk"] == pytest.approx(np.sqrt(w @ sigma @ w))
    assert facts["risk_annual"] == pytest.approx(facts["risk"] * np.sqrt(252))
    # Stationarity: what a name earns beyond the price of the budget is its price at the bound.
    budget, cap = facts["binding"]
    assert budget["constraint"] == "budget = 1" and cap["constraint"].endswith("weights <= 0.25")
    assert cap["value"] == pytest.approx(0.25) == cap["limit"]
    gain = mu - 5.0 * sigma @ w - budget["shadow_price"]
    capped = np.isclose(w, 0.25)
    assert capped.any() and gain[capped].sum() == pytest.approx(cap["shadow_price"], abs=1e-9)
    inside = (w > 1e-6) & (w < 0.25 - 1e-6)
    assert np.abs(gain[inside]).max(initial=0) < 1e-9 and (gain[w == 0] <= 1e-9).all()


def test_a_wider_cap_pays_its_price(mlp, market):
    """The price at max_weight is what a little more of it earns."""
    saved = tracked_model(mlp.id, mlp.uri)
    day = snapshot(saved, market, "2016-01-13")

    def value(cap):
        plan = decide(changed(saved, max_weight=cap), market, day).plan
        return plan.expected_return - 2.5 * plan.risk**2, plan

    step = 1e-5
    slope = (value(0.22 + step)[0] - value(0.22 - step)[0]) / (2 * step)
    assert value(0.22)[1].constraints[1].dual == pytest.approx(slope, rel=1e-3)


def test_every_member_is_in_the_problem_or_left_out_with_a_reason(mlp, market, tmp_path):
    date = pd.Timestamp("2016-01-13")
    saved = tracked_model(mlp.id, mlp.uri)
    first, second, third = snapshot(saved, market, "2016-01-13").names[:3]

    def change(name, frame):
        if name == first:
            frame.loc[date] = np.nan
        if name == second:
            frame.loc[frame.index < "2015-12-15"] = np.nan
        return frame

    universes = lists(market)
    ghost = pd.DataFrame([("GHOST", date, date)], columns=["instrument", "start", "end"])
    universes["sim"] = pd.concat([universes["sim"], ghost], ignore_index=True)
    source = rewrite(market, tmp_path / "odd", change, universes)
    day = snapshot(saved, source, "2016-01-13")
    spells = source.spells("sim")
    members = set(spells[(spells["start"] <= date) & (spells["end"] >= date)]["instrument"])
    assert set(day.names) | set(day.left_out) == members
    assert not set(day.names) & set(day.left_out) and third in day.names
    assert day.left_out[first].startswith("suspended: last close on 2016-01-12")
    assert "short history: " in day.left_out[second] and "30 needed" in day.left_out[second]
    assert "no data" in day.left_out["GHOST"]


# Shares and trades ------------------------------------------------------------------------------


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["instrument,shares", *lines]) + "\n")
    return path


def test_trades_lead_from_holdings_to_target_in_lots(mlp, market, tmp_path):
    outside, source = "SIMOUT", with_outsider(market, tmp_path / "wider")
    day = snapshot(tracked_model(mlp.id, mlp.uri), market, "2016-01-13")
    inside = [str(n) for n in day.names[:2]]
    lines = [f"{inside[0].lower()},1250", f"{inside[1]},300", f"{outside},10"]
    held = write_csv(tmp_path / "holdings.csv", *lines)
    target = target_weights(
        mlp.id, "2016-01-13", provider=source.root, holdings=held, cash=1e6, tracking_uri=mlp.uri
    )
    table, account = target.table.set_index("instrument"), target.summary["account"]
    assert table.loc[inside[0], "shares"] == 1250
    assert (table["shares"] + table["trade"] == table["target_shares"]).all()
    assert table.loc[outside, "target_shares"] == 0 and table.loc[outside, "trade"] == -10
    assert table.loc[outside, "reason"] == LEFT_UNIVERSE
    kept = table[table["weight"] > 0]
    assert (kept["trade"] % 100 == 0).all()
    row = market.calendar.get_loc(pd.Timestamp("2016-01-13"))
    close = market.series(inside[0], "close")[row] / market.series(inside[0], "factor")[row]
    assert table.loc[inside[0], "price"] == pytest.approx(float(close))
    before = (table["shares"] * table["price"]).sum() + 1e6
    assert account["value"] == pytest.approx(before)
    after = account["cash"] + account["cost"] + (table["target_shares"] * table["price"]).sum()
    assert after == pytest.approx(before) and account["cash"] > 0
    share = kept["value"] / before
    assert np.abs(share / 0.95 - kept["weight"]).max() < 0.01


def test_a_suspended_holding_is_kept_and_said(mlp, market, tmp_path):
    day = snapshot(tracked_model(mlp.id, mlp.uri), market, "2016-01-13")
    name = str(day.names[0])

    def suspend(code, frame):
        if code == name:
            frame.loc["2016-01-12":"2016-01-13"] = np.nan
        return frame

    source = rewrite(market, tmp_path / "odd", suspend)
    held = write_csv(tmp_path / "holdings.csv", f"{name},700")
    target = target_weights(
        mlp.id, "2016-01-13", provider=source.root, holdings=held, cash=1e6, tracking_uri=mlp.uri
    )
    row = target.table.set_index("instrument").loc[name]
    assert row["trade"] == 0 and row["target_shares"] == 700 and row["price"] > 0
    assert "suspended" in row["reason"] and target.summary["kept_without_price"] == [name]


# The command ------------------------------------------------------------------------------------


def invoke(*arguments: str, expect: int = 0):
    result = CliRunner().invoke(app, ["weights", *arguments])
    if expect == 0 and result.exception:
        raise result.exception
    return result


def test_the_command_writes_csv_and_prints_json(mlp, tmp_path):
    out = tmp_path / "deep" / "weights.csv"
    arguments = ("--run", mlp.id, "--date", "2016-01-13", "--tracking-uri", mlp.uri)
    result = invoke(*arguments, "--out", str(out), "--cash", "1e6", "--json")
    said = json.loads(result.stdout)
    read = pd.read_csv(out, keep_default_na=False, na_values=[""])
    expected = mlp.day(pd.Timestamp("2016-01-13"))
    got = read[read["weight"] > 0].set_index("instrument")["weight"]
    assert np.abs(got - expected[got.index]).max() < 1e-9 and len(got) == len(expected)
    assert said["run"] == mlp.id and said["names_in_target"] == len(expected)
    assert [row["instrument"] for row in said["table"]] == list(read["instrument"])
    assert not list(out.parent.glob(".*partial*"))
    shares = [row[c] for row in said["table"] for c in ("shares", "trade", "target_shares")]
    assert all(isinstance(amount, int) for amount in shares) and any(shares)
    plain = invoke(*arguments, "--out", str(out))
    assert "expected return" in plain.stdout and plain.stdout.strip().endswith("weights.csv")
    assert "shares" not in pd.read_csv(out).columns


def test_the_command_writes_orders_that_a_broker_takes(mlp, market, tmp_path):
    out, held = tmp_path / "orders.csv", write_csv(tmp_path / "holdings.csv", "SIMOUT,10")
    source = with_outsider(market, tmp_path / "wider")
    account = ("--cash", "1e6", "--holdings", str(held), "--account", "A-17")
    arguments = ("--run", mlp.id, "--tracking-uri", mlp.uri, "--out", str(out))
    arguments += ("--provider", str(source.root))
    result = invoke(*arguments, "--date", "2016-01-13", *account, "--format", "orders")
    text = out.read_text().splitlines()
    assert text[0] == "date,side,quantity,code,reference_price,currency,account"
    assert text[1].startswith("2016-01-14,SELL,10,SIMOUT,") and text[1].endswith(",USD,A-17")
    assert all(",BUY," in line and line.split(",")[2].endswith("00") for line in text[2:])
    assert len(text) > 3 and f"{len(text) - 1} orders: 1 sale of " in result.stdout
    invoke(*arguments, "--date", "2016-01-13", "--format", "targets")
    targets = pd.read_csv(out)
    assert targets["weight"].sum() == pytest.approx(1) and targets["shares"].isna().all()
    for wrong, message in (
        (["--format", "orders"], "give --cash"),
        (["--format", "trades"], "unknown format 'trades'"),
        ([*account, "--format", "orders"], "the trading day after it is not known"),
        ([*account, "--format", "orders", "--trade-date", "1/2/2016"], "no date of the form"),
    ):
        before = out.read_text()
        with pytest.raises(ConfigError, match=message):
            invoke(*arguments, *wrong)
        assert out.read_text() == before


def test_days_to_come_are_read_from_qlibs_file(market, tmp_path):
    last = market.calendar[-1]
    source = rewrite(market, tmp_path / "longer", lambda _, frame: frame)
    assert source.next_day(last) is None and source.next_day(last - pd.Timedelta(days=1)) == last
    future = [*market.calendar, last + pd.Timedelta(days=4)]
    lines = "".join(f"{day:%Y-%m-%d}\n" for day in future)
    (source.root / "calendars" / "day_future.txt").write_text(lines)
    assert source.next_day(last) == future[-1]


@pytest.mark.parametrize(
    ("date", "message"),
    [
        ("2016-01-16", "no trading day; the nearest are 2016-01-15 and 2016-01-18"),
        ("2030-01-04", "the provider ends on"),
        ("2015-02-27", "the run's data begin on 2015-03-02"),
        ("yesterday", "is no date of the form YYYY-MM-DD"),
    ],
)
def test_a_day_that_cannot_be_decided_is_refused(mlp, tmp_path, date, message):
    out = tmp_path / "weights.csv"
    out.write_text("yesterday's")
    with pytest.raises(DataError, match=message):
        invoke("--run", mlp.id, "--date", date, "--tracking-uri", mlp.uri, "--out", str(out))
    assert out.read_text() == "yesterday's"


def test_a_day_without_data_names_the_nearest_that_has(mlp, market, tmp_path):
    def empty(name, frame):
        frame.loc["2016-01-13":"2016-01-14"] = np.nan
        return frame

    source = rewrite(market, tmp_path / "gap", empty)
    with pytest.raises(DataError, match=r"no member of 'sim' .* 2016-01-14. .* is 2016-01-15"):
        target_weights(mlp.id, "2016-01-14", provider=source.root, tracking_uri=mlp.uri)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["SIM999,100"], r"line 2: 'SIM999' is no instrument of the provider"),
        (["SIMIDX,-5"], r"line 2: -5 shares of SIMIDX"),
        (["SIMIDX,many"], r"line 2: 'many' is no number of shares"),
        (["SIMIDX,nan"], r"line 2: nan shares"),
        (["SIM0001,5", "sim0001,6"], r"line 3: SIM0001 comes twice"),
        (["SIMIDX,5"], r"line 2: SIMIDX is the index that the run is compared with"),
        (["SIMIDX"], r"line 2: expected 2 values, got 1"),
    ],
)
def test_holdings_that_cannot_be_right_are_refused(mlp, tmp_path, lines, message):
    held = write_csv(tmp_path / "holdings.csv", *lines)
    with pytest.raises(DataError, match=message):
        target_weights(mlp.id, holdings=held, cash=0, tracking_uri=mlp.uri)


def test_other_bad_input_is_refused(mlp, market, folder, tmp_path):
    with pytest.raises(ConfigError, match="cash: must be >= 0"):
        target_weights(mlp.id, cash=-1.0, tracking_uri=mlp.uri)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("name,amount\n")
    with pytest.raises(DataError, match="line 1: expected the columns instrument,shares"):
        target_weights(mlp.id, holdings=wrong, cash=0, tracking_uri=mlp.uri)
    with pytest.raises(DataError, match="cannot read the holdings"):
        target_weights(mlp.id, holdings=tmp_path / "none.csv", tracking_uri=mlp.uri)
    with pytest.raises(DataError, match=r"no finished run .* 'end_to_ent'.* nearest: end_to_end"):
        target_weights("end_to_ent", tracking_uri=mlp.uri)
    with pytest.raises(DataError, match="no tracking database"):
        target_weights(mlp.id, tracking_uri=f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(ProviderError, match="no Qlib provider at"):
        target_weights(mlp.id, provider=tmp_path / "none", tracking_uri=mlp.uri)


def test_a_run_without_a_model_and_a_name_of_two_runs_are_refused(mlp):
    client = MlflowClient(mlp.uri)
    experiment = client.create_experiment("twice")
    ids = [client.create_run(experiment, run_name="twin").info.run_id for _ in range(2)]
    for run_id in ids:
        client.set_terminated(run_id)
    with pytest.raises(DataError, match=f"2 finished runs .* 'twin'.*{ids[0]}"):
        target_weights("twin", tracking_uri=mlp.uri)
    with pytest.raises(DataError, match="keeps no model under bpqp/model/"):
        target_weights(ids[0], tracking_uri=mlp.uri)


def test_a_run_that_failed_is_not_called_unknown(mlp):
    client = MlflowClient(mlp.uri)
    experiment = client.create_experiment("broken")
    one = client.create_run(experiment, run_name="only").info.run_id
    client.set_terminated(one, "FAILED")
    for name in ("only", "broken"):
        with pytest.raises(DataError, match=rf"the only run called '{name}' .*{one}.* failed"):
            target_weights(name, tracking_uri=mlp.uri)
    client.create_run(experiment, run_name="later")
    with pytest.raises(DataError, match=r"none of the 2 runs called 'broken' .* has not finished"):
        target_weights("broken", tracking_uri=mlp.uri)
    client.create_experiment("bare")
    with pytest.raises(DataError, match=r"experiment 'bare' .* has no run"):
        target_weights("bare", tracking_uri=mlp.uri)


# Stale models -----------------------------------------------------------------------------------


def test_a_provider_of_another_market_is_refused(mlp, market, tmp_path):
    calendar = market.calendar.delete(60)
    series = {}
    for code in market.folders:
        name = code.upper()
        columns = {f: market.series(name, f) for f in market.fields(name)}
        series[name] = pd.DataFrame(columns, index=market.calendar).loc[calendar].astype(float)
    (tmp_path / "other").mkdir()
    other = write_provider(tmp_path / "other", calendar, series, lists(market))
    day = f"{market.calendar[60]:%Y-%m-%d}"
    with pytest.raises(DataError, match=f"another provider .* days differ from {day} on"):
        target_weights(mlp.id, provider=other.root, tracking_uri=mlp.uri)


def test_a_provider_without_a_column_of_the_run_is_refused(mlp, market, tmp_path):
    narrow = rewrite(market, tmp_path / "narrow", lambda _, frame: frame.drop(columns="volume"))
    with pytest.raises(DataError, match=r"columns that need \$volume"):
        target_weights(mlp.id, provider=narrow.root, tracking_uri=mlp.uri)


@pytest.fixture
def copied(mlp, tmp_path):
    """The model that the run saved, to be damaged."""
    client = MlflowClient(mlp.uri)
    return Path(client.download_artifacts(mlp.id, "bpqp/model", str(tmp_path)))


def test_a_damaged_or_older_model_is_refused(copied):
    facts = json.loads((copied / "model.json").read_text())

    def loaded(**changes):
        (copied / "model.json").write_text(json.dumps({**facts, **changes}))
        seal(copied)
        return load_run(copied, "r")

    assert loaded().facts == facts
    short = {"features": facts["features"][1:], "expressions": facts["expressions"][1:]}
    with pytest.raises(DataError, match=r"does not fit the 152 columns .* stale"):
        loaded(**short)
    with pytest.raises(DataError, match="columns and expressions do not match"):
        loaded(features=facts["features"][1:])
    with pytest.raises(DataError, match="another version"):
        loaded(schema=None)
    with pytest.raises(DataError, match="constraints were not kept"):
        loaded(schema=3, mandate=True)
    (copied / "model.json").write_text("{")
    seal(copied)
    with pytest.raises(DataError, match="cannot read its saved model"):
        load_run(copied, "r")


def test_a_pickle_in_place_of_the_network_is_not_run(copied, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"weight": Trap()}, copied / "state_dict.pt")
    seal(copied)
    with pytest.raises(DataError, match=r"state_dict\.pt is damaged"):
        load_run(copied, "r")
    assert not (tmp_path / "sprung").exists()


def test_an_unknown_processor_is_refused_before_it_is_made(copied, market):
    facts = json.loads((copied / "model.json").read_text())
    facts["processors"].append({"class": "TanhProcess"})
    (copied / "model.json").write_text(json.dumps(facts))
    seal(copied)
    with pytest.raises(DataError, match="processor TanhProcess, which cannot be applied"):
        snapshot(load_run(copied, "r"), market)
