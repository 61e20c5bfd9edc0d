"""A simulated market whose true expected returns and covariances are known on every day."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ...config import check_number
from ...errors import ConfigError, DataError
from ...files.atomic import replacing_folder
from .manifest import extent
from .provider import FIELDS, Provider, check_target, write_provider

TRUTH = "truth.npz"
INDEX = "SIMIDX"

DRIFT = 3e-4  # expected daily return of every name before the signal
OVERNIGHT = 0.3  # share of a day's variance between the close and the next open
LOOKBACK = 20  # days of prices that the signal sees
WARM_UP = 60  # days simulated before the first one kept
SPELL = 126  # days between two changes of the universe
HALT = 5.0  # mean length of a suspension in days


@dataclass(frozen=True)
class Truth:
    """What the market was drawn from; returns are fractions of one day.

    The label of day t is the return from the close of t+1 to that of t+2. Given everything up to
    the close of t it has expectation ``mu[t]`` and covariance ``loadings @ loadings.T +
    diag(specific)``, the same on every day. It holds for every name, suspended or not.

    ``dates`` (T,); ``names`` n codes, in the order of the columns; ``mu`` (T, n); ``loadings``
    (n, k); ``specific`` (n,) variances per day.
    """

    dates: pd.DatetimeIndex
    names: tuple[str, ...]
    mu: np.ndarray
    loadings: np.ndarray
    specific: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """(n, n), per day²."""
        return self.loadings @ self.loadings.T + np.diag(self.specific)


@dataclass(frozen=True)
class Shocks:
    """Everything random that happens on each of T days: standard normal unless stated otherwise.

    ``factor`` (T, k); ``specific``, ``volume``, ``gap`` (T, n); ``high``, ``low`` (T, n) uniform.
    """

    factor: np.ndarray
    specific: np.ndarray
    volume: np.ndarray
    gap: np.ndarray
    high: np.ndarray
    low: np.ndarray

    @classmethod
    def draw(cls, seeds: list[np.random.SeedSequence], days: int, names: int, k: int) -> Shocks:
        """One stream each, filled day by day: a longer history begins with the shorter one."""
        streams = [np.random.default_rng(seed) for seed in seeds]
        normal = [s.standard_normal((days, k if i == 0 else names)) for i, s in enumerate(streams)]
        uniform = [1.0 - s.random((days, names)) for s in streams[-2:]]
        return cls(*normal[:4], *uniform)


@dataclass(frozen=True)
class Paths:
    """Adjusted prices and volume (T, n) of a market without suspensions, and its ``mu`` (T, n)."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    mu: np.ndarray


def planted_score(
    close: np.ndarray, volume: np.ndarray, scale: float, nonlinear: float
) -> np.ndarray:
    """The signal at the last day of a window, (n,), with mean 0 and variance 1 over the names.

    It sees three features that Alpha158 has, with r_d the log return of d days: a linear reversal
    of r_5; momentum in r_20 that fades and is gone in the tails; and a reversal that heavy volume
    (today's over its 5-day mean) turns into continuation. A linear or small network can fit the
    first and not the others, and is wrong where it matters most: at the largest forecasts.

    Parameters
    ----------
    close, volume : (at least 21, n), the last row is today.
    scale : daily volatility that makes returns comparable, the same for all names.
    nonlinear : share of the two curved parts in the variance.
    """
    log_close = np.log(close)
    short = (log_close[-1] - log_close[-6]) / (scale * math.sqrt(5))
    long = (log_close[-1] - log_close[-1 - LOOKBACK]) / (scale * math.sqrt(LOOKBACK))
    heavy = np.tanh(2.0 * np.log(volume[-1] / volume[-5:].mean(axis=0)))
    curved = _standardise(long * np.exp(-0.5 * long**2)) + _standardise(short * heavy)
    score = math.sqrt(1.0 - nonlinear) * _standardise(-short)
    return _standardise(score + math.sqrt(nonlinear) * _standardise(curved))


