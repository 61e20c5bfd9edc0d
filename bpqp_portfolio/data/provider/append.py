"""New days for a provider that exists, from tables that repeat some of its last days as a proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...errors import ConfigError, DataError
from ...files.progress import progress_bar
from . import cleaning
from .cleaning import Fields, UnitEvidence, Units
from .indices import known_indices
from .manifest import extent
from .provider import Provider, write_calendar, write_series, write_universe
from .sources import Source, TableSource

TOLERANCE = {"volume": 1e-3, "amount": 1e-3}
"""Relative difference at which a repeated value counts as another one; 1e-4 of all other fields."""
SHOWN = 5
_DERIVED = ("change",)


@dataclass(frozen=True)
class _Conflict:
    """A repeated value that differs, relatively by ``size``, or a name with other prices at all."""

    size: float
    text: str


def extend(old: Provider, source: Source, root: Path, progress: bool = True) -> dict[str, Any]:
    """Write ``old`` and the days of ``source`` that follow its last into the empty folder ``root``.

    What ``source`` repeats of the old days is compared value by value, and what is stored of them
    stays bit for bit. Memberships that last to a name's last day go on to its new one; a new name
    joins the list ``all`` and those equal to it, unless its code is that of an index.

    Returns
    -------
    The new manifest; the folder stays empty where there is no new day, and the manifest is the old.

    Raises
    ------
    DataError
        No day in common, a day that the calendar lacks, values that differ (the largest difference
        first), adjusted prices whose factor changed since, or a field that ``source`` lacks.
    ConfigError
        ``old`` was not made by an import, or ``source`` is itself a provider.
    """
    manifest = old.manifest
    if not manifest.get("source_units"):
        raise ConfigError(
            f"append: {old.root} was not made by `bpqp data import`, so its units are not known; "
            "import it into a new folder first."
        )
    if not isinstance(source, TableSource):
        raise ConfigError("append: takes tables; import a provider as a whole, without --append.")
    new = _new_days(old, source)
    calendar = old.calendar.append(new)
    counts: Counter[str] = Counter(source.tables.counts)
    series, conflicts = _series(old, source, calendar, counts, progress)
    _refuse(conflicts, old)
    if not len(new):
        return manifest
    for name, fields in series.items():
        write_series(root, name, fields)
    write_calendar(root, calendar)
    _write_future(old, root, calendar)
    spans = {name: _span(fields, calendar) for name, fields in series.items()}
    universes = _lists(old, spans, manifest)
    for name, spells in universes.items():
        write_universe(root, name, spells)
    cleaned = Counter(manifest.get("cleaned", {})) + counts
    entry = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "start": f"{new[0]:%Y-%m-%d}",
        "end": f"{new[-1]:%Y-%m-%d}",
        "names": len(set(source.names)),
        "new_names": sorted(set(source.names) & set(spans) - set(old.names)),
        "ended": _ended(old, spans, calendar),
    }
    return {
        **manifest,
        **extent(calendar, universes, spans),
        "cleaned": {key: cleaned[key] for key in {*manifest.get("cleaned", {}), *cleaned}},
        "codes": {**manifest.get("codes", {}), **source.codes},
        "open_ended": list(source.open_ended),
        "appended": [*manifest.get("appended", []), entry],
    }


def _new_days(old: Provider, source: TableSource) -> pd.DatetimeIndex:
    """The source's days after the provider's last; all others must be days that it has."""
    last = old.calendar[-1]
    known = source.calendar[source.calendar <= last]
    if not len(known):
        raise DataError(
            f"append: the source begins on {source.calendar[0]:%Y-%m-%d}, after the provider's "
            f"last day. Let it begin with {last:%Y-%m-%d} or before: by the days in common its "
            "prices are compared, since a split in between would change all prices before it."
        )
    lacking = known.difference(old.calendar)
    if len(lacking):
        day = lacking[-1]
        name = next(n for n, f in source.tables.frames.items() if day in f.index)
        raise DataError(
            f"append: {day:%Y-%m-%d} ({name}, {source.tables.place(name, day)}) is no trading day "
            f"of the provider, which goes to {last:%Y-%m-%d}; import the whole history again, "
            "without --append."
        )
    return source.calendar[source.calendar > last]


def _series(
    old: Provider, source: TableSource, calendar: pd.DatetimeIndex, counts: Counter, progress: bool
) -> tuple[dict[str, Fields], list[_Conflict]]:
    """The fields of every name on the new calendar, and what contradicts the old ones."""
    units = _units(old, source)
    known = set(old.names)
    series: dict[str, Fields] = {}
    conflicts: list[_Conflict] = []
    names = sorted(known | set(source.names))
    with progress_bar("append", len(names), progress, "name") as bar:
        for name in names:
            bar.update()
            stored = {f: _extended(old.series(name, f), calendar) for f in old.fields(name)
                      } if name in known else {}  # fmt: skip
            if name not in source.names:
                series[name] = stored
                continue
            given = source.tables.read(name, calendar)
            first = calendar.get_loc(source.tables.frames[name].index[0])
            merged = _merged(stored, _in_units(given, units), first)
            fields = cleaning.clean(merged, Units("fraction"), counts if not stored else Counter())
            if not stored:
                if fields:
                    series[name] = fields
                continue
            lacking = sorted(stored.keys() - given.keys() - set(_DERIVED))
            if lacking:
                raise DataError(
                    f"append: the source has no {' and '.join(lacking)} of {name}, which the "
                    "provider has; add the columns."
                )
            days = len(old.calendar)
            conflicts += _compare(name, stored, fields, slice(first, days), old, source)
            series[name] = {
                f: np.concatenate([stored[f][:days], fields[f][days:]])
                if f in fields
                else stored[f]
                for f in stored
            }
    return series, conflicts


def _units(old: Provider, source: TableSource) -> Units:
    """The source's units: of change by its own evidence, of volume as at the first import."""
    evidence = UnitEvidence()
    for name in source.names:
        evidence.add(source.read(name))
    change = str(np.atleast_1d(evidence.units().change)[-1])
    return Units(change, str(old.manifest["source_units"]["volume"]))


