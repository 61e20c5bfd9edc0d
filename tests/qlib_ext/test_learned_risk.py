"""A learned risk and κ are the same wherever a run decides: records, backtests and tomorrow."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from desks import BACKTEST, MANDATE, RULES, Desk, decided, trading
from mlflow.tracking import MlflowClient
from qlib.workflow import R
from qlib.workflow.record_temp import SignalRecord
from qlib_markets import FEW, MODEL, build, connect, run_task

from bpqp_portfolio.backtest.appraisal import appraise, decide
from bpqp_portfolio.backtest.day_inputs import day_inputs
from bpqp_portfolio.backtest.segment import SegmentDays
from bpqp_portfolio.data.features.panel import DailyPanel
from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.files.digests import seal
from bpqp_portfolio.live.day_data import day_data
from bpqp_portfolio.live.decision import decide as decide_day
from bpqp_portfolio.live.snapshot import snapshot
from bpqp_portfolio.live.target_weights import target_weights, tracked_model
from bpqp_portfolio.portfolio import PortfolioLayer, PortfolioProblem
from bpqp_portfolio.predictors import DecisionNetwork, Ensemble
from bpqp_portfolio.qlib_ext.exchange import BoardExchange
from bpqp_portfolio.qlib_ext.kept_tables import kept_table, kept_targets
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.qlib_ext.preflight import check_learned
from bpqp_portfolio.qlib_ext.records import BacktestRecord
from bpqp_portfolio.runs.artifact import load_run
from bpqp_portfolio.runs.results import load_results

OURS = "bpqp_portfolio.qlib_ext"
KAPPA = 0.002
LEARNING = {"normalisation": "standardise", "kappa": KAPPA}
PROBLEM = {"risk_aversion": 5.0, "max_weight": 0.25, **LEARNING}
LEARNED = {
    **MODEL,
    "loss": {"name": "decision_value", "risk": "realised"},
    "trainer": {**MODEL["trainer"], "learning_rate": 0.03, "batch_days": 10},
    "risk_head": {"limit": 1.5},
    "learn_kappa": True,
}


def ours(config: dict) -> dict:
    return {"class": "PortfolioModel", "module_path": f"{OURS}.model", "kwargs": config}


@dataclass(frozen=True)
class Run:
    """A finished run, its data anew, and the network that it kept."""

    recorder: object
    uri: str
    data: object
    model: PortfolioModel

    @property
    def id(self) -> str:
        return self.recorder.id

    def load(self, name):
        return self.recorder.load_object(name)


def train(market, folder, name, model) -> Run:
    record = {"class": "BacktestRecord", "module_path": f"{OURS}.records"}
    changes = {"problem": LEARNING, "handler": FEW, "market_rules": {"lot": 100}}
    recorder = run_task(market, folder / "mlflow.db", name, ours(model), record, **changes)
    data = build(market.root, **changes)
    return Run(
        recorder, f"sqlite:///{folder / 'mlflow.db'}", data, recorder.load_object("params.pkl")
    )


@pytest.fixture(scope="module")
def one(market, folder):
    return train(market, folder, "one", LEARNED)


@pytest.fixture(scope="module")
def several(market, folder):
    return train(market, folder, "several", {**LEARNED, "members": 2})


@pytest.fixture(params=["one", "several"])
def run(request):
    return request.getfixturevalue(request.param)


def test_there_is_something_to_lose(run):
    """What follows could not fail if nothing had been learned."""
    assert isinstance(
        run.model.network, Ensemble if run.model.settings.members > 1 else DecisionNetwork
    )
    learned_risk = run.model.learned_risk(run.data)
    assert (
        learned_risk.log_specific.std() > 0.01
        and learned_risk.log_factors.abs().to_numpy().mean() > 0.01
    )
    assert abs(math.log(learned_risk.problem.unit / KAPPA)) > 0.01
    statistical, _ = decide(run.data, run.load("pred.pkl").iloc[:, 0])
    held = kept_targets(run.recorder)
    assert (held.sub(statistical, fill_value=0.0).abs() > 0.01).mean() > 0.05


def test_the_records_weights_are_the_optimum_of_what_was_learned(run):
    panel: DailyPanel = run.data.panel()
    learned_risk, days = run.model.learned_risk(run.data), run.data.days("test")
    kappa = learned_risk.problem.config.kappa
    held = kept_targets(run.recorder)
    scores = run.load("pred.pkl").iloc[:, 0]
    for day in days[[0, 5, -1]]:
        batch, date = panel.batch(day[None], features=False), pd.Timestamp(panel.dates[day])
        a = torch.tensor(learned_risk.log_specific.loc[date].to_numpy())
        s = torch.tensor(learned_risk.log_factors.loc[date].to_numpy())
        B, d = batch.loadings[0] * s.exp(), batch.specific[0] * a.exp()
        z = torch.tensor(scores.loc[date].to_numpy())
        mu = kappa * (z - z.mean()) / z.std(correction=0)
        layer = PortfolioLayer(PROBLEM["risk_aversion"], PROBLEM["max_weight"])
        w = layer(mu[None], covariance=(B @ B.T + torch.diag(d))[None])[0]
        names = panel.names[panel.name_index[panel.rows(day[None])].numpy()]
        expected = held.loc[date].reindex(names, fill_value=0.0)
        np.testing.assert_allclose(w.numpy(), expected, rtol=0, atol=1e-7)


def test_what_it_was_worth_is_judged_by_the_statistical_risk(run):
    held = kept_targets(run.recorder)
    signal = appraise(run.data, held)
    panel, day = run.data.panel(), run.data.days("test")[3]
    batch, date = panel.batch(day[None], features=False), pd.Timestamp(panel.dates[day])
    names = panel.names[panel.name_index[panel.rows(day[None])].numpy()]
    w = torch.tensor(held.loc[date].reindex(names, fill_value=0.0).to_numpy())[None]
    plain = PortfolioProblem(PROBLEM)
    assert float(plain.value(w, batch)) == pytest.approx(signal.loc[date, "decision_value"])
    regret = plain.value(w, batch) - plain.value(plain.hindsight(batch).w, batch)
    assert float(regret) == pytest.approx(signal.loc[date, "regret"])


def test_tomorrow_decides_what_the_backtest_traded(run):
    held = kept_targets(run.recorder)
    dates = held.index.get_level_values("datetime").unique()
    for date in dates[[0, 1, len(dates) // 2, -2, -1]]:
        target = target_weights(run.id, f"{date:%Y-%m-%d}", tracking_uri=run.uri)
        got, expected = decided(target), held.xs(date, level="datetime")
        assert set(got.index) == set(expected.index)
        assert np.abs(got - expected[got.index]).max() < 1e-9


def test_one_day_alone_is_said_what_all_days_were(run, market):
    saved, learned_risk = tracked_model(run.id, run.uri), run.model.learned_risk(run.data)
    for date in learned_risk.log_factors.index[[0, 40, -1]]:
        day = snapshot(saved, market, f"{date:%Y-%m-%d}")
        assert list(day.names) == list(learned_risk.log_specific.loc[date].index)
        for said, whole in (
            (day.batch.log_specific[0], learned_risk.log_specific.loc[date]),
            (day.batch.log_factors[0], learned_risk.log_factors.loc[date]),
        ):
            np.testing.assert_allclose(said, whole, rtol=0, atol=1e-12)
    assert saved.problem.config == learned_risk.problem.config


def test_both_risks_of_tomorrow_are_told(one, market):
    saved = tracked_model(one.id, one.uri)
    day = snapshot(saved, market, "2016-01-13")
    plan = decide_day(saved, market, day).plan
    w, learned = plan.solution.w[0].numpy(), day.batch.with_learned_risk()
    for name, batch in (("risk", day.batch), ("risk_learned", learned)):
        B, d = batch.loadings[0].numpy(), batch.specific[0].numpy()
        assert getattr(plan, name) == pytest.approx(
            math.sqrt(w @ (B @ B.T + np.diag(d)) @ w), rel=1e-12
        )
    assert abs(plan.risk / plan.risk_learned - 1) > 1e-3


def test_it_is_kept_as_tensors_and_json(run, tmp_path):
    client = MlflowClient(tracking_uri=run.uri)
    folder = Path(client.download_artifacts(run.id, "bpqp/model", str(tmp_path)))
    facts = json.loads((folder / "model.json").read_text())
    kappa = run.model.learned_risk(run.data).problem.config.kappa
    assert facts["problem"]["kappa"] == kappa and facts["factors"] == 2
    assert facts["model"]["risk_head"] == {"limit": 1.5} and facts["model"]["learn_kappa"] is True
    state = torch.load(folder / "state_dict.pt", weights_only=True)
    assert sum(key.endswith("kappa") for key in state) == run.model.settings.members
    facts["model"]["risk_head"] = None
    (folder / "model.json").write_text(json.dumps(facts))
    seal(folder)
    with pytest.raises(DataError, match="the model is stale or damaged"):
        load_run(folder, run.id)


def test_it_is_tracked_and_shown(run):
    metrics = run.recorder.list_metrics()
    learned_risk = run.model.learned_risk(run.data)
    for name, table in (
        ("specific", learned_risk.log_specific),
        ("factors", learned_risk.log_factors),
    ):
        size = float(np.abs(table.to_numpy()).mean())
        assert metrics[f"bpqp.learned.{name}"] == pytest.approx(size, rel=1e-9)
    assert metrics["bpqp.learned.kappa"] == pytest.approx(learned_risk.problem.config.kappa)
    assert metrics["bpqp.kappa"] > 0
    specific = kept_table(run.recorder, "bpqp/log_specific.parquet").iloc[:, 0]
    pd.testing.assert_series_equal(specific, learned_risk.log_specific, check_index_type=False)
    results = run.recorder.client.download_artifacts(run.id, "bpqp/results")
    settings = load_results(Path(results)).settings
    assert settings["problem"]["kappa"] == learned_risk.problem.config.kappa


def test_members_are_averaged_in_logs(several):
    network, data = several.model.network, several.data
    days, parts = data.days("test"), []
    for member in network.members:
        alone = PortfolioModel(**LEARNED)
        alone.network = member
        parts.append(alone.learned_risk(data))
    whole = several.model.learned_risk(data)
    assert len(whole.log_factors) == len(days)
    specific = (parts[0].log_specific + parts[1].log_specific) / 2
    factors = (parts[0].log_factors + parts[1].log_factors) / 2
    np.testing.assert_allclose(whole.log_specific, specific, rtol=0, atol=1e-14)
    np.testing.assert_allclose(whole.log_factors, factors, rtol=0, atol=1e-14)
    product = parts[0].problem.unit * parts[1].problem.unit
    assert whole.problem.unit == pytest.approx(math.sqrt(product), rel=1e-12)


# Under a mandate ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(market, folder):
    provider = trading(market, folder / "traded")
    file = folder / "mandate.db"
    changes = {"mandate": MANDATE, "handler": FEW, "problem": LEARNING, "market_rules": RULES}
    recorder = run_task(provider, file, "desk", ours(LEARNED), BACKTEST, **changes)
    held, load = Desk.of(recorder, file, provider), recorder.load_object
    return held, load("params.pkl"), build(provider.root, **changes), load("pred.pkl").iloc[:, 0]


def test_tomorrow_decides_what_the_mandates_backtest_traded(desk, tmp_path):
    held, *_ = desk
    for date in held.days.index[[0, 1, 2, 20, 45, -2, -1]]:
        target = held.decide(date, tmp_path)
        expected, got = held.targets.xs(date, level="datetime"), decided(target)
        assert set(got.index) == set(expected.index), date
        assert np.abs(got - expected[got.index]).max() < 1e-9, date
        row = held.days.loc[date]
        assert target.summary["risk"] == pytest.approx(row["risk"], rel=1e-9)
        assert target.summary["expected_return"] == pytest.approx(row["expected_return"], abs=1e-12)


def test_a_mandates_days_have_the_learned_risk_of_all_members(desk):
    """A suspended name, of which nothing is said, keeps its own risk and has the day's factors."""
    held, model, data, scores = desk
    span = {"start_time": data.span_names["test"][0], "end_time": data.span_names["test"][1]}
    names = list(data.market_data.names)
    options = {"codes": names, "deal_price": "close", "rules": data.market_rules}
    exchange = BoardExchange(freq="day", **options, **span)
    learned_risk = model.learned_risk(data)
    learned, plain = (SegmentDays(data, scores, exchange, b) for b in (learned_risk, None))
    saved, silent = tracked_model(held.id, held.uri), 0
    for date in learned_risk.log_factors.index[[0, 10, 30, 50, 70, -1]]:
        ours_, theirs = learned.inputs(date), plain.inputs(date)
        said = learned_risk.log_specific.loc[date].reindex(names)
        scale = np.exp(learned_risk.log_factors.loc[date].to_numpy())
        np.testing.assert_allclose(ours_.loadings, theirs.loadings * scale, rtol=1e-14)
        expected = theirs.specific * np.exp(said.fillna(0.0).to_numpy())
        np.testing.assert_allclose(ours_.specific, expected, rtol=1e-14)
        modelled = np.isfinite(theirs.specific)
        silent += int((modelled & said.isna().to_numpy()).sum())
        day = snapshot(saved, held.market, f"{date:%Y-%m-%d}")
        alone = day_inputs(day_data(saved, saved.mandate, held.market, day))
        for name in ("mu", "loadings", "specific"):
            one_day, all_days = getattr(alone, name), getattr(ours_, name)
            np.testing.assert_allclose(one_day, all_days, rtol=1e-10, atol=1e-15)
    assert silent > 0


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "huber", "ic", "spo_plus"])
def test_a_loss_that_does_not_see_the_risk_is_refused(loss):
    settings = {**MODEL, "loss": {"name": loss}, "risk_head": {}}
    with pytest.raises(ConfigError, match=rf"model\.risk_head: the loss '{loss}' has no gradient"):
        PortfolioModel(**settings)
    kappa = {**settings, "risk_head": None, "learn_kappa": True}
    if loss == "spo_plus":
        PortfolioModel(**kappa)
    else:
        with pytest.raises(ConfigError, match=r"model\.learn_kappa: .*squared_regret.*pretrain"):
            PortfolioModel(**kappa)


