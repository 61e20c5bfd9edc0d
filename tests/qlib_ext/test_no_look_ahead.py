"""Nothing up to day t moves when every price after day t does; and the check can fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from qlib_markets import FEW, MODEL, build, rewrite

from bpqp_portfolio.backtest.appraisal import decide
from bpqp_portfolio.qlib_ext import dataset as dataset_module
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.handlers import CachedAlpha158
from bpqp_portfolio.qlib_ext.model import PortfolioModel

SEGMENTS = ("valid", "test")


@dataclass(frozen=True)
class Study:
    """A dataset, a model fitted on it, and what it says and holds over valid and test."""

    data: PortfolioDataset
    model: PortfolioModel
    scores: pd.Series
    weights: pd.Series


def study(root, **changes) -> Study:
    data = build(root, **changes)
    model = PortfolioModel(**MODEL)
    model.fit(data)
    scores = [model.predict(data, segment) for segment in SEGMENTS]
    held = [decide(data, s, segment)[0] for s, segment in zip(scores, SEGMENTS, strict=True)]
    return Study(data, model, pd.concat(scores), pd.concat(held))


def after(provider, to, last):
    """A copy whose prices and volumes are all different after the day ``last``."""

    def change(name, frame):
        rng = np.random.default_rng(list(name.encode()))
        later = frame.index > last
        price = np.exp(0.2 * rng.standard_normal(later.sum()))
        for field in ("open", "high", "low", "close"):
            frame.loc[later, field] *= price
        frame.loc[later, "volume"] *= np.exp(rng.standard_normal(later.sum()))
        frame.loc[later, "change"] = (frame["close"] / frame["close"].ffill().shift() - 1)[later]
        return frame

    return rewrite(provider, to, change)


def assert_data_unmoved(a: PortfolioDataset, b: PortfolioDataset, last: pd.Timestamp) -> None:
    """Features and risk up to ``last`` are the same bit for bit, and so are the labels as far as
    they are known; the labels of the last two days, which lie wholly after it, are not."""
    (index, *left), (other, *right) = a.handler.arrays(), b.handler.arrays()
    dates = index.get_level_values("datetime")
    past = dates <= last
    assert index.equals(other)
    assert left[0][past].tobytes() == right[0][past].tobytes(), "features"
    assert (left[0][~past] != right[0][~past]).any(), "the change does not reach the features"
    days = a.market_data.dates
    known = dates <= days[days.get_loc(last) - 2]
    for ours, theirs in zip(left[1:], right[1:], strict=True):
        assert ours[known].tobytes() == theirs[known].tobytes(), "known labels"
        late = past & ~known & np.isfinite(ours)
        assert late.any() and (ours[late] != theirs[late]).all(), "labels to come"

    panel, changed = a.panel(), b.panel()
    stop = int(np.searchsorted(panel.dates, np.datetime64(last), side="right"))
    rows = slice(0, int(panel.offsets[stop]))
    for name in ("name_index", "features", "loadings", "specific"):
        ours, theirs = getattr(panel, name)[rows], getattr(changed, name)[rows]
        assert torch.equal(ours, theirs), name
    assert a.problem.scale == b.problem.scale


def assert_decisions_unmoved(a: Study, b: Study, last: pd.Timestamp) -> None:
    """Network, learning curves, and scores and weights up to ``last`` are the same."""
    curves = [s.model.history.drop(columns=["seconds", "train_seconds"]) for s in (a, b)]
    pd.testing.assert_frame_equal(*curves, check_exact=True, obj="learning curves")
    theirs = b.model.network.state_dict()
    for name, tensor in a.model.network.state_dict().items():
        assert torch.equal(tensor, theirs[name]), f"network {name}"
    for ours, other in ((a.scores, b.scores), (a.weights, b.weights)):
        until = ours.index.get_level_values("datetime") <= last
        other_until = other.index.get_level_values("datetime") <= last
        pd.testing.assert_series_equal(ours[until], other[other_until], check_exact=True)
        assert not ours[~until].equals(other[~other_until])


@pytest.fixture(scope="module")
def base(market, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPQP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return study(market.root)


@pytest.mark.parametrize("last", ["2015-10-30", "2016-01-13"])
def test_the_past_does_not_move(base, market, tmp_path, last):
    """At the day before the test begins, where the network is done, and within the test."""
    last = pd.Timestamp(last)
    changed = study(after(market, tmp_path / "changed", last).root)
    assert_data_unmoved(base.data, changed.data, last)
    assert_decisions_unmoved(base, changed, last)


class EarlyLabel(CachedAlpha158):
    """The return of tomorrow, which begins before the trade."""

    def get_label_config(self):
        return ["Ref($close, -1) / $close - 1"], ["LABEL0"]


class LateLabel(CachedAlpha158):
    """The return of a day later than the one the trade earns."""

    def get_label_config(self):
        return ["Ref($close, -3) / Ref($close, -2) - 1"], ["LABEL0"]


class PeekingFeature(CachedAlpha158):
    """One feature sees tomorrow's close."""

    def get_feature_config(self):
        expressions, names = super().get_feature_config()
        return [*expressions, "Ref($close, -1) / $close"], [*names, "PEEK"]


def both(market, tmp_path, **settings):
    """The dataset on the market, and on one changed after the day before the test begins."""
    last = pd.Timestamp("2015-10-30")
    changed = after(market, tmp_path / "changed", last)
    return build(market.root, **settings), build(changed.root, **settings), last


@pytest.mark.parametrize(
    ("handler", "what"),
    [(EarlyLabel, "labels to come"), (LateLabel, "known labels"), (PeekingFeature, "features")],
)
def test_the_check_notices_a_handler_that_looks_ahead(market, tmp_path, handler, what):
    with pytest.raises(AssertionError, match=what):
        assert_data_unmoved(*both(market, tmp_path, handler={**FEW, "class": handler}))


def test_the_check_notices_a_risk_model_that_looks_ahead(market, tmp_path, monkeypatch):
    honest = dataset_module.rolling_risk

    def peeking(returns, *args, **kwargs):
        return honest(np.roll(returns, -1, axis=0), *args, **kwargs)

    monkeypatch.setattr(dataset_module, "rolling_risk", peeking)
    with pytest.raises(AssertionError, match="loadings"):
        assert_data_unmoved(*both(market, tmp_path, handler=FEW))


def test_the_check_notices_a_label_of_valid_that_reaches_into_the_test(
    market, tmp_path, monkeypatch
):
    honest = dataset_module.check_segments

    def unpurged(segments, calendar, *horizon):
        spans = honest(segments, calendar, *horizon)
        return {**spans, "valid": tuple(pd.Timestamp(d) for d in segments["valid"])}

    monkeypatch.setattr(dataset_module, "check_segments", unpurged)
    last = pd.Timestamp("2015-10-30")
    changed = after(market, tmp_path / "changed", last)
    studies = study(market.root, handler=FEW), study(changed.root, handler=FEW)
    assert_data_unmoved(studies[0].data, studies[1].data, last)
    with pytest.raises(AssertionError, match="learning curves"):
        assert_decisions_unmoved(*studies, last)
