"""The snapshot of a day: a run's scores and risk from prices up to that day, and nothing later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..data.features.expressions import evaluate, fields_of, reach, read_tables
from ..data.features.panel import DayBatch
from ..data.provider.provider import Provider
from ..data.quality.exclusions import Exclusion, Exclusions, read_exclusions
from ..data.quality.findings import CHECKS, EXCLUDE
from ..data.quality.moves import MoveJudge
from ..data.universe.market import MarketData, load_market
from ..errors import DataError
from ..files.dates import FORM, iso_day
from ..risk.rolling import RiskPanel, rolling_risk
from ..runs.artifact import RunArtifact

COUNTED = ("close", "change", "factor")
JUDGED = (*COUNTED, "high", "low")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What is decided on at the close of ``date``.

    ``names`` (n,) in the problem; ``scores`` (n,); ``batch`` of one day with its covariance, and
    what a model that learned its risk says of it;
    ``left_out`` member → why it is not in the problem; ``next_day`` when the trade is, where the
    calendar knows it; ``market`` up to the day, and the ``risk`` of all its members.
    """

    date: pd.Timestamp
    next_day: pd.Timestamp | None
    names: pd.Index
    scores: np.ndarray
    batch: DayBatch
    left_out: dict[str, str]
    market: MarketData
    risk: RiskPanel

    @property
    def columns(self) -> np.ndarray:
        """Positions (n,) of ``names`` among the market's."""
        return self.batch.names[0].numpy()


def snapshot(run: RunArtifact, provider: Provider, date: str | None = None) -> Snapshot:
    """Score the names of ``date`` and estimate their risk, as the run's own dataset does.

    Features take the days of their expressions' look-back (60 for Alpha158, and the days of history
    of a sequence network before that), the covariance its window; a longer history changes no bit.

    Parameters
    ----------
    date : trading day; by default the last on which a member of the universe has a close.

    Raises
    ------
    DataError, ProviderError
        Another provider than the run's, a day that is no trading day or has no data, a field that
        is gone, or a universe too small for the risk model.
    """
    provider.require()
    _check_provider(run, provider)
    whole = load_market(provider, run.facts["market"])
    day = _position(whole, run, date)
    market = _until(whole, day, _exclusions(run, provider, whole, day))
    if not market.investable[-1].any():
        raise DataError(_no_data(whole, day, run))
    start = market.dates.searchsorted(pd.Timestamp(run.days[0]))
    history = _history(market.returns, run.risk.window)
    usable = market.investable & (history >= run.risk.min_history)
    usable[:start] = False
    chosen = np.flatnonzero(usable[-1])
    risk = rolling_risk(
        market.returns,
        market.member,
        [day],
        run.risk,
        jobs=1,
        progress=False,
        labels=[f"{d:%Y-%m-%d}" for d in market.dates],
    )
    rows = np.searchsorted(risk.names, chosen)
    features = _features(run, provider, market, _history_days(usable, chosen, run.window), chosen)
    predictor_output = run.predictor_output(features)
    scores = predictor_output.scores.numpy()
    if not np.isfinite(scores).all():
        name = market.names[chosen[~np.isfinite(scores)][0]]
        raise DataError(
            f"the model's score of {name} on {market.dates[-1]:%Y-%m-%d} is not finite."
        )
    log_specific = predictor_output.log_specific
    batch = DayBatch.unlabelled(
        torch.from_numpy(risk.loadings[rows])[None],
        torch.from_numpy(risk.specific[rows])[None],
        torch.ones((1, len(chosen)), dtype=torch.bool),
        names=torch.from_numpy(chosen)[None],
        features=torch.from_numpy(features),
        log_specific=None if log_specific is None else log_specific[None],
        log_factors=predictor_output.log_factors,
    )
    left_out = _left_out(run, provider, market, usable[-1], history[-1])
    return Snapshot(
        date=market.dates[-1],
        next_day=provider.next_day(market.dates[-1]),
        names=market.names[chosen],
        scores=scores,
        batch=batch,
        left_out=left_out,
        market=market,
        risk=risk,
    )