def evolve(
    shocks: Shocks, loadings: np.ndarray, specific: np.ndarray, ic: float, nonlinear: float
) -> Paths:
    """Run the market through ``shocks``, day by day.

    The return into day s is ``mu[s-2] + B f_s + e_s``: its expectation is settled by prices and
    volumes up to the close of s-2, and nothing else of it is known then. The signal's spread over
    names is set so that its correlation with the label over names is ``ic`` on average.
    """
    days, n = shocks.specific.shape
    sigma = np.sqrt((loadings**2).sum(axis=1) + specific)
    scale = float(np.sqrt(np.mean(sigma**2)))
    # Variance over names of the unpredictable part of one day's returns, on average over days.
    spread = loadings.var(axis=0).sum() + specific.mean()
    strength = ic / math.sqrt(1.0 - ic**2) * math.sqrt(spread)

    # Day by day: the return, then the volume, then the signal that they make for two days later.
    surprise = shocks.factor @ loadings.T + shocks.specific * np.sqrt(specific)
    activity = np.zeros(n)
    mu = np.full((days, n), DRIFT)
    returns, volume = np.empty((2, days, n))
    close = np.empty((days + 1, n))
    close[0] = 20.0
    for s in range(days):
        returns[s] = (mu[s - 2] if s >= 2 else DRIFT) + surprise[s]
        close[s + 1] = close[s] * (1.0 + returns[s])
        activity = 0.7 * activity + 0.35 * shocks.volume[s]
        volume[s] = 1e6 * np.exp(activity + 0.4 * np.abs(returns[s]) / sigma)
        if s >= LOOKBACK:
            window = slice(s - LOOKBACK, s + 1)
            score = planted_score(close[1:][window], volume[window], scale, nonlinear)
            mu[s] += strength * score

    # Within the day the log price is a Brownian bridge from close to close: the open is a point
    # of it, high and low have the law of its extremes (by the reflection principle).
    day = np.log1p(returns)
    gap = OVERNIGHT * day + np.sqrt(OVERNIGHT * (1 - OVERNIGHT)) * sigma * shocks.gap
    rest, variance = day - gap, (1 - OVERNIGHT) * sigma**2
    up = 0.5 * (rest + np.sqrt(rest**2 - 2 * variance * np.log(shocks.high)))
    down = 0.5 * (rest - np.sqrt(rest**2 - 2 * variance * np.log(shocks.low)))
    opened = close[:-1] * np.exp(gap)
    closed = close[1:]
    high = np.maximum(opened * np.exp(up), np.maximum(opened, closed))
    low = np.minimum(opened * np.exp(down), np.minimum(opened, closed))
    return Paths(opened, high, low, closed, volume, mu)


