"""A mandate through all records on a small market: constraints kept, failures counted, shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qlib.workflow import R
from qlib.workflow.record_temp import SignalRecord
from qlib_markets import FEW, MODEL, build, kept

from bpqp_portfolio.backtest.appraisal import appraise, decide
from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.data.universe.market import load_market
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.markets.rules import MARKET_RULES
from bpqp_portfolio.qlib_ext.kept_tables import kept_table
from bpqp_portfolio.qlib_ext.mandate_records import MandateRecord
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.qlib_ext.preflight import check_records
from bpqp_portfolio.qlib_ext.records import ReportRecord
from bpqp_portfolio.report.trades import trade_table
from bpqp_portfolio.runs.results import load_results

RECORD = {"class": "MandateRecord", "module_path": "bpqp_portfolio.qlib_ext.mandate_records"}
MANDATE = {
    "risk_aversion": 5.0,
    "constraints": {"max_weights": 0.25, "groups": {"limit": 0.6}, "max_turnover": 0.1},
    "costs": {"buy": 0.001, "sell": 0.002, "minimum": 1.0},
    "account": {"value": 1e7, "risk_degree": 0.95},
    "on_failure": [{"relax": ["max_turnover", "groups"]}, "hold"],
    "sectors": {"count": 3, "window": 60, "min_history": 30},
}


@pytest.fixture(scope="module")
def finished(market, tmp_path_factory):
    """The recorder and the folder of the results of a run of the mandate."""
    folder = tmp_path_factory.mktemp("mandate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPQP_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        data = build(market.root, handler=FEW, mandate=MANDATE, market_rules={"lot": None})
        model = PortfolioModel(**MODEL)
        with R.start(experiment_name="mandate"):
            model.fit(data)
            recorder = R.get_recorder()
            R.save_objects(task={"record": [RECORD]})
            SignalRecord(model, data, recorder).generate()
            MandateRecord(recorder, data, model).generate()
            ReportRecord(recorder, data, model).generate()
        yield (
            recorder,
            load_results(recorder.client.download_artifacts(recorder.id, "bpqp/results")),
        )


def test_targets_keep_the_constraints_on_solved_days(finished):
    recorder, results = finished
    days = kept_table(recorder, "bpqp/mandate_days.parquet")
    assert len(days) == 96
    solved = days["fallback"] == ""
    assert solved.mean() > 0.8
    assert (days["turnover"][solved][1:] <= 0.1 + 1e-8).all()
    weights = results.weights.set_index(["datetime", "instrument"])["weight"]
    kept = weights[weights.index.get_level_values(0).isin(days.index[solved])]
    assert kept.groupby("datetime").sum().to_numpy() == pytest.approx(1.0, abs=1e-8)
    assert (weights > 0).all()


def test_what_happened_is_counted_and_shown(finished):
    recorder, results = finished
    metrics = recorder.list_metrics()
    assert metrics["bpqp.mandate.fallbacks"] == len(results.events)
    assert np.isfinite(metrics["bpqp.mandate.gap"]) and len(results.implementation_shortfall) == 96
    assert {"max_turnover 0.1"} <= set(results.activity["constraint"])
    assert results.activity["binding"].isin([0, 1]).all()
    facts = results.settings["mandate"]
    assert "max_turnover 0.1" in facts["constraints"] and "proxy" in facts["index_weights"]


def test_figures_are_of_the_portfolios_that_were_held(finished, market):
    """Not of those that the problem without the mandate would have had, which nobody solves."""
    recorder, results = finished
    data = build(market.root, handler=FEW, mandate=MANDATE, market_rules={"lot": None})
    metrics = recorder.list_metrics()
    worth = kept(recorder, "signal")
    other = appraise(data, decide(data, recorder.load_object("pred.pkl").iloc[:, 0])[0])
    assert metrics["bpqp.regret"] == pytest.approx(worth["regret"].mean())
    assert metrics["bpqp.decision_value"] == pytest.approx(worth["decision_value"].mean())
    assert metrics["bpqp.regret"] != pytest.approx(other["regret"].mean(), rel=1e-3)
    np.testing.assert_array_equal(results.signal["regret"], worth["regret"])
    days = kept_table(recorder, "bpqp/mandate_days.parquet")
    assert metrics["bpqp.kkt_norm"] == pytest.approx(days["kkt_norm"].max())
    assert metrics["bpqp.solver.solved"] == (days["status"] == "solved").sum()


def test_annual_limits_and_figures_count_the_days_of_the_market(market):
    block = {
        "risk_aversion": 5.0,
        "constraints": {"max_tracking_error": 0.06},
        "on_failure": "hold",
    }
    for region in ("cn", "us"):
        year = MARKET_RULES[region].days_per_year
        data = build(market.root, region, handler=FEW, mandate=block)
        assert data.days_per_year == year
        (limit,) = data.mandate.build().terms
        assert limit.days_per_year == year and f"0.06 a year of {year} days" in str(limit)
        assert MandateSettings.from_config(data.mandate.to_config(), year) == data.mandate
    own = build(market.root, handler=FEW, mandate=block, market_rules={"days_per_year": 250})
    assert own.mandate.build().terms[0].days_per_year == own.problem_config.days_per_year == 250


def test_the_backtest_pays_the_mandates_costs(finished):
    _, results = finished
    bought_and_sold = results.daily["turnover"]
    paid = results.daily["cost"]
    assert (paid <= 0.002 * bought_and_sold + 1e-4).all() and paid.sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"constraints": {"long_only": False}}, "negative weights or a sum above 1"),
        ({"constraints": {"budget": 1.3}}, "negative weights or a sum above 1"),
        ({"constraints": {"market_neutral": {}}}, "negative weights or a sum above 1"),
        ({"constraints": {"max_turnovr": 0.1}}, "max_turnover"),
        ({"sectors": {"cuont": 3}}, "mandate.sectors: unknown key 'cuont'. Did you mean 'count'"),
        ({"index_weights": 3}, "mandate.index_weights: expected equal"),
        ({"pin_limits": "yes"}, "mandate.pin_limits: expected true or false"),
    ],
)
def test_what_no_backtest_could_hold_is_refused_at_once(change, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        MandateSettings.from_config({**MANDATE, "on_failure": "hold", **change}, 252)


def test_tables_are_read_before_any_work(market):
    with pytest.raises(ConfigError, match=r"mandate\.sectors: no file .*nowhere\.csv"):
        build(market.root, mandate={**MANDATE, "sectors": "nowhere.csv"})


def test_a_record_has_no_costs_of_its_own(dataset):
    with pytest.raises(ConfigError, match=r"MandateRecord\.open_cost is 0\.1, .*costs\.buy"):
        MandateRecord(None, dataset, open_cost=0.1)
    with pytest.raises(ConfigError, match="SignalRecord before it"):
        check_records({"record": [RECORD]})


def test_trades_worked_out_from_weights_are_those_of_the_backtest(finished, market):
    """Their sum is the turnover that Qlib reports, day by day."""
    _, results = finished
    universe = load_market(market, "sim")
    returns = pd.DataFrame(universe.returns, universe.dates, universe.names)
    trades = trade_table(results, returns, 0.95)
    days = results.daily.index
    done = trades["traded"].abs().groupby(level=0).sum().reindex(days, fill_value=0.0)
    np.testing.assert_allclose(done, results.daily["turnover"], atol=1e-9)
