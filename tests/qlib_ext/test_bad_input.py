"""Bad input is refused before any feature is computed, and the message says the way out."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
from qlib_markets import MODEL, SETTINGS, build, connect, lists, mandate, rewrite

from bpqp_portfolio.data.provider.provider import write_universe
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.errors import ConfigError, DataError, ProviderError
from bpqp_portfolio.portfolio.problem import ProblemConfig
from bpqp_portfolio.qlib_ext import dataset as dataset_module
from bpqp_portfolio.qlib_ext.baselines import ConstantScores, RandomScores
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.qlib_ext.preflight import check_records, check_task
from bpqp_portfolio.qlib_ext.records import BacktestRecord, ReportRecord
from bpqp_portfolio.qlib_ext.topk_dropout import TopkDropoutRecord

OURS = "bpqp_portfolio.qlib_ext.records"


@pytest.fixture(autouse=True)
def no_features(monkeypatch):
    """Whoever begins to compute features fails."""

    def begin(*_):
        raise AssertionError("features were computed")

    monkeypatch.setattr(dataset_module, "build_handler", begin)


def test_good_settings_pass_the_checks(market):
    """So that the refusals below are not for something else."""
    with pytest.raises(AssertionError, match="features were computed"):
        build(market.root)


# Data ------------------------------------------------------------------------------------------


def test_no_provider_at_the_address(tmp_path):
    with pytest.raises(ProviderError) as caught:
        build(tmp_path / "nothing")
    message = str(caught.value)
    assert f"no Qlib provider at {tmp_path / 'nothing'}" in message
    assert "`bpqp data csi300`" in message and "`bpqp data simulate" in message
    assert "BPQP_PROVIDER_URI" in message


def test_an_unknown_universe_and_one_without_members(market, tmp_path):
    with pytest.raises(ProviderError, match=r"no universe 'csi300' in .*; it has: all, sim"):
        build(market.root, market="csi300")
    provider = rewrite(market, tmp_path / "market")
    write_universe(provider.root, "empty", provider.spells("all").iloc[:0])
    with pytest.raises(ProviderError, match=r"universe 'empty' .* has no members"):
        build(provider.root, market="empty")


def test_a_universe_whose_members_all_left_before_the_study(market, tmp_path):
    early = market.spells("all").assign(end=pd.Timestamp("2015-02-02"))
    provider = rewrite(market, tmp_path / "market", universes={**lists(market), "early": early})
    with pytest.raises(DataError, match=r"no name can be invested in on 2015-03-02 \(272 such"):
        build(provider.root, market="early")


def test_an_unknown_benchmark(market):
    with pytest.raises(ConfigError, match=r"benchmark: no prices of 'SH000300' in .*market"):
        build(market.root, benchmark="SH000300")


def test_a_day_without_a_tradable_name(market, tmp_path):
    dead = market.calendar[200]

    def change(name, frame):
        frame.loc[dead] = np.nan
        return frame

    provider = rewrite(market, tmp_path / "market", change)
    with pytest.raises(DataError, match=rf"on {dead:%Y-%m-%d} \(1 such days\).*bpqp data check"):
        build(provider.root)


def test_segments_are_checked_against_the_calendar(market):
    late = {**SETTINGS["segments"], "test": ["2019-01-01", "2019-06-30"]}
    with pytest.raises(ConfigError, match=r"segments\.test: .* outside the calendar"):
        build(market.root, segments=late)


@pytest.mark.parametrize(("history", "enough"), [(42, True), (43, False)])
def test_a_train_segment_that_begins_too_early_for_the_risk_model(market, history, enough):
    """The first training day is the 43rd of the data, so it has 42 returns up to it."""
    settings = {"risk": {"factors": 2, "window": 60, "min_history": history}}
    error = AssertionError if enough else DataError
    message = "features" if enough else r"needs 43 returns .* begin 42 days before 2015-03-02"
    with pytest.raises(error, match=message):
        build(market.root, **settings)


def test_fewer_names_than_factors(market):
    settings = {"risk": {"factors": 12, "window": 60, "min_history": 30}}
    with pytest.raises(DataError, match=r"(\d+) of the \d+ names of .* but the risk model has 12"):
        build(market.root, **settings)


def test_the_remedy_for_a_small_max_weight_works(market):
    """On its smallest day the universe has fewer names than its list."""
    with pytest.raises(ConfigError, match=r"max_weights 0\.05 cannot reach a sum of 1") as caught:
        build(market.root, mandate=mandate(constraints={"max_weights": 0.05}))
    message = str(caught.value)
    count = int(message.split("with the ")[1].split()[0])
    assert count < 14
    least = float(message.rsplit("at least ", 1)[1].rstrip("."))
    assert 1 <= least * count < 1.01
    with pytest.raises(AssertionError, match="features were computed"):
        build(market.root, mandate=mandate(constraints={"max_weights": least}))
    with pytest.raises(AssertionError, match="features were computed"):
        build(market.root, mandate=mandate(constraints={"max_weights": 1 / count}))


def test_names_without_history_do_not_count_for_max_weight(market, tmp_path):
    """Half of the names are new, so the others have to carry the sum of 1."""

    def change(name, frame):
        if name >= "SIM0007" and name != "SIMIDX":
            frame.iloc[:150] = np.nan
        return frame

    provider = rewrite(market, tmp_path / "market", change)
    settings = {"mandate": mandate(constraints={"max_weights": 0.1})}
    with pytest.raises(ConfigError, match=r"the [456] names that have a risk model"):
        build(provider.root, **settings)


# Settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"makret": "sim"}, "dataset: unknown key 'makret'. Did you mean 'market'"),
        ({"risk": {"factor": 2}}, "risk: unknown key 'factor'. Did you mean 'factors'"),
        ({"risk": {"model": "pcaa"}}, "risk.model: unknown risk model 'pcaa'. Did you mean 'pca'"),
        ({"risk": {"factors": -1}}, "risk.factors: must be >= 1, got -1"),
        ({"risk": {"winsorise": float("nan")}}, "risk.winsorise: expected a number, finite"),
        ({"problem": {"kapa": 0.1}}, "problem: unknown key .* mean 'kappa'"),
        (
            {"mandate": mandate(constraints={"max_weights": 1.5})},
            "mandate.constraints.max_weights: must be > 0 and <= 1, got 1.5",
        ),
        ({"mandate": mandate(risk_aversion=-5.0)}, "risk_aversion: must be > 0"),
        ({"mandate": mandate(risk_aversion=float("inf"))}, "risk_aversion: .* finite"),
        ({"mandate": mandate(risk_aversion="5.0")}, "risk_aversion: expected a number, got"),
        ({"problem": [1]}, r"problem: expected a mapping, got \[1\]"),
        ({"handler": {"kwarg": {}}}, "dataset.handler: unknown key 'kwarg'. Did you mean 'kwargs'"),
        ({"handler": {"kwargs": {"fit_end_time": "2016"}}}, "'fit_end_time' follows from"),
        ({"benchmrk": "SIMIDX"}, "dataset: unknown key 'benchmrk'. Did you mean 'benchmark'"),
        ({"handler": {"kwargs": {"horizn": 2}}}, "handler: unknown key 'horizn'. .*'horizon'"),
        (
            {"handler": {"kwargs": {"infer_processors": [{"class": "Filna"}]}}},
            "handler.infer_processors.class: no infer processor 'Filna' .* mean 'Fillna'",
        ),
        (
            {
                "handler": {
                    "kwargs": {
                        "infer_processors": [{"class": "Fillna", "kwargs": {"fields_grop": "x"}}]
                    }
                }
            },
            "Fillna: unknown key 'fields_grop'. Did you mean 'fields_group'",
        ),
        ({"risk": "pac"}, "unknown risk model 'pac'. Did you mean 'pca'"),
        ({"benchmark": 300}, "benchmark: expected a code or null, got 300"),
    ],
)
def test_bad_settings_of_the_dataset(market, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(market.root, **settings)


def test_settings_that_are_missing_are_named():
    with pytest.raises(ConfigError, match=r"'benchmrk'. Did you mean 'benchmark'"):
        PortfolioDataset(benchmrk="SIMIDX")
    said = r"missing 'benchmark', 'segments', 'mandate'.*`benchmark: null`.*costs: {buy"
    with pytest.raises(ConfigError, match=said):
        PortfolioDataset(market="sim")


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: RandomScores(sed=1), "model: unknown key 'sed'. Did you mean 'seed'"),
        (lambda: ConstantScores(seed=1), "model: unknown key 'seed'. It takes no options"),
        (lambda: ReportRecord(None, None, None, nmae="x"), "'nmae'. Did you mean 'name'"),
        (lambda: BacktestRecord(None, None, acount=1), "BacktestRecord: unknown key 'acount'"),
        (lambda: TopkDropoutRecord(None, None, tpok=1), "'tpok'. .*'topk'"),
    ],
)
def test_a_slip_in_python_names_the_nearest(build_it, message):
    with pytest.raises(ConfigError, match=message):
        build_it()


def test_an_index_among_the_names_is_refused(market, tmp_path):
    spells = market.spells("sim")
    index = spells.iloc[:1].assign(instrument="SIMIDX")
    universes = {**lists(market), "sim": pd.concat([spells, index])}
    provider = rewrite(market, tmp_path / "market", universes=universes)
    with pytest.raises(
        ConfigError, match=r"SIMIDX is itself a member of .*'sim'.*--benchmark SIMIDX"
    ):
        build(provider.root)
    found = check_provider(provider.root, market="sim", benchmark="SIMIDX")
    assert found["benchmark-traded"].places == ("SIMIDX in sim",) and found.errors
    assert "benchmark-traded" not in check_provider(market.root, market="sim", benchmark="SIMIDX")


@pytest.mark.parametrize(
    ("plain", "same"),
    [
        ({"predictor": "mlp"}, {"predictor": {"name": "mlp"}}),
        ({"loss": "mse"}, {"loss": {"name": "mse"}}),
        ({"pretrain": {"loss": "mse"}}, {"pretrain": {"loss": {"name": "mse"}}}),
    ],
)
def test_a_plain_name_stands_for_itself(plain, same):
    one, two = PortfolioModel(**plain), PortfolioModel(**same)
    for part in ("predictor", "loss"):
        assert getattr(one.settings, part) == getattr(two.settings, part)
    assert one._learning() == two._learning()
    with pytest.raises(ConfigError, match=r"unknown predictor 'mpl'. Did you mean 'mlp'"):
        PortfolioModel(predictor="mpl")
    with pytest.raises(ConfigError, match=r"model.loss: expected a name or a mapping, got 3"):
        PortfolioModel(loss=3)


def test_plain_names_of_the_decision_and_of_the_risk_model():
    config = ProblemConfig(decision="equal_weight")
    assert config == ProblemConfig(decision={"name": "equal_weight"})
    segments = SETTINGS["segments"]
    settings = {"market": "m", "benchmark": None, "segments": segments, "risk": "pca"}
    PortfolioDataset.check_settings({**settings, "mandate": {"risk_aversion": 5}})


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        (None, {"los": {}}, "model: unknown key 'los'. Did you mean 'loss'"),
        ("loss", {"beat": 0.1}, "loss 'squared_regret': unknown key 'beat'. Did you mean 'beta'"),
        ("loss", {"beta": -0.1}, "beta: must be >= 0, got -0.1"),
        ("loss", {"beta": float("nan")}, "beta: expected a number, finite"),
        ("loss", {"name": "regrets"}, "unknown loss 'regrets'. Did you mean 'regret'"),
        ("trainer", {"epoch": 3}, "model.trainer: unknown key 'epoch'. Did you mean 'epochs'"),
        ("trainer", {"epochs": 0}, "model.trainer.epochs: must be >= 1, got 0"),
        ("trainer", {"learning_rate": float("inf")}, "learning_rate: expected a number, finite"),
        ("trainer", {"monitor": "valid_icc"}, "unknown monitor 'valid_icc'. Did you mean"),
        ("predictor", {"name": "mpl"}, "unknown predictor 'mpl'. Did you mean 'mlp'"),
        ("predictor", {"hiden": [4]}, "unknown key 'hiden'. Did you mean 'hidden'"),
        ("predictor", {"hidden": [0]}, "hidden"),
    ],
)
def test_bad_settings_of_the_model(part, settings, message):
    config = copy.deepcopy(MODEL)
    (config if part is None else config[part]).update(settings)
    with pytest.raises(ConfigError, match=message):
        PortfolioModel(**config)


@pytest.mark.parametrize("part", ["predictor", "loss"])
def test_a_part_without_a_name(part):
    with pytest.raises(ConfigError, match=f"model.{part}: 'name' is missing"):
        PortfolioModel(**{part: {}})


def test_a_reweighter_is_refused(dataset):
    with pytest.raises(ConfigError, match="reweighter is not supported"):
        PortfolioModel().fit(dataset, reweighter=object())


def test_a_model_is_fitted_before_it_predicts_or_is_saved(dataset, tmp_path):
    with pytest.raises(ConfigError, match="fit it before predicting"):
        PortfolioModel().predict(dataset)
    with pytest.raises(ConfigError, match="fit it before saving"):
        PortfolioModel().save(tmp_path, dataset)


# Records ---------------------------------------------------------------------------------------


def records(**changes):
    """The records of the workflows, the one named changed; None leaves it out."""
    chain = {
        "SignalRecord": {"class": "SignalRecord", "kwargs": {"model": "<MODEL>"}},
        "SigAnaRecord": {"class": "SigAnaRecord", "kwargs": {"ann_scaler": 252}},
        "BacktestRecord": {
            "class": "BacktestRecord",
            "module_path": OURS,
        },
        "ReportRecord": {"class": "ReportRecord", "module_path": OURS, "kwargs": {"name": "x"}},
    }
    for name, change in changes.items():
        chain[name] = None if change is None else {**chain[name], **change}
    kept = [record for record in chain.values() if record is not None]
    return {"model": {"class": "M"}, "dataset": {"class": "D"}, "record": kept}


def test_good_records_pass():
    check_records(records())
    check_records({"record": records()["record"][0]})
    check_records({})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"BacktestRecord": {"kwargs": {"topk": 3}}}, "unknown key 'topk'. It takes no options"),
        (
            {"ReportRecord": {"kwargs": {"nmae": "x"}}},
            "ReportRecord: .*'nmae'. Did you mean 'name'",
        ),
        ({"SigAnaRecord": {"kwargs": {"ana_long_shrot": 0}}}, "SigAnaRecord: .*'ana_long_short'"),
        (
            {"BacktestRecord": {"class": "BacktestRecrod"}},
            r"record\[2\].class: no record .* mean 'BacktestRecord'",
        ),
        (
            {"BacktestRecord": {"module_path": "bpqp_portfolio.nowhere"}},
            "module_path: 'bpqp_portfolio.nowhere' cannot be",
        ),
        ({"BacktestRecord": None}, "ReportRecord needs BacktestRecord before it"),
        (
            {"ReportRecord": {"kwarg": {"name": "x"}}},
            r"record\[3\]: unknown key 'kwarg'. .*'kwargs'",
        ),
        ({"ReportRecord": {"kwargs": None}}, "the kwargs of ReportRecord are no mapping"),
        ({"SignalRecord": None}, "SigAnaRecord needs SignalRecord before it"),
    ],
)
def test_bad_records(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_records(records(**changes))


def test_a_whole_task_is_checked_without_data(market):
    """What qrun's tracker does before anything is tracked."""
    connect(market.root)
    ours = "bpqp_portfolio.qlib_ext"
    task = {
        "model": {"class": "PortfolioModel", "module_path": f"{ours}.model", "kwargs": MODEL},
        "dataset": {
            "class": "PortfolioDataset", "module_path": f"{ours}.dataset", "kwargs": SETTINGS,
        },
        "record": records()["record"],
    }  # fmt: skip
    check_task(task)
    for part, slip, message in (
        ("model", {"predictr": "mlp"}, "model: unknown key 'predictr'. Did you mean 'predictor'"),
        ("model", {"loss": "mes"}, "unknown loss 'mes'. Did you mean 'mse'"),
        ("dataset", {"benchmrk": None}, "dataset: unknown key 'benchmrk'"),
        ("dataset", {"risk": {"factor": 2}}, "risk: unknown key 'factor'. Did you mean 'factors'"),
    ):
        changed = {**task[part], "kwargs": {**task[part]["kwargs"], **slip}}
        with pytest.raises(ConfigError, match=message):
            check_task({**task, part: changed})
    with pytest.raises(
        ConfigError, match=r"task.model.class: no model 'PortfolioModle' .*mean 'PortfolioModel'"
    ):
        check_task({**task, "model": {**task["model"], "class": "PortfolioModle"}})
    with pytest.raises(ConfigError, match=r"task: 'dataset' is missing"):
        check_task({k: v for k, v in task.items() if k != "dataset"})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"models": {}}, "task: unknown key 'models'. Did you mean 'model'"),
        ({"model": {"class": "M", "kwarg": {}}}, "task.model: unknown key 'kwarg'"),
        ({"dataset": {"class": "D", "market": "x"}}, "task.dataset: unknown key 'market'"),
        (
            {"record": [{"module_path": OURS}]},
            r"task.record\[0\].class: expected the name of a record, got null",
        ),
        ({"record": ["SignalRecord"]}, r"task.record\[0\]: expected a mapping, got 'SignalRecord'"),
    ],
)
def test_bad_tasks(task, message):
    with pytest.raises(ConfigError, match=message):
        check_records(task)


def test_a_constraint_that_no_record_would_obey():
    def dataset(**constraints):
        return {"class": "D", "kwargs": {"mandate": mandate(constraints=constraints)}}

    check_records({**records(), "dataset": dataset(max_weights=0.1)})
    more = dataset(max_weights=0.1, max_turnover=0.1, groups=0.3)
    with pytest.raises(ConfigError, match=r"BacktestRecord .* nothing of mandate: groups, max"):
        check_records({**records(), "dataset": more})
    check_records({"dataset": more})
