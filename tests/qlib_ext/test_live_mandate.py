"""What to hold tomorrow under a mandate: the backtest's own targets, from what was then held."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from desks import BACKTEST, GROUPS, MANDATE, NETWORK, RULES, Desk, decided, trading
from mlflow.tracking import MlflowClient
from qlib_markets import FEW, lists, run_task, with_outsider
from typer.testing import CliRunner

from bpqp_portfolio.backtest.day_inputs import day_inputs
from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.backtest.rebalance import AT_LOWER_LIMIT, AT_UPPER_LIMIT, LEFT_UNIVERSE
from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider.provider import write_provider
from bpqp_portfolio.data.universe.market import load_market
from bpqp_portfolio.errors import ConfigError, DataError, SolverError
from bpqp_portfolio.files.digests import seal
from bpqp_portfolio.live.day_data import day_data
from bpqp_portfolio.live.snapshot import snapshot
from bpqp_portfolio.live.target_weights import print_target, target_weights, tracked_model
from bpqp_portfolio.risk.clusters import ClusterConfig, cluster_returns
from bpqp_portfolio.runs.artifact import RunArtifact, load_run


@pytest.fixture(scope="module")
def desk(market, folder):
    provider, file = trading(market, folder / "market"), folder / "mlflow.db"
    changes = {"mandate": MANDATE, "handler": FEW, "market_rules": RULES}
    recorder = run_task(provider, file, "desk", NETWORK, BACKTEST, **changes)
    return Desk.of(recorder, file, provider)


# The backtest's targets ---------------------------------------------------------------------------


def test_it_gives_the_targets_that_the_backtest_traded(desk, tmp_path):
    """On the first days, with pinned names, across a change of the groups, and on the last."""
    days = desk.days
    pinned = days.index[days["pinned"] > 0]
    assert len(pinned) > 5
    turns = days.index[np.flatnonzero(np.diff(days.index.month)) + 1]
    chosen = [*days.index[[0, 1, 2, 20, -2, -1]], *pinned[:4], *turns[:2]]
    reasons: set[str] = set()
    for date in dict.fromkeys(chosen):
        target = desk.decide(date, tmp_path)
        expected, got = desk.targets.xs(date, level="datetime"), decided(target)
        assert set(got.index) == set(expected.index), date
        assert np.abs(got - expected[got.index]).max() < 1e-9, date
        row = days.loc[date]
        assert target.summary["status"] == row["status"]
        assert target.summary["risk"] == pytest.approx(row["risk"], rel=1e-9)
        assert target.summary["expected_return"] == pytest.approx(row["expected_return"], abs=1e-12)
        assert target.summary["turnover"] == pytest.approx(row["turnover"], abs=1e-9)
        reasons |= set(target.table["reason"])
    assert {AT_UPPER_LIMIT, AT_LOWER_LIMIT} & reasons
    assert any("suspended" in reason for reason in reasons)


def test_trades_are_the_backtests_orders(desk, tmp_path):
    """What was held a day later is what was held and ordered, where nothing was in the way."""
    checked = 0
    for date, later in zip(desk.days.index[:30], desk.days.index[1:31], strict=True):
        if checked == 3 or date not in desk.positions:
            continue
        table = desk.decide(date, tmp_path).table.set_index("instrument")
        before, after = desk.shares(date), desk.shares(later)
        change = {n: after.get(n, 0.0) - before.get(n, 0.0) for n in set(before) | set(after)}
        got = table["trade"][table["trade"] != 0]
        if set(got.index) != {n for n, c in change.items() if abs(c) > 1e-3}:
            continue  # an order met a limit or a suspension
        for name, trade in got.items():
            # The exchange cuts purchases that the prices of the next day made too dear.
            assert np.sign(change[name]) == np.sign(trade)
            assert abs(change[name]) <= abs(trade) * (1 + 1e-6)
        checked += 1
    assert checked == 3


def test_what_is_known_is_what_the_backtest_knew(desk, tmp_path):
    """A change of the future moves nothing; one of today's prices does."""
    date = desk.days.index[30]
    base = desk.decide(date, tmp_path)
    for after, same in ((True, True), (False, False)):
        series = {}
        for name in (f.upper() for f in desk.market.folders):
            columns = {f: desk.market.series(name, f) for f in desk.market.fields(name)}
            frame = pd.DataFrame(columns, index=desk.market.calendar).astype(float)
            late = frame.index > date if after else frame.index >= date
            scale = np.random.default_rng(len(series)).uniform(0.9, 1.1)
            frame.loc[late, ["open", "high", "low", "close"]] *= scale
            series[name] = frame
        root = tmp_path / f"changed{after}"
        root.mkdir()
        other = write_provider(root, desk.market.calendar, series, lists(desk.market))
        again = desk.decide(date, tmp_path, provider=other.root)
        assert base.table.equals(again.table) == same


