"""Bounds on exposures from a workflow: kept in the backtest, the same tomorrow, refused early."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from desks import BACKTEST, GROUPS, NETWORK, RULES, Desk, decided, trading
from qlib_markets import FEW, SEGMENTS, build, kept, run_task

from bpqp_portfolio.backtest.day_inputs import day_inputs
from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.backtest.rebalance import rebalance
from bpqp_portfolio.data.universe.market import load_market
from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.live.day_data import day_data
from bpqp_portfolio.live.snapshot import snapshot
from bpqp_portfolio.live.target_weights import tracked_model
from bpqp_portfolio.qlib_ext.kept_tables import kept_facts

BOUNDS = {"limit": {"value": 0.2, "beta": 1.05}, "lower": {"value": -0.2, "size": -0.5}}
SHARE = 0.05
MANDATE = {
    "risk_aversion": 5.0,
    "constraints": {"max_weights": 0.3, "exposures": BOUNDS, "max_participation": SHARE},
    "exposure_target": {"targets": {"momentum": 0.5}, "strength": 1e-5},
    "costs": {"buy": 0.001, "sell": 0.002, "minimum": 5.0},
    "account": {"value": 1e7, "risk_degree": 0.95},
    "on_failure": [{"relax": ["exposures"]}, "hold"],
    "sectors": GROUPS,
    "exposure_table": "exposures.csv",
}


def monthly(names, seed: int = 0) -> pd.DataFrame:
    """A value (13, n) of each name on the first of each month, normal."""
    dates = pd.date_range("2015-03-01", periods=13, freq="MS")
    values = np.random.default_rng(seed).standard_normal((len(dates), len(names)))
    return pd.DataFrame(values, dates, pd.Index(names, name="instrument"))


def write(table: pd.DataFrame, file) -> None:
    table.rename_axis("date").stack().rename("value").to_csv(file)


@pytest.fixture(scope="module")
def desk(market, folder):
    provider, file = trading(market, folder / "market"), folder / "mlflow.db"
    write(monthly(load_market(provider, "sim").names), folder / "exposures.csv")
    changes = {"mandate": MANDATE, "handler": FEW, "market_rules": RULES}
    recorder = run_task(provider, file, "exposed", NETWORK, BACKTEST, **changes)
    activity = kept(recorder, "activity")
    facts = kept_facts(recorder, "bpqp/mandate_facts.json")
    return Desk.of(recorder, file, provider), activity, facts


def test_the_bounds_hold_on_every_solved_day_and_bind_on_some(desk):
    found, activity, facts = desk
    solved = found.days.index[(found.days["fallback"] == "") & (found.days["status"] == "solved")]
    assert len(solved) > 0.8 * len(found.days) > 70
    values = monthly(load_market(found.market, "sim").names).reindex(solved, method="ffill")
    targets = found.targets.unstack().reindex(solved).reindex(columns=values.columns).fillna(0.0)
    value = (targets * values).sum(axis=1)
    assert value.max() <= 0.2 + 1e-9 and value.min() >= -0.2 - 1e-9
    at_limit = (value > 0.2 - 1e-7) | (value < -0.2 + 1e-7)
    assert 5 < at_limit.sum() < len(solved)
    bound = activity[activity["binding"] > 0]["constraint"].value_counts()
    assert bound.filter(like="max_participation").sum() > 2, bound
    for words in ("exposures: value <= 0.2", "exposures: beta <= 1.05", "exposures: size >= -0.5"):
        assert bound[words] > 2, words
    assert facts["exposures"] == "the table exposures.csv and prices (beta, size, momentum)"


def test_tomorrow_gives_the_targets_of_the_backtest(desk, tmp_path, monkeypatch):
    """From another folder than the run's: on the first days, with pinned names, and on the last."""
    found, activity, _ = desk
    monkeypatch.chdir(tmp_path)
    days, pinned = found.days, found.days.index[found.days["pinned"] > 0]
    assert len(pinned) > 5
    bound = activity[(activity["binding"] > 0) & activity["constraint"].str.contains("exposures")]
    for date in [*days.index[[0, 1, -1]], *pinned[:3], *bound["datetime"].unique()[:3]]:
        target = found.decide(pd.Timestamp(date), tmp_path)
        expected, got = found.targets.xs(date, level="datetime"), decided(target)
        assert set(got.index) == set(expected.index), date
        assert np.abs(got - expected[got.index]).max() < 1e-9, date
    assert any("exposures: " in row["constraint"] for row in target.summary["binding"])


