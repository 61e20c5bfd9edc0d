"""The simulated market: its truth is true, its timing right, its prices consistent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bpqp_portfolio.data.provider.simulate import (
    INDEX,
    TRUTH,
    Shocks,
    evolve,
    load_truth,
    planted_score,
    simulate_market,
)
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.errors import ConfigError, DataError

IC = 0.08


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    provider = simulate_market(tmp_path_factory.mktemp("sim") / "m", years=6, signal_ic=IC, seed=3)
    return provider, load_truth(provider.root)


@pytest.fixture(scope="module")
def label(market):
    """Qlib's label of each day, (T, n), NaN where a close is missing."""
    provider, truth = market
    close = provider.frame("close", truth.names).to_numpy(dtype=float)
    label = np.full_like(close, np.nan)
    label[:-2] = close[2:] / close[1:-1] - 1.0
    return label


def test_truth_lies_on_the_provider(market):
    provider, truth = market
    n, days = 100, len(provider.calendar)
    assert truth.dates.equals(provider.calendar)
    assert list(truth.names) == sorted(provider.spells("all")["instrument"])
    assert truth.mu.shape == (days, n) and truth.mu.dtype == np.float64
    assert truth.loadings.shape == (n, 5) and truth.specific.shape == (n,)
    assert np.isfinite(truth.mu).all() and (truth.specific > 0).all()


def test_label_has_slope_one_on_true_mu(market, label):
    """And only on that of its own day: a shift by one day destroys it."""
    _, truth = market

    def slope(mu):
        known = np.isfinite(label)
        y = np.where(known, label, 0.0)
        y = np.where(known, y - y.sum(1, keepdims=True) / known.sum(1, keepdims=True).clip(1), 0.0)
        x = np.where(known, mu - mu.mean(1, keepdims=True), 0.0)
        return (x * y).sum() / (x * x).sum()

    # The standard error is 1 / (IC * sqrt(T n)), about 0.03.
    assert slope(truth.mu) == pytest.approx(1.0, abs=0.1)
    assert slope(np.roll(truth.mu, 1, axis=0)) < 0.9
    assert slope(np.roll(truth.mu, -1, axis=0)) < 0.9
    assert np.nanmean(label - truth.mu) == pytest.approx(0.0, abs=1e-3)


def test_information_coefficient_is_as_asked(market, label):
    _, truth = market
    daily = [
        np.corrcoef(y[known], mu[known])[0, 1]
        for y, mu in zip(label[:-2], truth.mu, strict=False)
        if (known := np.isfinite(y)).sum() > 50
    ]
    assert np.mean(daily) == pytest.approx(IC, abs=0.012)


def test_realised_covariance_is_the_true_one(tmp_path):
    provider = simulate_market(
        tmp_path / "m", names=30, years=16, factors=3, suspended=0, churn=0, seed=5
    )
    truth = load_truth(provider.root)
    close = provider.frame("close", truth.names).to_numpy(dtype=float)
    surprise = (close[2:] / close[1:-1] - 1.0) - truth.mu[:-2]
    realised = np.cov(surprise.T)
    distance = np.linalg.norm(realised - truth.covariance) / np.linalg.norm(truth.covariance)
    assert distance < 0.08
    np.testing.assert_allclose(np.diag(realised), np.diag(truth.covariance), rtol=0.15)
    # Surprises are independent over days: nothing of the next one is known today.
    standard = surprise / np.sqrt(np.diag(truth.covariance))
    assert abs((standard[1:] * standard[:-1]).mean()) < 0.01


def shocks(days: int = 120, n: int = 12, k: int = 2) -> Shocks:
    return Shocks.draw(np.random.SeedSequence(11).spawn(6), days, n, k)