def _in_units(fields: Fields, units: Units) -> Fields:
    """``fields`` with change as a fraction, and volume in shares."""
    out = dict(fields)
    if "change" in out:
        scale = {"fraction": 1.0, "percent": 0.01}.get(str(units.change), np.nan)
        out["change"] = out["change"] * np.float32(scale)
    if "volume" in out and units.volume == "hands":
        out["volume"] = out["volume"] * np.float32(100)
    return out


def _extended(values: np.ndarray, calendar: pd.DatetimeIndex) -> np.ndarray:
    return np.append(values, np.full(len(calendar) - len(values), np.nan, dtype=np.float32))


def _merged(stored: Fields, given: Fields, first: int) -> Fields:
    """The stored fields before day ``first`` and the given ones from there on."""
    if not stored:
        return given
    out = {}
    for field, values in stored.items():
        late = given.get(field, np.full(len(values), np.nan, dtype=np.float32))
        out[field] = np.concatenate([values[:first], late[first:]])
    return out


def _compare(
    name: str, stored: Fields, fields: Fields, days: slice, old: Provider, source: TableSource
) -> list[_Conflict]:
    """What the source repeats of ``days`` of a name and says otherwise."""
    both = [f for f in stored if f not in _DERIVED]
    if not fields:
        fields = {f: np.full(len(stored[f]), np.nan, dtype=np.float32) for f in both}
    before, now = ({f: x[f][days].astype(float) for f in both} for x in (stored, fields))
    dates = old.calendar[days]
    if not len(dates):
        # A name that was suspended on the provider's last day has none to repeat.
        traded = np.isfinite(stored["close"][len(old.calendar) - 1])
        return [_Conflict(0.0, f"{name}: no day in common with the provider")] if traded else []
    ratio = _one_ratio(before, now)
    if ratio is not None:
        return [
            _Conflict(
                abs(np.log(ratio)),
                f"{name}: all its prices from {dates[0]:%Y-%m-%d} on are {ratio:.6g} times the "
                f"provider's ({source.tables.place(name, dates[0])}), so they were adjusted anew",
            )
        ]
    out = []
    for field in both:
        a, b = before[field], now[field]
        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
        size[np.isnan(a) & np.isnan(b) | (a == b)] = 0.0
        size[np.isnan(a) != np.isnan(b)] = 1.0
        for i in np.flatnonzero(size > TOLERANCE.get(field, 1e-4)):
            has = dates[i] in source.tables.frames[name].index
            where = source.tables.place(name, dates[i]) if has else "no row of the source"
            out.append(
                _Conflict(
                    float(size[i]),
                    f"{name} {dates[i]:%Y-%m-%d}, {field} {a[i]:.7g} in the provider and "
                    f"{b[i]:.7g} in {where}",
                )
            )
    return out