# What it says -------------------------------------------------------------------------------------


def test_binding_constraints_have_words_and_prices(desk, tmp_path):
    date = desk.days.index[(desk.days["status"] == "solved") & (desk.days["turnover"] > 0.199)][1]
    target = desk.decide(date, tmp_path)
    rows = {row["constraint"]: row for row in target.summary["binding"]}
    turnover = rows["max_turnover 0.2"]
    assert turnover["value"] == pytest.approx(0.2) and turnover["limit"] == pytest.approx(0.2)
    assert turnover["shadow_price"] > 0
    assert "max_weights: weights <= 0.3" in target.summary["mandate"]
    assert not target.summary["first_purchase"] and not target.summary["fallback"]


def test_every_member_is_in_the_problem_or_left_out_with_a_reason(desk, tmp_path):
    whole = load_market(desk.market, "sim")
    day = next(
        d
        for d in desk.days.index[5:]
        if (
            whole.member[whole.dates.get_loc(d)] & ~np.isfinite(whole.close[whole.dates.get_loc(d)])
        ).any()
    )
    target = desk.decide(day, tmp_path)
    at = whole.dates.get_loc(day)
    suspended = set(whole.names[whole.member[at] & ~np.isfinite(whole.close[at])])
    held = set(desk.shares(day))
    assert set(target.summary["left_out"]) == suspended - held
    table = target.table.set_index("instrument")
    for name in suspended:
        assert table.loc[name, "reason"].startswith("suspended: last close on")
        if name in held:
            assert table.loc[name, "trade"] == 0
            assert table.loc[name, "weight"] == pytest.approx(
                table.loc[name, "previous"], abs=1e-12
            )
    assert target.summary["kept_without_price"] == sorted(suspended & held)


def test_the_account_after_the_trades_is_the_one_before_less_costs(desk, tmp_path):
    target = desk.decide(desk.days.index[10], tmp_path)
    table, account = target.table, target.summary["account"]
    cash = float(desk.positions[desk.days.index[10]].get_cash())
    before = (table["shares"] * table["price"]).sum() + cash
    assert account["value"] == pytest.approx(before)
    after = (table["target_shares"] * table["price"]).sum() + account["cash"] + account["cost"]
    assert after == pytest.approx(before) and account["cash"] >= 0
    value = (table["trade"] * table["price"]).to_numpy()
    rate = np.where(value > 0, 0.001, 0.002) * np.abs(value)
    assert account["cost"] == pytest.approx(np.where(value == 0, 0, np.maximum(rate, 5)).sum())
    bought = table["trade"][table["trade"] > 0]
    assert len(bought) and (bought % 100 == 0).all()


def test_without_holdings_it_is_the_first_purchase(desk, tmp_path, capsys):
    date = desk.days.index[0]
    target = target_weights(desk.id, f"{date:%Y-%m-%d}", tracking_uri=desk.uri)
    expected = desk.targets.xs(date, level="datetime")
    got = decided(target)
    assert np.abs(got - expected[got.index]).max() < 1e-9 and len(got) == len(expected)
    assert "shares" not in target.table and "account" not in target.summary
    assert target.summary["first_purchase"]
    print_target(target)
    assert "nothing is held" in capsys.readouterr().out