def simulate_market(
    to: Path,
    *,
    names: int = 100,
    years: float = 6,
    seed: int = 0,
    factors: int = 5,
    signal_ic: float = 0.08,
    nonlinear: float = 0.6,
    churn: float = 0.1,
    suspended: float = 0.005,
    start: str = "2015-01-01",
    progress: bool = False,
) -> Provider:
    """Write the provider of a simulated market to ``to``, its truth beside it in ``truth.npz``.

    Days are business days, prices need no adjustment (``factor`` 1), there are no price limits.
    Lists: ``all``, and ``sim``, from which names drop out and come back; ``SIMIDX`` is the equally
    weighted index of the names of ``sim`` that trade. The same arguments give the same files.

    Parameters
    ----------
    names, years, factors : n, length in years, k.
    signal_ic : average over days of the correlation over names of true mu and label.
    nonlinear : share of the signal that is not linear in its features, see
        :func:`planted_score`.
    churn : share of the names outside ``sim`` at any time, drawn anew every half-year; 0: none.
    suspended : share of name-days without trade, in spells of 5 days on average, NaN in every
        field but ``factor``; 0: none.

    Raises
    ------
    ConfigError
        A parameter is out of range, or ``to`` holds something else.
    """
    check_target(to)
    settings = {
        "names": names, "years": years, "seed": seed, "factors": factors, "signal_ic": signal_ic,
        "nonlinear": nonlinear, "churn": churn, "suspended": suspended, "start": start,
    }  # fmt: skip
    _check_settings(settings)
    first = pd.Timestamp(start)
    calendar = pd.bdate_range(first, first + pd.Timedelta(days=round(365.25 * years) - 1))
    codes = [f"SIM{i:04d}" for i in range(names)]

    # Every part of the market is drawn from a stream of its own.
    seeds = np.random.SeedSequence(seed).spawn(9)
    loadings, specific = _risk(np.random.default_rng(seeds[0]), names, factors)
    shocks = Shocks.draw(seeds[1:7], WARM_UP + len(calendar), names, factors)
    paths = evolve(shocks, loadings, specific, signal_ic, nonlinear)
    halted = _halts(np.random.default_rng(seeds[7]), len(calendar), names, suspended)
    member = _members(np.random.default_rng(seeds[8]), len(calendar), names, churn)

    everything = pd.DataFrame(
        {"instrument": codes, "start": calendar[0], "end": calendar[-1]}, columns=_SPELL_COLUMNS
    )
    universes = {"all": everything, "sim": _spells(member, calendar, codes)}
    series = _series(paths, halted, member, calendar, codes, progress)
    manifest = {
        "kind": "simulated",
        "source": f"simulated, not real: {names} names with a planted signal of IC {signal_ic:g} "
        f"(true means in {TRUTH})",
        "settings": settings,
        **extent(calendar, universes, series),
        "fields": dict.fromkeys(FIELDS, len(series)),
        "benchmark": INDEX,
    }
    to = Path(to).expanduser()
    with replacing_folder(to) as folder:
        write_provider(folder, calendar, series, universes, manifest)
        truth = Truth(calendar, tuple(codes), paths.mu[WARM_UP:], loadings, specific)
        _save_truth(folder, truth)
    return Provider(to)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first argument of :func:`simulate_market` out of its range."""
    for name, low in (("names", 3), ("seed", 0), ("factors", 1)):
        check_number(settings[name], name, low=low, integer=True)
    check_number(settings["years"], "years", low=0.25)
    for name, high in (("signal_ic", 0.5), ("nonlinear", 1.0), ("churn", 0.5), ("suspended", 0.5)):
        check_number(settings[name], name, low=0.0, high=high)
    factors, names = settings["factors"], settings["names"]
    if factors >= names:
        raise ConfigError(f"factors: must be fewer than names ({names}), got {factors}.")


def _series(
    paths: Paths,
    halted: np.ndarray,
    member: np.ndarray,
    calendar: pd.DatetimeIndex,
    codes: list[str],
    progress: bool,
) -> dict[str, pd.DataFrame]:
    """The fields of the index and of each name on the calendar, NaN where ``halted`` (T, n)."""
    # The day before the calendar gives the first day's change.
    before = paths.close[WARM_UP - 1]
    kept = {
        field: getattr(paths, field)[WARM_UP:]
        for field in ("open", "high", "low", "close", "volume")
    }
    previous = np.vstack([before, kept["close"][:-1]])
    series = {INDEX: _index(kept, previous, member & ~halted, calendar)}
    for i, code in enumerate(tqdm(codes, "simulated names", disable=None if progress else True)):
        frame = pd.DataFrame({field: values[:, i] for field, values in kept.items()}, calendar)
        frame[halted[:, i]] = np.nan
        close = frame["close"]
        frame["change"] = close / close.ffill().shift(1).fillna(before[i]) - 1.0
        frame["factor"] = 1.0
        series[code] = frame
    return series


def _save_truth(folder: Path, truth: Truth) -> None:
    np.savez(
        folder / TRUTH,
        dates=truth.dates.to_numpy().astype("datetime64[D]"),
        names=np.array(truth.names),
        mu=truth.mu,
        loadings=truth.loadings,
        specific=truth.specific,
    )


def load_truth(root: Path) -> Truth:
    """The truth of the simulated market at ``root``.

    Raises
    ------
    DataError
        There is none, or it is damaged.
    """
    path = Path(root).expanduser() / TRUTH
    if not path.is_file():
        raise DataError(f"no {TRUTH} in {path.parent}: only `bpqp data simulate` writes one.")
    try:
        with np.load(path, allow_pickle=False) as data:
            return Truth(
                dates=pd.DatetimeIndex(data["dates"]),
                names=tuple(data["names"].tolist()),
                mu=data["mu"],
                loadings=data["loadings"],
                specific=data["specific"],
            )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); simulate the market again.") from error


_SPELL_COLUMNS = ["instrument", "start", "end"]


def _standardise(values: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over the names; all zero where they do not differ."""
    centred = values - values.mean()
    deviation = centred.std()
    return centred / deviation if deviation > 0 else centred