def _one_ratio(before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]) -> float | None:
    """By what all prices differ, if by one factor other than one."""
    prices = [f for f in before if f in cleaning.PRICES]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.concatenate([now[f] / before[f] for f in prices])
    ratio = ratio[np.isfinite(ratio)]
    if not len(ratio) or ratio.min() <= 0:
        return None
    middle = float(np.median(ratio))
    same = np.abs(ratio / middle - 1).max() < 2e-4
    return middle if same and len(ratio) > 1 and abs(middle - 1) > 1e-4 else None


def _refuse(conflicts: list[_Conflict], old: Provider) -> None:
    if conflicts:
        conflicts = sorted(conflicts, key=lambda conflict: -conflict.size)
        shown = "; ".join(conflict.text for conflict in conflicts[:SHOWN])
        more = f"; and {len(conflicts) - SHOWN} more" if len(conflicts) > SHOWN else ""
        raise DataError(
            f"append: the source contradicts {old.root} on days that both have: {shown}{more}. "
            "Nothing was written. Import the whole history again, without --append: after a split "
            "or a dividend, adjusted prices change on all days before it."
        )


def _span(fields: Fields, calendar: pd.DatetimeIndex) -> pd.DatetimeIndex:
    days = np.flatnonzero(np.isfinite(fields["close"]))
    return calendar[days[[0, -1]]]


def _lists(
    old: Provider, spans: Mapping[str, pd.DatetimeIndex], manifest: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """The provider's lists, with memberships that go on and, in ``all`` and its like, new names."""
    held = [
        n for n in spans if n not in manifest.get("indices", []) and n not in known_indices([n])
    ]
    everything = old.spells("all") if "all" in old.markets else pd.DataFrame()
    was_last = {n: _span({"close": old.series(n, "close")}, old.calendar)[-1] for n in old.names}
    out = {}
    for market in old.markets:
        spells = old.spells(market)
        equal = spells.equals(everything)
        names = spells["instrument"]
        reaches = spells["end"] >= names.map(was_last)
        last = names.map({name: span[-1] for name, span in spans.items()})
        spells["end"] = last.where(reaches & (last > spells["end"]), spells["end"])
        new = [n for n in held if n not in set(old.names)] if equal else []
        rows = pd.DataFrame([(n, *spans[n]) for n in new], columns=["instrument", "start", "end"])
        out[market] = pd.concat([spells, rows], ignore_index=True) if new else spells
    return out


def _ended(
    old: Provider, spans: Mapping[str, pd.DatetimeIndex], calendar: pd.DatetimeIndex
) -> list[str]:
    """Names with a close on the old last day and none after it."""
    return sorted(name for name, span in spans.items() if span[-1] == old.calendar[-1])


def _write_future(old: Provider, root: Path, calendar: pd.DatetimeIndex) -> None:
    """Planned days stay as long as the new days are among them in order."""
    path = old.root / "calendars" / "day_future.txt"
    if path.is_file():
        days = pd.DatetimeIndex(pd.to_datetime(path.read_text().split(), format="%Y-%m-%d"))
        if days[: len(calendar)].equals(calendar):
            write_calendar(root, days, "day_future")
