"""The rolling risk model: point in time, floors, short histories, refusals, real data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bpqp_portfolio.config import from_mapping
from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.risk import (
    RISK_MODELS,
    RiskConfig,
    build_risk_model,
    daily_returns,
    rolling_risk,
)
from bpqp_portfolio.risk.rolling import winsorise

SMALL = RiskConfig(factors=3, window=50, min_history=20)
T, N = 130, 24


@pytest.fixture
def market():
    """Returns (T, N) with gaps, a late listing and wrong prices; a changing universe."""
    rng = np.random.default_rng(0)
    returns = rng.standard_t(4, (T, 3)) @ rng.normal(0, 0.01, (3, N))
    returns += 0.01 * rng.standard_t(4, (T, N))
    returns[rng.random((T, N)) < 0.05] = np.nan
    returns[:90, 5] = np.nan  # listed on day 90
    returns[70, 3], returns[75, 4] = 4.0, -0.9
    member = np.ones((T, N), dtype=bool)
    member[:100, 7] = False
    member[60:, 8] = False
    return returns, member


def same(a, b):
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=True)
        for f in dataclasses.fields(a)
    )


def test_a_day_equals_the_direct_computation(market):
    returns, member = market
    returns[70, 3] = returns[75, 4] = 0.0  # raw, they would be a factor each, and floored
    config = dataclasses.replace(SMALL, winsorise=None)
    days = [60, 80, 129]
    panel = rolling_risk(returns, member, days, config, jobs=1)
    for i, day in enumerate(days):
        window = returns[day - 49 : day + 1, member[day]]
        enough = np.isfinite(window).sum(axis=0) >= 20
        assert np.array_equal(panel.modelled[panel.rows(i)], enough)
        window = window[:, enough]
        centred = np.nan_to_num(window - np.nanmean(window, axis=0))
        centred /= np.sqrt(np.isfinite(window).sum(axis=0) - 1)
        s = centred.T @ centred
        values, vectors = np.linalg.eigh(s)
        expected = vectors[:, -3:] * values[-3:] @ vectors[:, -3:].T
        np.fill_diagonal(expected, np.diag(s))
        assert panel.floored[i] == 0
        np.testing.assert_allclose(panel.covariance(i), expected, rtol=0, atol=1e-14)


def test_layout_of_the_panel(market):
    returns, member = market
    days = np.array([110, 50, 80])
    panel = rolling_risk(returns, member, days, SMALL, jobs=1)
    assert np.array_equal(panel.days, days)
    assert np.array_equal(np.diff(panel.offsets), member[days].sum(axis=1))
    for i, day in enumerate(days):
        assert np.array_equal(panel.names[panel.rows(i)], np.flatnonzero(member[day]))
    rows = panel.offsets[-1]
    assert panel.loadings.shape == (rows, 3) and panel.specific.shape == (rows,)
    assert np.isfinite(panel.loadings[panel.modelled]).all()
    assert (panel.specific[panel.modelled] > 0).all()
    assert np.isnan(panel.loadings[~panel.modelled]).all()
    assert np.isnan(panel.specific[~panel.modelled]).all()


def test_names_with_short_history_are_not_modelled(market):
    returns, member = market
    returns[90:, 5] = 0.01 * np.random.default_rng(1).normal(size=T - 90)
    panel = rolling_risk(returns, member, np.arange(88, 112), SMALL, jobs=1)
    modelled = panel.modelled[panel.names == 5]
    assert np.array_equal(modelled, np.arange(88, 112) >= 109)  # its 20th return


def test_first_days_use_the_shorter_window(market):
    returns, member = market
    short = rolling_risk(returns, member, [40], SMALL, jobs=1)
    long = rolling_risk(returns, member, [40], dataclasses.replace(SMALL, window=41), jobs=1)
    assert same(short, long)


def test_the_future_does_not_move_the_past(market):
    returns, member = market
    days = np.arange(40, T)
    before = rolling_risk(returns, member, days, SMALL, jobs=1)
    rng = np.random.default_rng(9)
    for cut in (41, 77, 100):
        changed, universe = returns.copy(), member.copy()
        changed[cut:] = rng.normal(size=changed[cut:].shape)
        universe[cut:] = rng.random(universe[cut:].shape) < 0.8
        after = rolling_risk(changed, universe, days, SMALL, jobs=1)
        past = slice(0, before.offsets[cut - 40])
        for field in ("names", "loadings", "specific", "modelled"):
            a, b = getattr(before, field)[past], getattr(after, field)[past]
            assert np.array_equal(a, b, equal_nan=True), field
        assert np.array_equal(before.floored[: cut - 40], after.floored[: cut - 40])
        today = before.rows(cut - 40)
        assert not np.array_equal(
            before.specific[today], after.specific[after.rows(cut - 40)], equal_nan=True
        ), "the day itself must enter its own window"


def test_only_the_window_matters(market):
    returns, member = market
    changed = returns.copy()
    changed[:50] = np.random.default_rng(2).normal(size=(50, N))
    a, b = (rolling_risk(r, member, [99], SMALL, jobs=1) for r in (returns, changed))
    assert same(a, b)
    c = rolling_risk(changed, member, [98], SMALL, jobs=1)
    assert not same(c, rolling_risk(returns, member, [98], SMALL, jobs=1))


def test_jobs_and_other_days_change_nothing(market):
    returns, member = market
    days = np.arange(30, T)
    one = rolling_risk(returns, member, days, SMALL, jobs=1)
    assert same(one, rolling_risk(returns, member, days, SMALL, jobs=2))
    single = rolling_risk(returns, member, [77], SMALL, jobs=1)
    assert np.array_equal(single.loadings, one.loadings[one.rows(47)], equal_nan=True)


def test_no_days_give_an_empty_panel(market):
    panel = rolling_risk(*market, [], SMALL, jobs=1)
    assert panel.loadings.shape == (0, 3) and panel.offsets.tolist() == [0]


def test_signs_are_fixed(market):
    panel = rolling_risk(*market, np.arange(60, T), SMALL, jobs=1)
    for i in range(len(panel.days)):
        loadings = panel.loadings[panel.rows(i)][panel.modelled[panel.rows(i)]]
        assert (loadings.max(axis=0) == np.abs(loadings).max(axis=0)).all()


def test_specific_variance_is_floored_and_counted(market):
    returns, member = market
    returns[:, 2] = 0.0  # constant: no variance at all
    panel = rolling_risk(returns, member, [100], SMALL, jobs=1)
    median = np.median(panel.specific[panel.modelled])
    assert panel.floored.tolist() == [1]
    assert panel.specific[panel.names == 2][0] == pytest.approx(0.01 * median, rel=1e-12)
    higher = rolling_risk(returns, member, [100], dataclasses.replace(SMALL, floor=1.0), jobs=1)
    assert np.nanmin(higher.specific) == median
    assert higher.floored[0] == panel.modelled.sum() // 2


def test_without_specific_variance_the_day_is_refused():
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 12))
    member = np.ones_like(returns, dtype=bool)
    config = dataclasses.replace(SMALL, winsorise=None)
    with pytest.raises(DataError, match="day 59: the factors explain all"):
        rolling_risk(returns, member, [59], config, jobs=1)


def test_winsorising_clips_to_tukeys_fences():
    rng = np.random.default_rng(0)
    window = 0.02 * rng.normal(size=(6, 200))
    window[rng.random(window.shape) < 0.2] = np.nan
    window[0, 0], window[1, 1] = 3.0, -0.8
    window[5] = np.where(np.isnan(window[5]), np.nan, 0.0)
    window[5, 3] = 0.9
    before = window.copy()
    clipped = winsorise(window, 3.0)
    assert np.array_equal(window, before, equal_nan=True)
    q1, q3 = np.nanquantile(window, [0.25, 0.75], axis=1)
    iqr = q3 - q1
    iqr[5] = np.median(iqr[:5])
    expected = np.clip(window, (q1 - 3 * iqr)[:, None], (q3 + 3 * iqr)[:, None])
    np.testing.assert_allclose(clipped, expected, rtol=1e-12)
    assert clipped[0, 0] < 0.12 and clipped[1, 1] > -0.12
    assert (clipped != window)[~np.isnan(window)].sum() == 3
    constant = np.zeros((2, 9))
    assert np.array_equal(winsorise(constant, 3.0), constant)


def test_winsorising_tames_a_wrong_price(market):
    raw = rolling_risk(*market, [100], dataclasses.replace(SMALL, winsorise=None), jobs=1)
    tame = rolling_risk(*market, [100], SMALL, jobs=1)
    assert raw.covariance(0)[3, 3] > 0.1 > 1e-2 > tame.covariance(0)[3, 3]


@pytest.mark.parametrize("name", RISK_MODELS)
def test_every_model_rolls(market, name):
    returns, member = market
    config = dataclasses.replace(SMALL, model=name)
    panel = rolling_risk(returns, member, [60, 129], config, jobs=1)
    assert (panel.specific[panel.modelled] > 0).all()
    for i in range(2):
        assert np.linalg.eigvalsh(panel.covariance(i))[0] > 0
    window = winsorise(returns[80:130][:, panel.names[panel.rows(1)]].T, 3.0)
    window = window[panel.modelled[panel.rows(1)]]
    loadings, specific = build_risk_model(name, 3).estimate(window.T)
    expected = loadings @ loadings.T + np.diag(specific)
    np.testing.assert_allclose(panel.covariance(1), expected, atol=1e-9 * expected.max())


def test_too_few_names_name_the_day_and_the_remedy(market):
    returns, member = market
    member[90, 3:] = False
    dates = np.datetime64("2020-01-01") + np.arange(T)
    message = r"day 2020-03-31 \(index 90\): 3 of 3 names .* 3 factors .*min_history"
    with pytest.raises(DataError, match=message):
        rolling_risk(returns, member, np.arange(60, T), SMALL, jobs=1, labels=dates)
    with pytest.raises(DataError, match="day 10: 0 of 23 names"):
        rolling_risk(returns, member, [10], SMALL, jobs=1)


def test_an_error_in_a_worker_names_its_day(market):
    returns, member = market
    returns[:, 2] = 0.0
    config = dataclasses.replace(SMALL, model="qlib_shrink")
    with pytest.raises(DataError, match=r"day 100: .*not finite"):
        rolling_risk(returns, member, [100, 101], config, jobs=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"member": np.ones((T, N))}, "member boolean"),
        ({"member": np.ones((T, N + 1), dtype=bool)}, r"\(130, 25\)"),
        ({"days": [T]}, "day 130 is outside the 130 days"),
        ({"days": [-1]}, "day -1 is outside"),
        ({"days": [60.5]}, "indices"),
        ({"jobs": 0}, "jobs: must be >= 1"),
    ],
)
def test_bad_input_is_refused(market, change, message):
    arguments = dict(zip(("returns", "member"), market, strict=True)) | {"days": [60], "jobs": 1}
    with pytest.raises((DataError, ConfigError), match=message):
        rolling_risk(**(arguments | change), config=SMALL)


def test_infinite_returns_are_refused(market):
    returns, member = market
    returns[33, 6] = np.inf
    with pytest.raises(DataError, match="day 33, name 6 is infinite"):
        rolling_risk(returns, member, [60], SMALL, jobs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "pcaa"}, r"risk\.model: unknown risk model 'pcaa'\. Did you mean 'pca'"),
        ({"factor": 3}, r"risk: unknown key 'factor'\. Did you mean 'factors'"),
        ({"factors": 0}, r"risk\.factors: must be >= 1"),
        ({"factors": 2.5}, r"risk\.factors: expected a whole number"),
        ({"window": 30}, r"risk\.min_history: .*window 30"),
        ({"factors": 60}, r"risk\.min_history: .*factors 60"),
        ({"winsorise": -1}, r"risk\.winsorise: must be >= 0"),
        ({"winsorise": True}, r"risk\.winsorise: expected a number"),
        ({"floor": 0}, r"risk\.floor: must be > 0"),
        ({"floor": float("nan")}, r"risk\.floor: expected a number, finite"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(RiskConfig, settings, "risk")


def test_settings_from_a_mapping():
    assert from_mapping(RiskConfig, None, "risk") == RiskConfig()
    config = from_mapping(RiskConfig, {"factors": 5.0, "winsorise": None}, "risk")
    assert config.factors == 5 and isinstance(config.factors, int)


@pytest.mark.real_data
def test_real_days(real_provider):
    provider = Provider(real_provider)
    names = sorted(provider.spells("csi300").instrument.unique())
    returns = daily_returns(provider.frame("close", names).to_numpy())
    member = provider.membership("csi300", provider.calendar, names)
    days = np.arange(239, len(returns), 20)
    panel = rolling_risk(returns, member, days, jobs=1, labels=provider.calendar)
    assert panel.modelled.mean() > 0.98
    assert np.isfinite(panel.loadings[panel.modelled]).all()
    assert (panel.specific[panel.modelled] > 0).all()
    volatility = np.sqrt(
        np.square(panel.loadings).sum(axis=1)[panel.modelled] + panel.specific[panel.modelled]
    )
    assert volatility.min() > 0.002 and volatility.max() < 0.1  # a day
    assert 0.015 < np.median(volatility) < 0.035
    assert panel.floored.mean() < 1