def _risk(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Loadings (n, k), a market of 1 % a day first, and specific variances (n,)."""
    loadings = 0.004 * rng.standard_normal((n, k))
    loadings[:, 0] = 0.010 * (1.0 + 0.3 * rng.standard_normal(n))
    return loadings, rng.uniform(0.012, 0.028, n) ** 2


def _halts(rng: np.random.Generator, days: int, n: int, share: float) -> np.ndarray:
    """Boolean (T, n): days of suspension, of geometric length with mean ``HALT``."""
    begin = share / ((1.0 - share) * HALT)
    draws = rng.random((days, n))
    halted = np.zeros((days, n), dtype=bool)
    for t in range(1, days):
        halted[t] = draws[t] < np.where(halted[t - 1], 1.0 - 1.0 / HALT, begin)
    return halted


def _members(rng: np.random.Generator, days: int, n: int, churn: float) -> np.ndarray:
    """Boolean (T, n): who is in ``sim``; those who were out come in at the next change."""
    out = round(churn * n)
    member = np.ones((days, n), dtype=bool)
    outside = rng.permutation(n)[:out]
    for first in range(0, days, SPELL):
        member[first : first + SPELL, outside] = False
        inside = np.setdiff1d(np.arange(n), outside)
        outside = rng.permutation(inside)[:out]
    return member


def _spells(member: np.ndarray, calendar: pd.DatetimeIndex, codes: list[str]) -> pd.DataFrame:
    """Membership (T, n) as spells."""
    rows = []
    for i, code in enumerate(codes):
        edge = np.diff(member[:, i].astype(np.int8), prepend=0, append=0)
        for a, b in zip(np.flatnonzero(edge == 1), np.flatnonzero(edge == -1), strict=True):
            rows.append((code, calendar[a], calendar[b - 1]))
    return pd.DataFrame(rows, columns=_SPELL_COLUMNS)


def _index(
    kept: dict[str, np.ndarray],
    previous: np.ndarray,
    traded: np.ndarray,
    calendar: pd.DatetimeIndex,
) -> pd.DataFrame:
    """The equally weighted index, rebalanced daily, of the names that trade."""
    weight = traded / np.maximum(traded.sum(axis=1, keepdims=True), 1)
    relative = {
        field: (weight * kept[field] / previous).sum(axis=1)
        for field in ("open", "high", "low", "close")
    }
    level = 1000.0 * np.cumprod(relative["close"])
    base = level / relative["close"]
    frame = pd.DataFrame({field: base * ratio for field, ratio in relative.items()}, calendar)
    frame["volume"] = (traded * kept["volume"]).sum(axis=1)
    frame["change"] = relative["close"] - 1.0
    frame["factor"] = 1.0
    return frame