def test_a_holding_that_was_never_in_the_universe_is_sold(desk, tmp_path):
    held = tmp_path / "holdings.csv"
    held.write_text("instrument,shares\nSIMOUT,10\n")
    source = with_outsider(desk.market, tmp_path / "wider")
    date = f"{desk.days.index[0]:%Y-%m-%d}"
    target = target_weights(
        desk.id, date, provider=source.root, holdings=held, cash=1e6, tracking_uri=desk.uri
    )
    row = target.table.set_index("instrument").loc["SIMOUT"]
    assert row["trade"] == -10 and row["weight"] == 0 and row["reason"] == LEFT_UNIVERSE


def test_the_command_says_what_binds(desk, tmp_path):
    date = f"{desk.days.index[40]:%Y-%m-%d}"
    out = tmp_path / "weights.csv"
    arguments = ["weights", "--run", "desk", "--date", date, "--cash", "1e6", "--out", str(out)]
    plain = CliRunner().invoke(app, [*arguments, "--tracking-uri", desk.uri])
    assert plain.exit_code == 0, plain.output
    assert "binding: max_weights: weights <= 0.3 (shadow price" in plain.stdout
    said = CliRunner().invoke(app, [*arguments, "--tracking-uri", desk.uri, "--json"])
    assert json.loads(said.stdout)["names_in_target"] == (pd.read_csv(out)["weight"] > 0).sum()


# Failures -----------------------------------------------------------------------------------------


def changed(run: RunArtifact, **constraints) -> RunArtifact:
    """The run with other constraints in its mandate, and nothing to do where they fail."""
    mandate = {**run.facts["mandate"], "constraints": constraints, "on_failure": "raise"}
    facts = {**run.facts, "mandate": mandate}
    return RunArtifact(run.run_id, facts, run.scorer, run.excluded, run.groups)


def test_a_day_that_cannot_be_met_is_an_error_or_the_way_out_that_was_chosen(
    desk, tmp_path, monkeypatch, capsys
):
    date, run = desk.days.index[30], tracked_model(desk.id, desk.uri)
    impossible = changed(run, max_weights=0.01)
    monkeypatch.setattr("bpqp_portfolio.live.target_weights.tracked_model", lambda *_: impossible)
    with pytest.raises(SolverError, match="were not solved"):
        desk.decide(date, tmp_path)
    impossible.facts["mandate"]["on_failure"] = ["hold"]
    target = desk.decide(date, tmp_path)
    assert [one["action"] for one in target.summary["fallback"]] == ["hold"]
    assert "max_weights: weights <= 0.01" in target.summary["fallback"][0]["reason"]
    assert target.summary["binding"] == [] and target.summary["status"] == "not solved: held"
    assert target.summary["wanted_status"] == "primal infeasible"
    assert (target.table["trade"] == 0).all()
    print_target(target)
    assert "not solved: " in capsys.readouterr().out


def test_a_relaxed_limit_has_an_honest_status_and_what_binds(desk, tmp_path, monkeypatch):
    """Of 5 % turnover and a sector that holds more than its limit by more than that."""
    date, run = desk.days.index[30], tracked_model(desk.id, desk.uri)
    tight = changed(run, max_weights=0.3, groups={"limit": 0.34}, max_turnover=0.0001)
    way = {"relax": ["max_turnover"], "penalty": 1.0}
    tight.facts["mandate"]["on_failure"] = [way]
    monkeypatch.setattr("bpqp_portfolio.live.target_weights.tracked_model", lambda *_: tight)
    target = desk.decide(date, tmp_path)
    summary = json.loads(target.to_json())
    assert summary["wanted_status"] == "primal infeasible"
    assert summary["status"] == "solved with limits relaxed"
    assert [one["action"] for one in summary["fallback"]] == ["relax"]
    rows = {row["constraint"]: row for row in summary["binding"]}
    turnover = rows["max_turnover 0.0001"]
    assert turnover["value"] == pytest.approx(summary["turnover"], abs=1e-7)
    assert turnover["value"] > 10 * turnover["limit"]
    assert turnover["shadow_price"] == pytest.approx(1.0, rel=1e-3)  # its penalty
    assert any(name.startswith("groups") for name in rows)
    assert all(np.isfinite(row["shadow_price"]) for row in summary["binding"])