def test_a_later_day_that_the_table_leaves_names_out_of_is_an_error(desk, tmp_path):
    found, *_ = desk
    run, date = tracked_model(found.id, found.uri), "2016-01-13"
    names = load_market(found.market, "sim").names
    table = monthly(names).loc[:"2016-01-01"]
    table.iloc[-1, 0] = np.nan
    write(table, tmp_path / "short.csv")
    day = snapshot(run, found.market, date)
    block = {**run.facts["mandate"], "exposure_table": str(tmp_path / "short.csv")}
    rules = run.rules

    def decide(**changes):
        settings = MandateSettings.from_config({**block, **changes}, 252)
        inputs = day_inputs(day_data(run, settings, found.market, day, ["SIMIDX"]))
        return rebalance(settings.build(), inputs, {}, 1e6, rules)

    with pytest.raises(DataError, match=rf"no 'value' of {names[0]} .* 2016-01-13; complete it"):
        decide()
    plan = decide(exposure_fill=0.5)
    column = plan.market.exposures[0, :, 0].numpy()
    at = dict(zip(plan.market.names, column, strict=True))
    assert at[names[0]] == 0.5 and at[names[1]] == table.iloc[-1, 1]


def test_a_bound_is_absolute_or_relative_to_the_index(desk):
    """Of the same day, with beta from prices alone; equal weights have a beta of about 1."""
    found, *_ = desk
    run = tracked_model(found.id, found.uri)
    day = snapshot(run, found.market, "2016-01-13")
    for relative, limit in ((False, 0.8), (True, -0.2)):
        bounds = {"limit": {"beta": limit}, "relative": relative}
        settings = MandateSettings.from_config(changed(bounds, exposure_table=None), 252)
        inputs = day_inputs(day_data(run, settings, found.market, day))
        plan = rebalance(settings.build(), inputs, {}, 1e6, run.rules)
        beta = inputs.exposures[[list(inputs.names).index(n) for n in plan.market.names], 0]
        index = float(beta @ plan.market.benchmark[0].numpy())
        assert abs(index - 1) < 0.1
        own = float(beta @ plan.solution.w[0].numpy())
        assert own - relative * index == pytest.approx(limit, abs=1e-9)


# Refused before any work --------------------------------------------------------------------------


def changed(bounds=BOUNDS, **more):
    """The block with other bounds and without a target, whose pull would hide them."""
    more = {"exposure_target": None, **more}
    block = {**MANDATE, "constraints": {"exposures": bounds}, **more}
    return {key: value for key, value in block.items() if value is not None}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (changed(exposure_table=None), r"'value' is not built in and there is no exposure_table"),
        (
            changed({"limit": {"bta": 1.0}}, exposure_table=None),
            r"'bta' is not built in.*Did you mean 'beta'\?",
        ),
        (changed({"limit": 1.0}, exposure_table=None), "one number for all needs a table"),
        (changed({"limit": {"beta": "low"}}), r"exposures\.limit\.beta: expected a number"),
        (changed(exposure_table=3), r"mandate\.exposure_table: expected a CSV file, got 3"),
        (changed(exposure_fill="none"), r"mandate\.exposure_fill: expected a number"),
        (
            changed({"limit": {"beta": 1.0}}, exposure_table=None, exposure_fill=0.0),
            "there is no exposure_table to complete",
        ),
        (changed(exposure_tabel="x.csv"), "unknown key 'exposure_tabel'. Did you mean 'exposure_t"),
    ],
)
def test_settings_that_are_refused(block, message):
    with pytest.raises(ConfigError, match=message):
        MandateSettings.from_config(block, 252)


def test_built_in_exposures_need_no_table_and_a_block_comes_back_whole(tmp_path, monkeypatch):
    MandateSettings.from_config(changed({"limit": {"beta": 1.0}}, exposure_table=None), 252)
    monkeypatch.chdir(tmp_path)
    kept = MandateSettings.from_config(changed(exposure_fill=0.5), 252).to_config()
    assert (
        kept["exposure_table"] == str(tmp_path / "exposures.csv") and kept["exposure_fill"] == 0.5
    )
    assert MandateSettings.from_config(kept, 252).to_config() == kept


def test_tables_are_read_before_any_work(market, tmp_path):
    file = tmp_path / "table.csv"
    names = load_market(market, "sim").names

    def dataset(**changes):
        build(market.root, mandate=changed(**{"exposure_table": str(file), **changes}))

    with pytest.raises(ConfigError, match=r"mandate\.exposure_table: no file .*table\.csv"):
        dataset()
    table = monthly(names)
    write(table.rename_axis("date"), file)
    with pytest.raises(ConfigError, match=r"no column 'valu'.* Did you mean 'value'\?"):
        dataset(bounds={"lower": {"valu": 0.0}})
    write(table.loc["2015-12-01":], file)
    with pytest.raises(DataError, match=f"begins on 2015-12-01, after {SEGMENTS['test'][0]}"):
        dataset()
    member = names[load_market(market, "sim").member[-60:].all(0)][0]
    table.loc["2016-01-01", member] = np.nan
    write(table, file)
    with pytest.raises(DataError, match=rf"no 'value' of {member} .* 2016-01-01; complete it"):
        dataset()
    dataset(exposure_fill=0.0)
    file.write_text("date,instrument,value\n2015-03-01,SIM0001,x\n")
    with pytest.raises(DataError, match="line 2: value 'x' is no finite number"):
        dataset(bounds={"limit": {"beta": 1.0}})
