"""A Qlib provider as files: calendar, instruments and one float32 file per name and field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ProviderError

FIELDS = ("open", "high", "low", "close", "volume", "change", "factor")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Provider:
    """The daily Qlib provider in the folder ``root``.

    Layout (Qlib's): ``calendars/day.txt``, one date a line; ``instruments/NAME.txt``, lines of
    ``CODE<TAB>first<TAB>last``; ``features/code/field.day.bin``, little-endian float32, the first
    of them the calendar position at which the series begins.

    Raises
    ------
    ProviderError
        From the readers, where a file is absent or unreadable.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser())

    def require(self) -> Provider:
        """This provider, or a :class:`ProviderError` that says how to get one."""
        missing = [
            part
            for part in ("calendars/day.txt", "instruments", "features")
            if not (self.root / part).exists()
        ]
        if missing:
            raise ProviderError(
                f"no Qlib provider at {self.root} (missing: {', '.join(missing)}). Get one with "
                f"`bpqp data csi300`, `bpqp data import SOURCE --to {self.root}` or "
                f"`bpqp data demo --to {self.root}`, and point BPQP_PROVIDER_URI at it."
            )
        return self

    @cached_property
    def calendar(self) -> pd.DatetimeIndex:
        """The trading days, (T,), as the file has them."""
        path = self.root / "calendars" / "day.txt"
        try:
            lines = path.read_text().split()
            return pd.DatetimeIndex(pd.to_datetime(lines, format="%Y-%m-%d"))
        except (OSError, ValueError) as error:
            raise ProviderError(f"cannot read the calendar {path}: {error}") from error

    @property
    def markets(self) -> list[str]:
        """Names of the instrument lists, ``all`` among them."""
        return sorted(p.stem for p in (self.root / "instruments").glob("*.txt"))

    def spells(self, market: str = "all") -> pd.DataFrame:
        """Membership spells: columns ``instrument``, ``start``, ``end`` (inclusive)."""
        path = self.root / "instruments" / f"{market}.txt"
        if not path.is_file():
            known = ", ".join(self.markets) or "none"
            raise ProviderError(f"no universe {market!r} in {self.root}; it has: {known}.")
        try:
            frame = pd.read_csv(path, sep="\t", header=None, dtype=str, usecols=[0, 1, 2])
            frame.columns = ["instrument", "start", "end"]
            frame["instrument"] = frame["instrument"].str.upper()
            for column in ("start", "end"):
                frame[column] = pd.to_datetime(frame[column])
        except pd.errors.EmptyDataError:
            return pd.DataFrame(
                {
                    "instrument": pd.Series(dtype=str),
                    "start": pd.Series(dtype="datetime64[ns]"),
                    "end": pd.Series(dtype="datetime64[ns]"),
                }
            )
        except ValueError as error:
            raise ProviderError(f"cannot read the universe {path}: {error}") from error
        return frame

    def membership(self, market: str, dates: pd.DatetimeIndex, names: Iterable[str]) -> np.ndarray:
        """Boolean (T, n): is the name a member of ``market`` on the day?"""
        position = {name: i for i, name in enumerate(names)}
        member = np.zeros((len(dates), len(position)), dtype=bool)
        for row in self.spells(market).itertuples(index=False):
            if row.instrument in position:
                first = dates.searchsorted(row.start, side="left")
                last = dates.searchsorted(row.end, side="right")
                member[first:last, position[row.instrument]] = True
        return member

    @property
    def folders(self) -> list[str]:
        """Names of the feature folders, as they are on disk."""
        return sorted(p.name for p in (self.root / "features").iterdir() if p.is_dir())

    def fields(self, instrument: str) -> list[str]:
        """Fields that ``instrument`` has."""
        folder = self.root / "features" / instrument.lower()
        return sorted(p.name.removesuffix(".day.bin") for p in folder.glob("*.day.bin"))

    def raw(self, instrument: str, field: str) -> tuple[int, np.ndarray]:
        """First calendar position and the float32 values of one series, as stored."""
        path = self.root / "features" / instrument.lower() / f"{field}.day.bin"
        try:
            data = np.fromfile(path, dtype="<f4")
        except OSError as error:
            raise ProviderError(f"cannot read {path}: {error}") from error
        if not len(data):
            return 0, data
        start = data[0]
        if not (np.isfinite(start) and start >= 0 and start == int(start)):
            raise ProviderError(f"{path} does not begin with a calendar position (got {start}).")
        return int(start), data[1:]

    def series(self, instrument: str, field: str) -> np.ndarray:
        """One series on the whole calendar, (T,) float32, NaN outside what is stored."""
        out = np.full(len(self.calendar), np.nan, dtype=np.float32)
        start, values = self.raw(instrument, field)
        if start + len(values) > len(out):
            raise ProviderError(
                f"{instrument} {field} in {self.root} runs {start + len(values) - len(out)} days "
                "past the calendar."
            )
        out[start : start + len(values)] = values
        return out

    def frame(self, field: str, names: Iterable[str]) -> pd.DataFrame:
        """(T, n) table of ``field``; a name without the file is an error."""
        names = list(names)
        data = np.column_stack([self.series(name, field) for name in names]) if names else None
        return pd.DataFrame(data, index=self.calendar, columns=names)

    @property
    def manifest(self) -> dict:
        """What an import wrote about itself; empty for a provider made elsewhere."""
        path = self.root / MANIFEST
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            raise ProviderError(f"{path} is damaged: {error}") from error

    def fingerprint(self) -> str:
        """A key that changes when any file does (names, sizes, times; lists by content)."""
        digest = hashlib.sha256()
        for folder in ("calendars", "instruments"):
            for path in sorted((self.root / folder).glob("*.txt")):
                digest.update(f"{path.name}\0".encode() + path.read_bytes())
        for path in sorted((self.root / "features").rglob("*.bin")):
            stat = path.stat()
            relative = path.relative_to(self.root)
            digest.update(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()


def write_provider(
    root: Path,
    calendar: pd.DatetimeIndex,
    series: Mapping[str, pd.DataFrame],
    universes: Mapping[str, pd.DataFrame],
    manifest: Mapping | None = None,
) -> Provider:
    """Write a provider into the empty folder ``root``.

    Parameters
    ----------
    calendar : trading days, strictly increasing.
    series : name → frame indexed by dates of the calendar, one column a field.
    universes : list name → frame with columns ``instrument``, ``start``, ``end``.
    manifest : written as ``manifest.json`` where given.
    """
    root = Path(root)
    if not calendar.is_monotonic_increasing or calendar.has_duplicates:
        raise ProviderError("the calendar must be strictly increasing.")
    (root / "calendars").mkdir(parents=True)
    (root / "instruments").mkdir()
    (root / "features").mkdir()
    (root / "calendars" / "day.txt").write_text("".join(f"{d:%Y-%m-%d}\n" for d in calendar))
    for market, spells in universes.items():
        lines = (f"{r.instrument}\t{r.start:%Y-%m-%d}\t{r.end:%Y-%m-%d}\n"
                 for r in spells.itertuples(index=False))  # fmt: skip
        (root / "instruments" / f"{market}.txt").write_text("".join(lines))
    for name, frame in series.items():
        position = calendar.get_indexer(frame.index)
        if (position < 0).any():
            raise ProviderError(
                f"{name}: {frame.index[position < 0][0]:%Y-%m-%d} is no trading day."
            )
        folder = root / "features" / name.lower()
        folder.mkdir()
        first, last = position.min(), position.max()
        for field in frame.columns:
            values = np.full(last - first + 2, np.nan, dtype="<f4")
            values[0] = first
            values[1 + position - first] = frame[field].to_numpy(dtype=np.float64)
            values.tofile(folder / f"{field}.day.bin")
    if manifest is not None:
        (root / MANIFEST).write_text(json.dumps(dict(manifest), indent=2, sort_keys=True) + "\n")
    return Provider(root)
