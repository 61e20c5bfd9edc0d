"""Checks of a workflow's data before any feature is computed: index, universe and risk model."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..backtest.mandate_settings import MandateSettings
from ..config import nearest
from ..data.provider.provider import Provider
from ..data.quality.check import check_provider
from ..data.quality.exclusions import Exclusions, read_exclusions
from ..data.universe.index_weights import PROXIES
from ..data.universe.market import MarketData, load_market
from ..errors import ConfigError, DataError, ProviderError
from ..markets.price_limits import board_of
from ..portfolio.problem import ProblemConfig
from ..risk.clusters import ClusterConfig
from ..risk.config import RiskConfig
from .segments import Segments

CHECK, NONE = "check", "none"
"""Of ``exclusions``: what the data check finds now, or no move at all."""


def checked_data(
    settings: Mapping[str, Any],
    provider: Provider,
    spans: Segments,
    mandate: MandateSettings,
    risk: RiskConfig,
    problem: ProblemConfig,
    region: str,
) -> tuple[Exclusions, MarketData]:
    """The invalid moves and the market of a dataset's ``settings`` in Qlib's ``region``, checked.

    What is found quickly comes first.

    Raises
    ------
    ConfigError, DataError
        As the checks below, and for a table of the mandate that cannot be used.
    """
    check_named(settings, provider)
    market = settings["market"]
    check_region(provider, market, region, settings.get("market_rules"))
    excluded = _exclusions(settings, provider)
    loaded = load_market(provider, market, excluded)
    check_universe(loaded, spans, risk, problem)
    check_limits(mandate, loaded, spans["test"])
    mandate.check_tables(loaded, provider, risk.window, spans["test"])
    return excluded, loaded


def _exclusions(settings: Mapping[str, Any], provider: Provider) -> Exclusions:
    how = settings.get("exclusions")
    if how is None or how == NONE:
        return Exclusions()
    if how != CHECK:
        return read_exclusions(Path(how))
    report = check_provider(
        provider.root, market=settings["market"], benchmark=settings["benchmark"]
    )
    print(
        f"data check: {report.errors} errors, {report.warnings} warnings, "
        f"{len(report.exclusions)} moves excluded (`bpqp data check {provider.root}` lists them)",
        flush=True,
    )
    return report.exclusions


def check_named(settings: Mapping[str, Any], provider: Provider) -> None:
    """What the ``settings`` of a dataset name is there; only lists and folders are looked at.

    Raises
    ------
    ConfigError, DataError, ProviderError
        No provider, universe, index or table of that name.
    """
    market, benchmark = settings["market"], settings["benchmark"]
    provider.require()
    if provider.spells(market).empty:
        raise ProviderError(
            f"universe {market!r} in {provider.root} has no members; it has: "
            f"{', '.join(provider.markets)}."
        )
    check_benchmark(benchmark, market, provider)
    exclusions = settings.get("exclusions")
    if exclusions not in (None, CHECK, NONE):
        if not Path(exclusions).expanduser().is_file():
            raise ConfigError(
                f"exclusions: no file {exclusions!r}; write {CHECK}, {NONE} or the path of a CSV "
                "file, as `bpqp data check --write-exclusions` writes it."
            )
        read_exclusions(Path(exclusions))
    _check_fields(settings, provider)
    mandate = settings["mandate"]
    for key, words in (("sectors", ()), ("index_weights", PROXIES), ("exposure_table", ())):
        table = mandate.get(key)
        if not isinstance(table, str) or table in words:
            continue
        if not (path := Path(table).expanduser()).is_file():
            known = f" It is one of {', '.join(words)}, or a CSV file." if words else ""
            raise ConfigError(
                f"mandate.{key}: no file {path.absolute()}; a relative path is looked for in "
                f"the working directory.{known}"
            )


def _check_fields(settings: Mapping[str, Any], provider: Provider) -> None:
    """The price fields that a :class:`~.handlers.CachedAlpha158` is to use are there."""
    handler = settings.get("handler") or {}
    fields = (handler.get("kwargs") or {}).get("fields")
    if fields is None:
        return
    codes = provider.spells(settings["market"])["instrument"].unique()
    there = {field for code in codes for field in provider.fields(code)}
    lacking = [field for field in fields if field not in there]
    if there and lacking:
        raise ConfigError(
            f"handler.fields: no name of {settings['market']!r} in {provider.root} has "
            f"{', '.join(lacking)}; they have {', '.join(sorted(there))}."
        )


def check_limits(
    mandate: MandateSettings, market: MarketData, test: tuple[pd.Timestamp, pd.Timestamp]
) -> None:
    """No limit of the mandate that cannot be met on its face, or names a code that is not there.

    Raises
    ------
    ConfigError
        A code outside the universe, least weights that sum to more than 1, or groups whose limits
        sum to less.
    """
    terms = {term.name: term for term in mandate.build().terms}
    for name in ("max_weights", "min_weights", "active_weights"):
        limit = getattr(terms.get(name), "limit", None)
        for code in limit if isinstance(limit, Mapping) else ():
            if code not in market.names and code != "default":
                hint = nearest(str(code), market.names) if len(market.names) < 50 else ""
                raise ConfigError(
                    f"mandate.constraints.{name}: {code!r} is no code of the universe.{hint}"
                )
    days = (market.dates >= test[0]) & (market.dates <= test[1])
    most = int(market.investable[days].sum(1).max())
    least = getattr(terms.get("min_weights"), "limit", None)
    if isinstance(least, int | float) and least * most > 1 + 1e-9:
        raise ConfigError(
            f"mandate.constraints.min_weights: {least:g} for each of {most} names is more than the "
            f"whole account; set it to at most {math.floor(1e4 / most) / 1e4:g}."
        )
    groups, sectors = terms.get("groups"), mandate.sectors
    limit = None if getattr(groups, "relative", False) else getattr(groups, "limit", None)
    if not isinstance(sectors, ClusterConfig) or not isinstance(limit, int | float):
        return
    if limit * sectors.count < 1 - 1e-9:
        raise ConfigError(
            f"mandate.constraints.groups: {limit:g} for each of {sectors.count} groups cannot "
            f"reach a sum of 1; set it to at least {math.ceil(1e4 / sectors.count) / 1e4:g}."
        )


def check_region(provider: Provider, market: str, region: str, changes: Any) -> None:
    """The codes of ``market`` are those of the region whose rules orders and limits follow.

    ``changes`` is the workflow's ``market_rules:``. Codes of no board in the
    Chinese region are noted: its lots apply to them, and no price limit does.

    Raises
    ------
    ConfigError
        Chinese codes in another region, whose lot and price limits are not stated.
    """
    codes = list(provider.spells(market)["instrument"].unique())
    boards = sum(board_of(code) is not None for code in codes)
    stated = {"lot", "price_limits"} <= set(changes or {})
    if region != "cn" and 2 * boards > len(codes) and not stated:
        raise ConfigError(
            f"qlib_init.region: is {region}, but {boards} of the {len(codes)} codes of {market!r} "
            f"are of Chinese boards, such as {codes[0]}, whose lots and price limits would not "
            "apply. Write `region: cn`, or state lot and price_limits in dataset.market_rules."
        )
    without = [code for code in codes if board_of(code) is None]
    if region == "cn" and without and not stated:
        print(
            f"note: region cn, but {len(without)} of the {len(codes)} codes of {market!r} are of "
            f"no Chinese board (such as {', '.join(without[:3])}): lots of 100 apply, and no price "
            "limit. `bpqp data import` writes such codes as SH600000; for another market write "
            "`region: us`, or state lot and price_limits in dataset.market_rules.",
            flush=True,
        )


def check_benchmark(benchmark: str | None, market: str, provider: Provider) -> None:
    """The index has prices, and is no name of the universe that it is compared with.

    Raises
    ------
    ConfigError
        No such prices, or the index is a member of ``market``.
    """
    if benchmark is None:
        return
    if benchmark.lower() not in provider.folders:
        raise ConfigError(
            f"benchmark: no prices of {benchmark!r} in {provider.root}. "
            f"{_like(benchmark, market, provider)} `benchmark: null` compares with no index, and "
            "equal weights are compared with in any case."
        )
    if benchmark.upper() in set(provider.spells(market)["instrument"]):
        raise ConfigError(
            f"benchmark: {benchmark} is itself a member of the universe {market!r}, so the "
            f"portfolio could hold it. Take it out of {provider.root}/instruments/{market}.txt, or "
            f"import the data again with `bpqp data import … --benchmark {benchmark}`."
        )


def _like(benchmark: str, market: str, provider: Provider) -> str:
    """Codes that may be meant: an index is in no list of names to hold."""
    held = set(provider.spells(market)["instrument"])
    if "all" in provider.markets:
        held |= set(provider.spells("all")["instrument"])
    codes = provider.names
    apart = [code for code in codes if code not in held]
    near = difflib.get_close_matches(benchmark.upper(), codes, n=3, cutoff=0.6)
    said = []
    if near:
        said.append(f"The nearest codes: {', '.join(near)}.")
    if apart:
        more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
        said.append(f"In no list of names to hold, as an index is: {', '.join(apart[:5])}{more}.")
    else:
        said.append("The provider has no index: every code with prices is a name to hold.")
    return " ".join(said)


def _why_none(market: MarketData, days: np.ndarray, tradable: np.ndarray) -> str:
    """Why no name can be invested in on the first day on which ``tradable`` (days,) is least."""
    day = np.flatnonzero(days)[tradable.argmin()]
    members = market.member[day]
    if not members.any():
        return "the universe has no member then"
    if not np.isfinite(market.close[day][members]).any():
        return f"all prices of its {members.sum()} members are missing"
    return f"the moves of its {members.sum()} members are excluded, or have no price"


def check_universe(
    market: MarketData, segments: Segments, risk: RiskConfig, problem: ProblemConfig
) -> None:
    """Every day has enough names for the risk model and for the largest weight.

    Counted are the names that can be invested in and that have a risk model on the day.

    Raises
    ------
    DataError, ConfigError
        A day without a name, with too few for the factors, or for ``max_weight``.
    """
    first, last = segments["train"][0], segments["test"][1]
    days = (market.dates >= first) & (market.dates <= last)
    dates = market.dates[days]
    tradable = market.investable[days].sum(1)
    if tradable.min() == 0:
        raise DataError(
            f"no name can be invested in on {dates[tradable.argmin()]:%Y-%m-%d} "
            f"({(tradable == 0).sum()} such days): {_why_none(market, days, tradable)}. Run "
            "`bpqp data check`, or choose other segments."
        )
    before = int(np.flatnonzero(days)[0])
    if before < risk.min_history:
        raise DataError(
            f"the risk model needs {risk.min_history} returns up to the first training day, but "
            f"the data begin {before} days before {first:%Y-%m-%d}: start the train segment later "
            "or lower risk.min_history."
        )
    returns = pd.DataFrame(np.isfinite(market.returns)).rolling(risk.window, min_periods=1).sum()
    modelled = returns.to_numpy()[days] >= risk.min_history
    count = (market.investable[days] & modelled).sum(1)
    fewest, worst = int(count.min()), dates[count.argmin()]
    if fewest <= risk.factors:
        raise DataError(
            f"{fewest} of the {tradable[count.argmin()]} names of {worst:%Y-%m-%d} have a history "
            f"of {risk.min_history} returns, but the risk model has {risk.factors} factors and "
            "needs more names than that: lower risk.factors or risk.min_history, or start the "
            "train segment later."
        )
    if fewest * problem.max_weight < 1 - 1e-9:
        least = math.ceil(1e4 / fewest) / 1e4
        raise ConfigError(
            f"mandate.constraints.max_weights {problem.max_weight:g} cannot reach a sum of 1 with "
            f"the {fewest} names that have a risk model on {worst:%Y-%m-%d}: set it to at least "
            f"{least:g}."
        )
