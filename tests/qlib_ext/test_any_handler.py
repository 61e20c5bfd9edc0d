"""Handlers and models of Qlib's and the user's own in the place of the package's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import StaticDataLoader
from qlib_markets import FEW, MODEL, build, run_task

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.live.target_weights import target_weights
from bpqp_portfolio.qlib_ext.kept_tables import kept_targets

QLIB = "qlib.contrib.data.handler"
OURS = "bpqp_portfolio.qlib_ext"
ALPHA360 = {"class": "Alpha360", "module_path": QLIB}
ALPHA158 = {"class": "Alpha158", "module_path": QLIB}
GROUP = {"fields_group": "feature"}
LIGHTGBM = {
    "class": "LGBModel",
    "module_path": "qlib.contrib.model.gbdt",
    "kwargs": {"loss": "mse", "num_boost_round": 5, "num_leaves": 4, "verbosity": -1},
}
BACKTEST = {
    "class": "BacktestRecord",
    "module_path": f"{OURS}.records",
}


class PlainHandler(DataHandlerLP):
    """Two features and a label of a table, for the names and days that are asked for."""

    def __init__(self, instruments, start_time, end_time, table, groups=True):
        if not groups:
            table = table.droplevel(0, axis=1)
        loader = StaticDataLoader(table)
        super().__init__(None, start_time, end_time, data_loader=loader)


class LongHandler(PlainHandler):
    """A handler that hands on all that it is given."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


def table(market, seed: int = 0) -> pd.DataFrame:
    names = sorted(set(market.spells("sim")["instrument"]))
    index = pd.MultiIndex.from_product([market.calendar, names], names=["datetime", "instrument"])
    columns = pd.MultiIndex.from_tuples([("feature", "A"), ("feature", "B"), ("label", "L")])
    values = np.random.default_rng(seed).standard_normal((len(index), 3))
    return pd.DataFrame(values, index, columns)


def own(name: str, **kwargs: object) -> dict[str, object]:
    return {"class": name, "module_path": __name__, "kwargs": kwargs}


def test_our_network_learns_from_qlibs_alpha360_and_decides(market, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = {"class": "PortfolioModel", "module_path": f"{OURS}.model", "kwargs": MODEL}
    # Qlib's default has ProcessInf too, which takes minutes.
    processors = [{"class": "RobustZScoreNorm", "kwargs": GROUP}, {"class": "Fillna"}]
    handler = {**ALPHA360, "kwargs": {"infer_processors": processors}}
    run = run_task(market, tmp_path / "mlflow.db", "a360", model, BACKTEST, handler=handler)
    weights = kept_targets(run)
    sums = weights.groupby(level="datetime").sum()
    assert len(sums) > 80 and np.allclose(sums, 1.0)
    assert weights.groupby(level="datetime").nunique().max() > 1
    assert "bpqp.regret" in run.list_metrics()
    with pytest.raises(DataError, match="features of its handler Alpha360 cannot be computed for"):
        target_weights(run.id, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_qlibs_lightgbm_on_qlibs_alpha158_is_decided_on(market, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_task(market, tmp_path / "mlflow.db", "a158", LIGHTGBM, BACKTEST, handler=ALPHA158)
    scores, weights = run.load_object("pred.pkl").iloc[:, 0], kept_targets(run)
    assert scores.nunique() > 20 and scores.index.get_level_values(0).nunique() > 80
    day = weights.index[-1][0]
    held = weights.xs(day)[weights.xs(day) > 1e-6].index
    assert scores.xs(day)[held].mean() > scores.xs(day).mean()


def test_labels_and_rows_are_those_of_our_handler(market):
    """Qlib's Alpha158 and ours: the same rows and raw labels, and the same ends of segments."""
    few = build(market.root, handler=FEW, exclusions="check")
    both = build(market.root, handler=ALPHA158, exclusions="check")
    index, _, _, raw = few.features.arrays()
    index2, features2, _, raw2 = both.features.arrays()
    assert index.equals(index2.set_names(index.names))
    known = np.isfinite(raw)
    assert (known == np.isfinite(raw2)).all() and np.allclose(raw[known], raw2[known], atol=1e-6)
    assert features2.shape[1] == 158 and both.features.horizon == 1
    assert both.span_names == few.span_names


def test_a_longer_label_shortens_train_and_valid(market):
    label = [["Ref($close, -6)/Ref($close, -1) - 1"], ["L"]]
    ten = build(market.root, handler={**ALPHA158, "kwargs": {"label": label}})
    one = build(market.root, handler=ALPHA158)
    assert ten.features.horizon == 5
    days = market.calendar
    for name in ("train", "valid"):
        ends = [days.get_loc(pd.Timestamp(d.span_names[name][1])) for d in (ten, one)]
        assert ends[1] - ends[0] == 4


@pytest.mark.parametrize("name", ["PlainHandler", "LongHandler"])
def test_a_handler_of_the_users_own_fills_the_panel(market, name):
    frame = table(market)
    data = build(market.root, handler=own(name, table=frame), label_horizon=1)
    index, features, learn, _ = data.features.arrays()
    assert (features == frame.loc[index, "feature"].to_numpy(np.float32)).all()
    known = np.isfinite(learn)
    assert (learn[known] == frame.loc[index, ("label", "L")].to_numpy()[known]).all()
    panel = data.panel()
    assert panel.features.shape[1] == 2 and len(panel.dates) > 200
    other = build(market.root, handler=own(name, table=table(market, 1)), label_horizon=1)
    assert other.features.key != data.features.key


@pytest.mark.parametrize(
    ("handler", "more", "message"),
    [
        ({"class": "Alpha306", "module_path": QLIB}, {}, "no handler 'Alpha306'"),
        ({**ALPHA360, "kwargs": {"windws": 3}}, {}, "Alpha360: .*'windws'"),
        ({**ALPHA360, "kwargs": {"instruments": "all"}}, {}, "'instruments' follows from"),
        (
            {"class": "LGBModel", "module_path": "qlib.contrib.model.gbdt"},
            {},
            "is no DataHandlerLP",
        ),
        (None, {"label_horizon": 2}, "CachedAlpha158 has the days of its label as `horizon`"),
    ],
)
def test_what_is_wrong_with_a_handler_is_named(market, handler, more, message):
    with pytest.raises(ConfigError, match=message):
        build(market.root, handler=handler, **more)


def test_a_handler_that_does_not_say_what_is_needed_is_named(market):
    with pytest.raises(ConfigError, match="label_horizon: cannot tell how many days ahead"):
        build(market.root, handler=own("PlainHandler", table=table(market)))
    with pytest.raises(ConfigError, match="PlainHandler has no column group"):
        given = own("PlainHandler", table=table(market), groups=False)
        build(market.root, handler=given, label_horizon=1).panel()
    with pytest.raises(ConfigError, match="PlainHandler: missing a required argument: 'table'"):
        build(market.root, handler=own("PlainHandler"), label_horizon=1)


def test_a_network_on_features_with_gaps_says_what_to_do(market):
    from bpqp_portfolio.qlib_ext.model import PortfolioModel

    data = build(market.root, handler=ALPHA158)
    with pytest.raises(DataError, match=r"its features are not: .*Fillna"):
        PortfolioModel(**MODEL).fit(data)
