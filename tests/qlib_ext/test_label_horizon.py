"""Labels of several days: their value, what makes them unknown, and where they must end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qlib_markets import FEW, SEGMENTS, build
from test_no_look_ahead import after

from bpqp_portfolio.backtest.appraisal import appraise, decide, score_figures
from bpqp_portfolio.data.quality.exclusions import Exclusion, Exclusions, write_exclusions
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.portfolio.scores import mean_spread

HORIZON = 5


def handler(horizon=HORIZON):
    return {"kwargs": {**FEW["kwargs"], "horizon": horizon}}


def tables(data):
    """Training and raw labels as frames of days by names."""
    index, _, learn, raw = data.handler.arrays()
    return [pd.Series(v, index=index).unstack() for v in (learn, raw)]


@pytest.fixture
def long(market):
    return build(market.root, handler=handler())


def test_the_training_label_is_the_return_of_h_days_standardised(market, long):
    learn, raw = tables(long)
    close = pd.DataFrame(
        {n: market.series(n, "close").astype(float) for n in learn}, index=market.calendar
    )
    held = close.shift(-1 - HORIZON) / close.shift(-1) - 1
    day = learn.index[40]
    known = learn.loc[day].notna()
    assert known.sum() >= 8
    values = held.loc[day, known[known].index]
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(learn.loc[day, known], expected, rtol=0, atol=1e-5)
    one = (close.shift(-2) / close.shift(-1) - 1).loc[day, raw.columns]
    seen = raw.loc[day].notna()
    np.testing.assert_allclose(raw.loc[day, seen], one[seen], rtol=0, atol=1e-6)


def test_decisions_earn_the_return_of_one_day_whatever_the_label(market, long):
    panel, short = long.panel(), build(market.root, handler=handler(1)).panel()
    assert (panel.returns == short.returns)[~panel.returns.isnan()].all()
    assert (panel.returns.isnan() == short.returns.isnan()).all()
    both = panel.label.isfinite() & short.label.isfinite()
    assert (panel.label[both] != short.label[both]).float().mean() > 0.99


def test_figures_of_a_decision_need_the_return_of_one_day_alone(market):
    """At the end of the calendar, whatever the label's horizon."""
    segments = {**SEGMENTS, "test": [SEGMENTS["test"][0], "2016-04-30"]}
    data = build(market.root, handler=handler(), segments=segments)
    index = data.panel().index(data.days("test"))
    scores = pd.Series(np.linspace(-1, 1, len(index)), index=index)
    signal = score_figures(data, scores).join(appraise(data, decide(data, scores)[0]))
    for name in ("regret", "decision_value", "ic", "rank_ic", "mse"):
        assert signal[name].isna().tolist() == [False] * (len(signal) - 1) + [True], name
    batch = data.panel().batch(data.days("test")[-HORIZON:], features=False)
    assert not batch.known.any() and batch.earned[:-1].any(-1).all()
    short = build(market.root, handler=handler(1), segments=segments)
    # The days of train are those whose label is known, fewer for a longer one.
    days = data.days("train")
    one = short.panel().batch(days, features=False)
    assert data.problem.scale == pytest.approx(float(mean_spread(one.returns, one.earned)))


def test_an_excluded_move_makes_every_label_that_spans_it_unknown(market, long, tmp_path):
    learn, raw = tables(long)
    at, name = 60, learn.columns[2]
    days = long.market_data.dates
    position = days.get_loc(learn.index[at])
    assert learn[name].iloc[at - 8 : at + 1].notna().all()
    write_exclusions(
        tmp_path / "excluded.csv", Exclusions((Exclusion(name, days[position], "test"),))
    )
    told = build(market.root, handler=handler(), exclusions=str(tmp_path / "excluded.csv"))
    learn_told, raw_told = tables(told)
    # The label of day t has the moves of t+2 to t+1+h; the name is not held on a day it is doubted.
    lost = [int(i) - at for i in np.flatnonzero(learn_told[name].isna() & learn[name].notna())]
    assert set(range(-1 - HORIZON, -1)) <= set(lost) <= set(range(-1 - HORIZON, -1)) | {0}
    gone = [int(i) - at for i in np.flatnonzero(raw_told[name].isna() & raw[name].notna())]
    assert -2 in gone and set(gone) <= {-2, 0}


@pytest.mark.parametrize(("segment", "following"), [("train", "valid"), ("valid", "test")])
def test_no_label_of_a_segment_sees_a_price_of_the_next(market, tmp_path, long, segment, following):
    """Every price from the first day of the next segment on is changed; and one day more in the
    segment would have seen it."""
    days = long.market_data.dates
    begins = days[days >= pd.Timestamp(SEGMENTS[following][0])][0]
    last = days[days.get_loc(begins) - 1]
    changed = build(after(market, tmp_path / "changed", last).root, handler=handler())
    panel, other = long.panel(), changed.panel()
    inside = long.days(segment)
    assert days[days.get_loc(begins) - 2 - HORIZON] == panel.dates[int(inside[-1])]
    rows = panel.rows(inside)
    assert panel.label[rows].numpy().tobytes() == other.label[rows].numpy().tobytes()
    beyond = panel.rows(inside[-1:] + 1)
    seen = panel.label[beyond].isfinite()
    assert (panel.label[beyond][seen] != other.label[beyond][seen]).any()


@pytest.mark.parametrize("horizon", [0, -1, 2.5, "5"])
def test_a_horizon_is_a_number_of_days(market, horizon):
    with pytest.raises(ConfigError, match=r"handler\.horizon"):
        build(market.root, handler=handler(horizon))


def test_a_handler_of_one_day_is_the_default(market):
    plain, named = build(market.root, handler=FEW), build(market.root, handler=handler(1))
    assert plain.handler.get_label_config() == named.handler.get_label_config()
    assert plain.handler.get_label_config() == (["Ref($close, -2)/Ref($close, -1) - 1"], ["LABEL0"])