def test_holdings_need_the_cash_beside_them(desk, tmp_path):
    date = desk.days.index[30]
    with pytest.raises(ConfigError, match=r"cash is missing.*--cash 0 where there is none"):
        desk.decide(date, tmp_path, cash=None)
    assert desk.decide(date, tmp_path, cash=0.0).summary["account"]["cash"] >= 0


@pytest.fixture
def copied(desk, tmp_path):
    """The model that the run saved, to be damaged."""
    client = MlflowClient(desk.uri)
    return Path(client.download_artifacts(desk.id, "bpqp/model", str(tmp_path)))


def test_a_damaged_or_older_run_is_refused(desk, copied):
    facts = json.loads((copied / "model.json").read_text())
    assert facts["mandate"]["constraints"] == MANDATE["constraints"]
    (copied / "groups.npz").write_bytes(b"no archive")
    for sealed in (False, True):
        with pytest.raises(DataError, match=r"run 'r'.*groups\.npz is damaged"):
            load_run(copied, "r")
        if not sealed:
            seal(copied)
    (copied / "groups.npz").unlink()
    seal(copied)
    run = load_run(copied, "r")
    day = snapshot(run, desk.market, "2016-01-13")
    with pytest.raises(DataError, match="keeps no groups of names"):
        day_inputs(day_data(run, run.mandate, desk.market, day))
    (copied / "model.json").write_text(json.dumps({**facts, "schema": 3, "mandate": True}))
    seal(copied)
    with pytest.raises(DataError, match="constraints were not kept with its run"):
        load_run(copied, "r")


# Sectors ------------------------------------------------------------------------------------------


def test_groups_go_on_after_the_runs_data(desk):
    """As if the run had had the days after its data: found anew each month from those it kept."""
    run = tracked_model(desk.id, desk.uri)
    market = load_market(desk.market, "sim", run.excluded)
    config = ClusterConfig(**GROUPS)
    truth = cluster_returns(market.returns, market.dates, config)
    known = pd.DatetimeIndex(run.days)
    cut = int(known.searchsorted(pd.Timestamp("2016-01-20")))
    start, codes = run.groups
    facts = {**run.facts, "data": {**run.facts["data"], "days": " ".join(run.days[:cut])}}
    kept = start < cut
    short = RunArtifact(run.run_id, facts, run.scorer, run.excluded, (start[kept], codes[kept]))
    titles = np.array(["group 1", "group 2", "group 3", ""])
    settings = MandateSettings.from_config(run.facts["mandate"], 252)
    seen = set()
    for date in ("2015-07-15", "2016-01-19", "2016-01-29", "2016-02-01", "2016-03-14"):
        day = snapshot(short, desk.market, date)
        got = day_inputs(day_data(short, settings, desk.market, day)).sector
        expected = titles[truth[market.dates.get_loc(date)]]
        assert got.tolist() == expected.tolist(), date
        seen.add(tuple(got))
    assert len(seen) > 2


def test_a_users_table_of_sectors_is_found_from_any_folder(desk, tmp_path, monkeypatch):
    run = tracked_model(desk.id, desk.uri)
    names = sorted(run.facts["data"]["names"])
    table = tmp_path / "sectors.csv"
    lines = [f"{name},{'odd' if i % 2 else 'even'}" for i, name in enumerate(names)]
    table.write_text("\n".join(["instrument,sector", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    settings = MandateSettings.from_config({**MANDATE, "sectors": "sectors.csv"}, 252)
    kept = settings.to_config()
    assert kept["sectors"] == str(table)
    monkeypatch.chdir(desk.folder)
    day = snapshot(run, desk.market, "2016-01-13")
    again = MandateSettings.from_config(kept, 252)
    sector = day_inputs(day_data(run, again, desk.market, day)).sector
    assert sector.tolist() == ["odd" if i % 2 else "even" for i in range(len(names))]


def test_what_a_run_cannot_keep_is_refused_before_it_starts():
    with pytest.raises(ConfigError, match="keeps them as JSON"):
        MandateSettings.from_config({**MANDATE, "risk_aversion": np.float32(5)}, 252)