def _check_provider(run: RunArtifact, provider: Provider) -> None:
    """Refuse a provider on which the run cannot have been trained."""
    remedy = (
        f"Name the run's provider (it was trained on {run.facts['data']['folder']}) or a later "
        "state of it, or train again on this one."
    )
    calendar = provider.calendar
    if not len(calendar):
        raise DataError(f"the calendar of {provider.root} is empty.")
    here = [f"{d:%Y-%m-%d}" for d in calendar[calendar >= pd.Timestamp(run.days[0])]]
    theirs = run.days
    length = min(len(here), len(theirs))
    different = [i for i in range(length) if here[i] != theirs[i]]
    if different or not length:
        where = theirs[different[0]] if different else theirs[0]
        raise DataError(
            f"run {run.run_id!r} was trained on another provider than {provider.root}: their "
            f"trading days differ from {where} on. {remedy}"
        )
    names = run.facts["data"]["names"]
    missing = [name for name in names if not provider.has(name, "close")]
    if len(missing) > 0.1 * len(names):
        raise DataError(
            f"run {run.run_id!r} was trained on another provider than {provider.root}, which has "
            f"no prices of {len(missing)} of its {len(names)} names, such as {missing[0]}. {remedy}"
        )
    for item in fields_of(run.facts["expressions"]):
        if not any(provider.has(name, item) for name in names):
            raise DataError(
                f"run {run.run_id!r} was trained on columns that need ${item}, which no name in "
                f"{provider.root} has. {remedy}"
            )


def _position(market: MarketData, run: RunArtifact, date: str | None) -> int:
    """Position of the day, which is a trading day of the run's data or later."""
    dates, first = market.dates, pd.Timestamp(run.days[0])
    if date is None:
        seen = np.flatnonzero((market.member & np.isfinite(market.close)).any(1))
        if not len(seen) or dates[seen[-1]] < first:
            raise DataError(
                f"no member of {run.facts['market']!r} has a close since {first:%Y-%m-%d}."
            )
        return int(seen[-1])
    if (day := iso_day(date)) is None:
        raise DataError(f"date: {date!r} is no date of the form {FORM}.")
    if day < first:
        raise DataError(f"{date}: the run's data begin on {first:%Y-%m-%d}; name a later day.")
    if day > dates[-1]:
        raise DataError(
            f"{date}: the provider ends on {dates[-1]:%Y-%m-%d}; bring it up to date or name that "
            "day."
        )
    position = int(dates.searchsorted(day))
    if dates[position] != day:
        raise DataError(
            f"{date} is no trading day; the nearest are {dates[position - 1]:%Y-%m-%d} and "
            f"{dates[position]:%Y-%m-%d}."
        )
    return position


def _no_data(market: MarketData, day: int, run: RunArtifact) -> str:
    seen = np.flatnonzero((market.member & np.isfinite(market.close)).any(1))
    nearest = seen[np.abs(seen - day).argmin()] if len(seen) else None
    hint = (
        ""
        if nearest is None
        else f" The nearest day with data is {market.dates[nearest]:%Y-%m-%d}."
    )
    return (
        f"no member of {run.facts['market']!r} has a valid close on "
        f"{market.dates[day]:%Y-%m-%d}.{hint}"
    )


def _until(market: MarketData, day: int, exclusions: Exclusions) -> MarketData:
    """The market up to ``day``, so that nothing later can be read."""
    end = day + 1
    dates = market.dates[:end]
    excluded = exclusions.mask(dates, market.names)
    return MarketData(dates, market.names, market.close[:end], market.member[:end], excluded)


def _exclusions(run: RunArtifact, provider: Provider, market: MarketData, day: int) -> Exclusions:
    """The moves that the run excluded; after its data, those judged from the days up to ``day``."""
    last, date = pd.Timestamp(run.days[-1]), market.dates[day]
    how = run.facts["exclusions"]
    if date <= last or how == "none":
        return run.excluded
    if how != "check":
        later = [e for e in read_exclusions(Path(how)) if e.date > last]
        return Exclusions((*run.excluded, *later))
    window = slice(max(day + 1 - run.risk.window, 0), day + 1)
    judge, end = MoveJudge(market.dates[: day + 1]), day + 1
    wanted = set(market.names[market.member[window].any(0)])
    # Every name of the provider counts towards the trust in $change, as in the check.
    for name in provider.names:
        series = {
            item: provider.series(name, item)[:end].astype(np.float64)
            for item in (JUDGED if name in wanted else COUNTED)
            if provider.has(name, item)
        }
        if "close" in series:
            judge.judge(name, series, moves=name in wanted)
    later = [
        Exclusion(move.instrument, move.date, f"{move.verdict}: {move.detail}")
        for move in judge.moves
        if CHECKS[move.verdict][2] == EXCLUDE and move.date > last
    ]
    return Exclusions((*run.excluded, *later))


