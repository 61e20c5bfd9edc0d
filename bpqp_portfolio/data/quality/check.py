"""Checking a provider: what is wrong or doubtful in it, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ...errors import ProviderError
from ...markets.codes import qlib_code
from ..provider.cleaning import is_traded
from ..provider.provider import FIELDS, Provider, folder_name
from .exclusions import Exclusion, Exclusions
from .findings import CHECKS, EXCLUDE, SHOWN, CheckReport, Notes, build_checks
from .moves import Move, MoveJudge

# Well-known universes: how many members they have at any time, and their index.
KNOWN_UNIVERSES = {
    "csi100": (100, "SH000903"),
    "csi300": (300, "SH000300"),
    "csi500": (500, "SH000905"),
    "csi800": (800, "SH000906"),
    "csi1000": (1000, "SH000852"),
}

PRICES = ("open", "high", "low", "close")
LONG_GAP = pd.Timedelta(days=20)
FROZEN = pd.Timedelta(days=730)
LOW_COVERAGE = 0.9
OHLC_SLACK = 1e-4  # of the close: rounding of float32 prices


def check_provider(
    root: Path,
    *,
    market: str | None = None,
    benchmark: str | None = None,
    progress: bool = False,
    checks: Iterable[Mapping[str, Any]] = (),
) -> CheckReport:
    """Check the provider in ``root``: every finding of ``CHECKS``, by the rules of :mod:`.moves`.

    Unreadable and unusable data are errors; moves that are invalid are warnings that become
    exclusions.

    Parameters
    ----------
    market : universe to check; by default every list but ``all``.
    benchmark : code that must have data; by default what the manifest or the universe suggests.
    checks : the user's own by ``class`` and ``module_path``; see :class:`~.findings.OwnCheck`.

    Raises
    ------
    ProviderError
        There is no provider, or its calendar cannot be read.
    ConfigError
        A check of the user's own that cannot be loaded.
    """
    own = build_checks(checks)
    provider = Provider(root).require()
    calendar = provider.calendar
    if not len(calendar):
        raise ProviderError(f"the calendar of {provider.root} is empty.")
    notes, judge = Notes(), MoveJudge(calendar)
    if not _check_calendar(calendar, notes):
        # Positions mean nothing on such a calendar, so nothing else can be judged.
        return CheckReport(provider.root, notes.findings(), _coverage_table([]), Exclusions())
    lists = _read_lists(provider, notes)
    span = _check_files(provider, lists, notes, judge, progress)
    moves = _note_moves(judge, notes)
    if market is not None and market not in lists:
        notes.add("market-missing", f"{market} (has: {', '.join(sorted(lists)) or 'none'})")
    chosen = [market] if market else [name for name in lists if name != "all"] or list(lists)
    rows = []
    for name in chosen:
        if name in lists:
            rows += _check_universe(provider, name, lists[name], span, notes)
    _check_benchmark(provider, chosen, lists, benchmark, notes)
    for check in own:
        notes.own[check.name] = (check.severity, check.what, check.remedy)
        for place in check.places(provider):
            notes.add(check.name, str(place))
    # An index has no place in a universe, so no exclusion of it would ever apply.
    listed = {code for spells in lists.values() for code in spells["instrument"]}
    excluded = tuple(
        Exclusion(move.instrument, move.date, f"{move.verdict}: {move.detail}")
        for move in moves
        if CHECKS[move.verdict][2] == EXCLUDE and move.instrument in listed
    )
    return CheckReport(provider.root, notes.findings(), _coverage_table(rows), Exclusions(excluded))


def _check_calendar(calendar: pd.DatetimeIndex, notes: Notes) -> bool:
    """Note faults of the calendar; False where the rest cannot be checked."""
    step = calendar[1:] - calendar[:-1]
    for i in np.flatnonzero(step <= pd.Timedelta(0)):
        notes.add("calendar-order", f"{calendar[i + 1]:%Y-%m-%d} after {calendar[i]:%Y-%m-%d}")
    for i in np.flatnonzero(step > LONG_GAP):
        stretch = f"{calendar[i]:%Y-%m-%d} to {calendar[i + 1]:%Y-%m-%d}"
        notes.add("calendar-gap", stretch, size=step[i].days)
    weekend = calendar[calendar.day_of_week >= 5]
    if len(weekend):
        notes.add("calendar-weekend", f"first {weekend[0]:%A %Y-%m-%d}", len(weekend))
    return "calendar-order" not in notes.places


def _read_lists(provider: Provider, notes: Notes) -> dict[str, pd.DataFrame]:
    lists = {}
    for name in provider.markets:
        try:
            lists[name] = provider.spells(name)
        except ProviderError as error:
            notes.add("list-unreadable", str(error))
    return lists


def _check_files(
    provider: Provider,
    lists: dict[str, pd.DataFrame],
    notes: Notes,
    judge: MoveJudge,
    progress: bool,
) -> dict[str, tuple[int, int]]:
    """Check every feature folder; first and last position with a close of each name that has."""
    folders = set(provider.folders)
    for folder in sorted(folders):
        if folder != folder.lower():
            notes.add("folder-case", folder)
    listed = sorted({code for spells in lists.values() for code in spells["instrument"]})
    lower = {folder.lower() for folder in folders}
    for code in listed:
        if folder_name(code) not in lower:
            notes.add("files-missing", code)
        if qlib_code(code) != code:
            notes.add("code-notation", f"{code} for {qlib_code(code)}")
    absent: dict[str, list[str]] = {}
    span = {}
    usable = provider.names
    for name in tqdm(usable, "checking names", disable=None if progress else True):
        series = _read_fields(provider, name, notes)
        for missing in set(FIELDS) - set(series):
            absent.setdefault(missing, []).append(name)
        if "close" not in series:
            if "close" not in provider.fields(name):
                notes.add("close-missing", name)
            continue
        seen = np.flatnonzero(np.isfinite(series["close"]))
        if not len(seen):
            notes.add("empty", name)
            continue
        span[name] = (int(seen[0]), int(seen[-1]))
        _check_values(provider.calendar, name, series, notes)
        judge.judge(name, series)
    for missing in FIELDS:
        if missing != "close" and missing in absent:
            names = absent[missing]
            lacking = f"all {len(names)} names" if len(names) == len(usable) else _some(names)
            notes.add("fields-missing", f"{missing}: {lacking}", len(names))
    return span


def _read_fields(provider: Provider, name: str, notes: Notes) -> dict[str, np.ndarray]:
    """The fields of a name on the whole calendar, (T,) float64; faults of files are noted."""
    days = len(provider.calendar)
    series = {}
    for item in provider.fields(name):
        if item not in FIELDS:
            continue
        try:
            start, values = provider.raw(name, item)
        except ProviderError as error:
            notes.add("unreadable", str(error))
            continue
        extra = max(0, start + len(values) - days)
        if extra:
            notes.add("past-calendar", f"{name} {item} by {extra} days")
        kept = values[: max(0, len(values) - extra)]
        series[item] = np.full(days, np.nan)
        series[item][start : start + len(kept)] = kept
    return series


def _check_values(
    calendar: pd.DatetimeIndex, name: str, series: dict[str, np.ndarray], notes: Notes
) -> None:
    """Checks of single days; a fault is noted once a name and field, with the first day."""

    def note(check: str, bad: np.ndarray, what: str = "") -> None:
        if bad.any():
            label = f"{name} {what}".strip()
            notes.add(check, f"{label} {calendar[bad.argmax()]:%Y-%m-%d}", bad.sum())

    for item, values in series.items():
        note("non-finite", np.isinf(values), item)
        if item in (*PRICES, "factor"):
            note("non-positive", values <= 0, item)
    if "volume" in series:
        note("negative-volume", series["volume"] < 0)
    note("suspended-priced", np.isfinite(series["close"]) & ~is_traded(series))
    _check_bars(calendar, name, series, notes)


def _check_bars(
    calendar: pd.DatetimeIndex, name: str, series: dict[str, np.ndarray], notes: Notes
) -> None:
    """Note the day on which a price is furthest outside low and high, and how many there are."""
    prices = np.array([series[item] for item in PRICES if item in series])
    close = np.abs(series["close"])
    with np.errstate(invalid="ignore", divide="ignore"):
        above = (np.fmax.reduce(prices) - series["high"]) / close if "high" in series else 0.0
        below = (series["low"] - np.fmin.reduce(prices)) / close if "low" in series else 0.0
    size = np.nan_to_num(np.maximum(above, below), nan=0.0, posinf=0.0)
    if (size > OHLC_SLACK).any():
        day = int(size.argmax())
        bar = ", ".join(f"{item} {series[item][day]:.6g}" for item in PRICES if item in series)
        notes.add(
            "ohlc", f"{name} {calendar[day]:%Y-%m-%d}: {bar}", (size > OHLC_SLACK).sum(), size[day]
        )


def _note_moves(judge: MoveJudge, notes: Notes) -> list[Move]:
    for name in judge.in_percent:
        notes.add("change-percent", name)
    share = judge.share_disputed()
    if share:
        notes.add("change-unadjusted", f"{share:.2%} of the days")
    moves = judge.moves
    for move in moves:
        notes.add(move.verdict, move.place, size=move.size)
    return moves


def _check_universe(
    provider: Provider,
    market: str,
    spells: pd.DataFrame,
    span: dict[str, tuple[int, int]],
    notes: Notes,
) -> list[dict]:
    """Note faults of a list; its coverage by year."""
    calendar = provider.calendar
    names = sorted(set(spells["instrument"]))
    member = provider.membership(market, calendar, names)
    members = member.sum(axis=1)
    if not members.any():
        notes.add("universe-empty", f"{market}: on no day of the calendar", size=len(calendar))
        return []
    begin = int((members > 0).argmax())
    empty = begin + np.flatnonzero(members[begin:] == 0)
    if len(empty):
        days = f"{calendar[empty[0]]:%Y-%m-%d} to {calendar[empty[-1]]:%Y-%m-%d}"
        notes.add("universe-empty", f"{market}: {len(empty)} days, {days}", len(empty))

    # Days on which the membership differs from the day before, between the list's first day and
    # the end.
    changes = calendar[begin + 1 :][(member[begin + 1 :] != member[begin:-1]).any(axis=1)]
    if market != "all":
        edges = calendar[[begin]].append(changes).append(calendar[[-1]])
        for i in np.flatnonzero(edges[1:] - edges[:-1] > FROZEN):
            fixed = not len(changes) and market not in KNOWN_UNIVERSES
            stretch = f"{market}: {edges[i]:%Y-%m-%d} to {edges[i + 1]:%Y-%m-%d}"
            days = (edges[i + 1] - edges[i]).days
            notes.add("universe-fixed" if fixed else "universe-frozen", stretch, size=days)
    if len(changes) and (spells["end"] >= calendar[-1]).all() and market not in KNOWN_UNIVERSES:
        notes.add("universe-survivors", f"{market}: {len(names)} names, all there at the end")

    position = np.arange(len(calendar))[:, None]
    bounds = np.array([span.get(name, (len(calendar), -1)) for name in names])
    present = (position >= bounds[:, 0]) & (position <= bounds[:, 1])
    size = KNOWN_UNIVERSES[market][0] if market in KNOWN_UNIVERSES else members
    frame = pd.DataFrame(
        {"members": members, "known": (member & present).sum(axis=1), "full": size}, calendar
    )
    frame = frame[members > 0]
    rows = []
    for year, days in frame.groupby(frame.index.year):
        covered = float(days["known"].sum() / days["full"].sum())
        rows.append({"market": market, "year": int(year), "covered": covered,
                     "members": float(days["members"].mean())})  # fmt: skip
        if covered < LOW_COVERAGE:
            notes.add("coverage-low", f"{market} {year}: {covered:.1%}", size=1 - covered)
    return rows


def _check_benchmark(
    provider: Provider,
    markets: Sequence[str],
    lists: Mapping[str, pd.DataFrame],
    benchmark: str | None,
    notes: Notes,
) -> None:
    """The benchmark that is asked for must be there, one that is only usual should be, and neither
    is a name to hold. The list of everything may have it where there are others."""
    asked = benchmark or provider.manifest.get("benchmark")
    usual = [KNOWN_UNIVERSES[m][1] for m in markets if m in KNOWN_UNIVERSES]
    traded = [name for name in (markets or lists) if name in lists]
    for code in [asked] if asked else usual:
        for name in traded:
            if code.upper() in set(lists[name]["instrument"]):
                notes.add("benchmark-traded", f"{code} in {name}")
        if "close" not in provider.fields(code):
            notes.add("benchmark-missing" if asked else "benchmark-unknown", code)
            continue
        series = _read_fields(provider, code, Notes())
        gaps = ~np.isfinite(series.get("close", np.full(len(provider.calendar), np.nan)))
        if gaps.any():
            day = provider.calendar[gaps.argmax()]
            notes.add("benchmark-gaps", f"{code}: first {day:%Y-%m-%d}", gaps.sum())


def _coverage_table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["market", "year", "members", "covered"])


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")