@pytest.mark.parametrize("t", [25, 60, 118])
def test_mu_is_settled_by_the_close_of_its_day(t):
    """Other shocks after t leave mu up to t bit-equal; another shock at t moves mu at t."""
    rng = np.random.default_rng(0)
    loadings, specific = 0.01 * rng.standard_normal((12, 2)), np.full(12, 4e-4)
    base = shocks()

    def changed_from(first: int) -> Shocks:
        values = {f.name: getattr(base, f.name).copy() for f in dataclasses.fields(base)}
        for value in values.values():
            value[first:] = rng.permutation(value[first:].ravel()).reshape(value[first:].shape)
        return Shocks(**values)

    before = evolve(base, loadings, specific, 0.1, 0.5)
    after = evolve(changed_from(t + 1), loadings, specific, 0.1, 0.5)
    np.testing.assert_array_equal(before.mu[: t + 1], after.mu[: t + 1])
    for price in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(
            getattr(before, price)[: t + 1], getattr(after, price)[: t + 1]
        )
    assert not np.array_equal(
        before.mu[t], evolve(changed_from(t), loadings, specific, 0.1, 0.5).mu[t]
    )


def test_mu_can_be_learned_from_published_prices_and_volumes(tmp_path):
    """It is a function of the provider's closes and volumes up to the day, as documented."""
    provider = simulate_market(
        tmp_path / "m", names=40, years=1, factors=3, suspended=0, churn=0, nonlinear=0.5
    )
    truth = load_truth(provider.root)
    close = provider.frame("close", truth.names).to_numpy(dtype=float)
    volume = provider.frame("volume", truth.names).to_numpy(dtype=float)
    scale = np.sqrt(np.diag(truth.covariance).mean())
    for t in (20, 77, len(close) - 1):
        score = planted_score(close[t - 20 : t + 1], volume[t - 20 : t + 1], scale, 0.5)
        np.testing.assert_allclose(np.corrcoef(score, truth.mu[t])[0, 1], 1.0, atol=1e-6)


def test_the_curved_share_is_what_a_linear_model_cannot_fit():
    rng = np.random.default_rng(2)
    loadings, specific = 0.004 * rng.standard_normal((60, 2)), np.full(60, 4e-4)
    draws = Shocks.draw(np.random.SeedSequence(1).spawn(6), 400, 60, 2)

    def explained(nonlinear: float) -> float:
        paths = evolve(draws, loadings, specific, 0.08, nonlinear)
        price, active = np.log(paths.close), paths.volume
        days = range(30, 400)
        x = np.concatenate([
            np.column_stack([
                price[t] - price[t - 5], price[t] - price[t - 20],
                np.log(active[t] / active[t - 4 : t + 1].mean(axis=0)), np.ones(60),
            ])
            for t in days
        ])  # fmt: skip
        y = np.concatenate([paths.mu[t] for t in days])
        residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        return 1 - residual.var() / y.var()

    assert explained(0.0) > 0.9
    assert explained(0.6) < 0.6


def test_prices_are_consistent(market):
    provider, truth = market
    names = [*truth.names, INDEX]
    o, h, l, c, v = (
        provider.frame(field, names).to_numpy()
        for field in ("open", "high", "low", "close", "volume")
    )
    traded = np.isfinite(c)
    assert (l[traded] > 0).all() and (v[traded] > 0).all()
    assert (l[traded] <= np.minimum(o, c)[traded]).all()
    assert (h[traded] >= np.maximum(o, c)[traded]).all()
    for table in (o, h, l, v):
        np.testing.assert_array_equal(np.isfinite(table), traded)
    assert (provider.frame("factor", names) == 1.0).all(axis=None)


def test_suspensions_and_change(market):
    provider, truth = market
    close = provider.frame("close", truth.names)
    halted = close.isna().to_numpy()
    assert 0.003 < halted.mean() < 0.008
    move = close.astype(float).ffill().pct_change().to_numpy()
    change = provider.frame("change", truth.names).to_numpy()
    np.testing.assert_allclose(change[1:][~halted[1:]], move[1:][~halted[1:]], atol=1e-6)
    assert np.isnan(change[halted]).all()
    assert np.isfinite(provider.frame("close", [INDEX])).all(axis=None)