def _history(returns: np.ndarray, window: int) -> np.ndarray:
    """(T, N) returns of each name in the window that ends with each day."""
    total = np.zeros((len(returns) + 1, returns.shape[1]), dtype=np.int32)
    np.cumsum(np.isfinite(returns), axis=0, out=total[1:])
    day = np.arange(len(returns))
    return total[day + 1] - total[np.maximum(day + 1 - window, 0)]


def _history_days(usable: np.ndarray, names: np.ndarray, window: int) -> np.ndarray:
    """(n, window) the last days on which each name was in the problem, the oldest repeated."""
    out = np.empty((len(names), window), dtype=np.int64)
    for i, name in enumerate(names):
        days = np.flatnonzero(usable[:, name])[-window:]
        out[i] = np.concatenate([np.repeat(days[0], window - len(days)), days])
    return out


def _features(
    run: RunArtifact, provider: Provider, market: MarketData, days: np.ndarray, names: np.ndarray
) -> np.ndarray:
    """(n, L, F) processed features of ``names`` on their ``days`` (n, L)."""
    from ..qlib_ext.processors import restored

    expressions = run.facts["expressions"]
    back, ahead = reach(expressions)
    if ahead:
        raise DataError(f"run {run.run_id!r}: its features need prices of later days.")
    asked, end = np.unique(days), len(market.dates)
    first = max(int(asked[0]) - back, 0)
    keep = np.zeros((end - first, len(market.names)), dtype=bool)
    keep[asked - first] = market.investable[asked]
    columns = np.flatnonzero(keep.any(0))
    keep = keep[:, columns]
    fields = fields_of(expressions)
    tables = read_tables(provider, list(market.names[columns]), fields, slice(first, end))
    day, name = np.nonzero(keep)
    frame = pd.DataFrame(
        evaluate(expressions, tables, keep),
        index=pd.MultiIndex.from_arrays(
            [market.dates[day + first], market.names[columns[name]]],
            names=["datetime", "instrument"],
        ),
        columns=pd.MultiIndex.from_product([["feature"], run.facts["features"]]),
    )
    row = np.full(keep.shape, -1)
    row[day, name] = np.arange(len(day))
    for state in run.facts["processors"]:
        frame = restored(state, frame.columns)(frame)
    values = frame.to_numpy(np.float32)
    return values[row[days - first, np.searchsorted(columns, names)[:, None]]]


def _left_out(
    run: RunArtifact,
    provider: Provider,
    market: MarketData,
    usable: np.ndarray,
    history: np.ndarray,
) -> dict[str, str]:
    """Why each member of the universe that is not in the problem is not."""
    date, out = market.dates[-1], {}
    spells = provider.spells(run.facts["market"])
    members = spells[(spells["start"] <= date) & (spells["end"] >= date)]["instrument"]
    known = set(market.names)
    for name in members:
        if name not in known:
            out[name] = "no data: the provider has no closes of it"
    for i in np.flatnonzero(market.member[-1] & ~usable):
        seen = np.flatnonzero(np.isfinite(market.close[:, i]))
        if not len(seen):
            reason = f"no data: no close up to {date:%Y-%m-%d}"
        elif seen[-1] < len(market.dates) - 1:
            reason = f"suspended: last close on {market.dates[seen[-1]]:%Y-%m-%d}"
        elif market.excluded[-1, i]:
            reason = "its move into the day is excluded as invalid"
        else:
            reason = (
                f"short history: {history[i]} returns in {run.risk.window} days, "
                f"{run.risk.min_history} needed"
            )
        out[str(market.names[i])] = reason
    return dict(sorted(out.items()))