def test_a_two_stage_loss_may_come_first(dataset, market):
    connect(market.root)
    settings = {
        **MODEL,
        "loss": {"name": "regret"},
        "risk_head": {},
        "pretrain": {"loss": {"name": "mse"}},
    }
    model = PortfolioModel(**settings)
    model.fit(dataset)
    assert model.network.specific.weight.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"risk_head": {"limt": 1.0}}, "unknown key 'limt'. Did you mean 'limit'"),
        ({"risk_head": {"limit": -1.0}}, "risk_head.limit: must be > 0"),
        ({"risk_head": {"specific": False, "factors": False}}, "leave the block out"),
        ({"risk_head": True}, "risk_head: expected a mapping"),
        ({"learn_kappa": "yes"}, "learn_kappa: expected true or false"),
        ({"learn_kapa": True}, "unknown key 'learn_kapa'. Did you mean 'learn_kappa'"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        PortfolioModel(**{**MODEL, **change})


@pytest.mark.parametrize("decision", ["softmax", "dc3", "unrolled", "minimum_variance"])
def test_another_decision_has_nothing_to_learn(market, decision):
    data = build(market.root, handler=FEW, problem={**LEARNING, "decision": {"name": decision}})
    with pytest.raises(ConfigError, match=rf"model\.risk_head: .* '{decision}' does not solve"):
        PortfolioModel(**LEARNED).fit(data)


def test_kappa_needs_a_normalisation(market):
    data = build(market.root, handler=FEW)
    with pytest.raises(ConfigError, match=r"learn_kappa: .*problem\.normalisation to standardise"):
        PortfolioModel(**LEARNED).fit(data)
    check_learned(True, False, data.problem_config)


def test_qrun_refuses_it_before_any_work(market, folder):
    bad = ours({**LEARNED, "risk_head": None})
    record = {"class": "BacktestRecord", "module_path": f"{OURS}.records"}
    with pytest.raises(ConfigError, match="learn_kappa: needs scores of a fixed spread"):
        run_task(market, folder / "refused.db", "refused", bad, record)


def test_a_record_without_the_model_is_refused(one, market, folder):
    connect(market.root, tracking=folder / "without.db")
    with R.start(experiment_name="without"):
        recorder = R.get_recorder()
        R.save_objects(task={"model": ours(LEARNED)})
        SignalRecord(one.model, one.data, recorder).generate()
        with pytest.raises(ConfigError, match="give the record `model: <MODEL>`"):
            BacktestRecord(recorder, one.data).generate()
        R.save_objects(task={"model": ours({**LEARNED, "risk_head": None, "learn_kappa": False})})
        BacktestRecord(recorder, one.data).generate()
    with pytest.raises(ConfigError, match="fit it before"):
        PortfolioModel(**LEARNED).learned_risk(one.data)