def test_the_universe_changes_and_keeps_its_size(market):
    provider, truth = market
    member = provider.membership("sim", provider.calendar, truth.names)
    assert (member.sum(axis=1) == 90).all()
    changes = np.flatnonzero((member[1:] != member[:-1]).any(axis=1)) + 1
    np.testing.assert_array_equal(changes, np.arange(126, len(provider.calendar), 126))
    returns = (~member[:-1] & member[1:]).any(axis=0) & (member[:-1] & ~member[1:]).any(axis=0)
    assert returns.any()


def test_zero_means_none(tmp_path):
    provider = simulate_market(tmp_path / "m", names=8, years=1, factors=2, suspended=0, churn=0)
    names = list(load_truth(provider.root).names)
    assert provider.frame("close", names).notna().all(axis=None)
    assert provider.membership("sim", provider.calendar, names).all()


def test_index_is_the_average_of_the_members_that_trade(market):
    provider, truth = market
    member = provider.membership("sim", provider.calendar, truth.names)
    close = provider.frame("close", truth.names).to_numpy(dtype=float)
    move = close[1:] / close[:-1] - 1.0
    whole = np.isfinite(move) | ~member[1:]  # a resumed stock's jump spans several days
    day = np.flatnonzero(whole.all(axis=1))
    average = np.array([move[t][member[t + 1]].mean() for t in day])
    index = provider.series(INDEX, "change").astype(float)[1:]
    assert len(day) > 500
    np.testing.assert_allclose(index[day], average, atol=1e-6)


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_seed_determines_every_byte(tmp_path):
    settings = {"names": 10, "years": 1, "factors": 2}
    first = contents(simulate_market(tmp_path / "a", seed=7, **settings).root)
    again = contents(simulate_market(tmp_path / "b", seed=7, **settings).root)
    other = contents(simulate_market(tmp_path / "c", seed=8, **settings).root)
    assert first == again
    assert (
        first[next(k for k in first if k.name == TRUTH)]
        != (other[next(k for k in other if k.name == TRUTH)])
    )


def test_a_longer_history_begins_with_the_shorter_one(tmp_path):
    short = load_truth(simulate_market(tmp_path / "a", names=10, years=1, factors=2).root)
    long = load_truth(simulate_market(tmp_path / "b", names=10, years=2, factors=2).root)
    np.testing.assert_array_equal(long.mu[: len(short.mu)], short.mu)


def test_the_check_finds_no_fault(market):
    report = check_provider(market[0].root)
    assert (report.errors, report.warnings, len(report.exclusions)) == (0, 0, 0)
    assert set(report.coverage["market"]) == {"sim"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"names": 2}, "names"),
        ({"years": 0}, "years"),
        ({"factors": 10}, "factors: must be fewer than names"),
        ({"signal_ic": float("nan")}, "signal_ic"),
        ({"signal_ic": -0.1}, "signal_ic"),
        ({"churn": 0.7}, "churn"),
        ({"suspended": -0.1}, "suspended"),
        ({"nonlinear": 1.5}, "nonlinear"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_bad_settings_are_refused_before_any_file(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        simulate_market(tmp_path / "m", **{"names": 10, "years": 1, "factors": 2, **setting})
    assert not any(tmp_path.iterdir())


def test_truth_that_is_absent_or_damaged(tmp_path):
    with pytest.raises(DataError, match="only `bpqp data simulate` writes one"):
        load_truth(tmp_path)
    whole = simulate_market(tmp_path / "m", names=10, years=1, factors=2).root / TRUTH
    for damage in (b"", b"PK nonsense", whole.read_bytes()[:-100]):
        (tmp_path / TRUTH).write_bytes(damage)
        with pytest.raises(DataError, match="simulate the market again"):
            load_truth(tmp_path)
