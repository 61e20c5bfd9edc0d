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

from ...errors import ConfigError, ProviderError
from ...files.dates import FORM, iso_days
from .manifest import MANIFEST, write_manifest

FIELDS = ("open", "high", "low", "close", "volume", "change", "factor")
FUTURE = "day_future"
"""Calendar of days to come, in Qlib's layout: ``calendars/day_future.txt``."""
CODE = r"[^/\\\s.\x00-\x1f\x7f][^/\\\s\x00-\x1f\x7f]*"
"""Pattern of a code, which becomes a folder and a field of a tab-separated line."""
# Device names of Windows, which Qlib prefixes so that such a folder can exist there too.
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{d}{i}" for d in ("com", "lpt") for i in range(10)}


def folder_name(instrument: str) -> str:
    """Qlib's feature folder of ``instrument``: lower case, device names prefixed.

    >>> folder_name("SH600000"), folder_name("CON")
    ('sh600000', '_qlib_con')
    """
    name = instrument.lower()
    return f"_qlib_{name}" if name in _RESERVED else name


def read_series(path: Path) -> tuple[int, np.ndarray]:
    """First calendar position and float32 values, (days,), of one ``field.day.bin`` file.

    Raises
    ------
    ProviderError
        The file is unreadable, ends within a value or does not begin with a calendar position.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ProviderError(f"cannot read {path}: {error}") from error
    _check_size(path, len(content))
    data = np.frombuffer(content, dtype="<f4")
    start = data[0]
    if not (np.isfinite(start) and start >= 0 and start == int(start)):
        raise ProviderError(f"{path} does not begin with a calendar position (got {start}).")
    return int(start), data[1:]


def _check_size(path: Path, size: int) -> None:
    """Raise :class:`ProviderError` unless a feature file has whole values, and one at least."""
    if size % 4 or not size:
        raise ProviderError(
            f"{path} is cut short: {size} bytes, where each value has 4 and the first is the "
            "calendar position. Get it anew."
        )


def spread(start: int, values: np.ndarray, days: int, where: str) -> np.ndarray:
    """``values`` from position ``start`` on a calendar of ``days``, (days,) float32, NaN outside.

    Raises
    ------
    ProviderError
        The values run past the calendar; ``where`` names them in the message.
    """
    if start + len(values) > days:
        raise ProviderError(f"{where} runs {start + len(values) - days} days past the calendar.")
    out = np.full(days, np.nan, dtype=np.float32)
    out[start : start + len(values)] = values
    return out


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
        """This provider.

        Raises
        ------
        ProviderError
            There is none; the message names the commands that make one.
        """
        missing = [
            part
            for part in ("calendars/day.txt", "instruments", "features")
            if not (self.root / part).exists()
        ]
        if missing:
            raise ProviderError(
                f"no Qlib provider at {self.root} (missing: {', '.join(missing)}). Get one with "
                f"`bpqp data csi300`, `bpqp data import SOURCE --to {self.root}` or "
                f"`bpqp data simulate --to {self.root}`, and point BPQP_PROVIDER_URI at it."
            )
        return self

    @cached_property
    def calendar(self) -> pd.DatetimeIndex:
        """The trading days, (T,), as the file has them.

        Raises
        ------
        ProviderError
            The file is absent, or a line is no date.
        """
        return self._days("day")

    def next_day(self, date: pd.Timestamp) -> pd.Timestamp | None:
        """The trading day after ``date``; None where the calendar ends before it.

        Days to come are those of ``calendars/day_future.txt``, Qlib's file for them, where there
        is one.

        Raises
        ------
        ProviderError
            As of :attr:`calendar`.
        """
        names = [n for n in ("day", FUTURE) if (self.root / "calendars" / f"{n}.txt").is_file()]
        for days in map(self._days, names):
            if len(later := days[days > date]):
                return later[0]
        return None

    def _days(self, name: str) -> pd.DatetimeIndex:
        path = self.root / "calendars" / f"{name}.txt"
        try:
            lines = path.read_text().split()
        except (OSError, ValueError) as error:
            raise ProviderError(f"cannot read the calendar {path}: {error}") from error
        days = pd.DatetimeIndex(iso_days(pd.Series(lines, dtype=str)))
        if days.hasnans:
            line = int(np.flatnonzero(days.isna())[0])
            raise ProviderError(
                f"cannot read the calendar {path}: line {line + 1}, {lines[line]!r}, is no date of "
                f"the form {FORM}."
            )
        return days

    @property
    def markets(self) -> list[str]:
        """Names of the instrument lists, ``all`` among them."""
        return sorted(p.stem for p in (self.root / "instruments").glob("*.txt"))

    def spells(self, market: str = "all") -> pd.DataFrame:
        """Membership spells: columns ``instrument``, ``start``, ``end`` (inclusive).

        Raises
        ------
        ProviderError
            There is no such list, or a line of it is malformed.
        """
        path = self.root / "instruments" / f"{market}.txt"
        if not path.is_file():
            known = ", ".join(self.markets) or "none"
            raise ProviderError(f"no universe {market!r} in {self.root}; it has: {known}.")
        try:
            # A code may be "NA" or "NULL", which pandas would take for a missing value.
            frame = pd.read_csv(
                path, sep="\t", header=None, dtype=str, usecols=[0, 1, 2], keep_default_na=False
            )
            frame.columns = ["instrument", "start", "end"]
            frame["instrument"] = frame["instrument"].str.upper()
            said = frame.copy()
            for column in ("start", "end"):
                days = pd.to_datetime(frame[column], format="ISO8601", errors="coerce")
                frame[column] = days
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
        if frame.isna().any(axis=None):
            line = int(np.flatnonzero(frame.isna().any(axis=1))[0])
            got = ", ".join(map(str, said.iloc[line]))
            raise ProviderError(
                f"{path}, line {line + 1}: expected CODE<TAB>first day<TAB>last day, days as "
                f"YYYY-MM-DD; got {got}."
            )
        wrong = ~frame["instrument"].str.fullmatch(CODE)
        if wrong.any():
            line = int(np.flatnonzero(wrong)[0])
            raise ProviderError(
                f"{path}, line {line + 1}: {frame['instrument'][line][:40]!r} is no code; use "
                "letters, digits and - _ ^ . without spaces, slashes or control characters."
            )
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

    @property
    def names(self) -> list[str]:
        """Codes of the feature folders that Qlib sees, those in lower case."""
        lower = (folder for folder in self.folders if folder == folder.lower())
        return [folder.removeprefix("_qlib_").upper() for folder in lower]

    def fields(self, instrument: str) -> list[str]:
        """Fields that ``instrument`` has."""
        folder = self.root / "features" / folder_name(instrument)
        return sorted(p.name.removesuffix(".day.bin") for p in folder.glob("*.day.bin"))

    def has(self, instrument: str, field: str) -> bool:
        """Is there a file of ``field`` for ``instrument``?"""
        folder = self.root / "features" / folder_name(instrument)
        return (folder / f"{field}.day.bin").is_file()

    def raw(self, instrument: str, field: str) -> tuple[int, np.ndarray]:
        """First calendar position and the float32 values of one series, as stored."""
        return read_series(self.root / "features" / folder_name(instrument) / f"{field}.day.bin")

    def series(self, instrument: str, field: str) -> np.ndarray:
        """One series on the whole calendar, (T,) float32, NaN outside what is stored."""
        start, values = self.raw(instrument, field)
        where = f"{instrument} {field} in {self.root}"
        return spread(start, values, len(self.calendar), where)

    def frame(self, field: str, names: Iterable[str]) -> pd.DataFrame:
        """(T, n) table of ``field``, float32.

        Raises
        ------
        ProviderError
            A name has no such file, or it cannot be read.
        """
        names = list(names)
        data = np.column_stack([self.series(name, field) for name in names]) if names else None
        return pd.DataFrame(data, index=self.calendar, columns=names)

    @property
    def manifest(self) -> dict:
        """What an import wrote about itself; empty for a provider made elsewhere.

        Raises
        ------
        ProviderError
            The file is damaged.
        """
        path = self.root / MANIFEST
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            raise ProviderError(f"{path} is damaged: {error}") from error

    def fingerprint(self) -> str:
        """A key that changes when any file does (names, sizes, times; lists by content).

        Raises
        ------
        ProviderError
            A feature file ends within a value: Qlib, which reads some, would lose it in silence.
        """
        digest = hashlib.sha256()
        for folder in ("calendars", "instruments"):
            for path in sorted((self.root / folder).glob("*.txt")):
                digest.update(f"{path.name}\0".encode() + path.read_bytes())
        for path in sorted((self.root / "features").rglob("*.bin")):
            stat = path.stat()
            _check_size(path, stat.st_size)
            relative = path.relative_to(self.root)
            digest.update(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()


def check_target(to: Path) -> None:
    """Raise :class:`ConfigError` unless ``to`` is absent, empty or a provider to be replaced."""
    to = Path(to).expanduser()
    if to.exists() and not to.is_dir():
        raise ConfigError(f"{to} is a file; name a folder.")
    parts = (to / "calendars", to / "features")
    if to.exists() and any(to.iterdir()) and not all(part.is_dir() for part in parts):
        raise ConfigError(
            f"{to} is not empty and holds no Qlib provider, so it is not replaced: name a new "
            "folder, or empty this one first."
        )


def write_series(root: Path, instrument: str, fields: Mapping[str, np.ndarray]) -> None:
    """Write the feature files of one name, each field (T,) on the provider's whole calendar.

    Stored as float32 from the first to the last day on which any field has a value.

    Raises
    ------
    ProviderError
        The folder exists: two names differ in case only.
    """
    table = np.stack([np.asarray(values).astype("<f4") for values in fields.values()])
    days = np.flatnonzero(~np.isnan(table).all(axis=0))
    first, last = (days[0], days[-1]) if len(days) else (0, table.shape[1] - 1)
    folder = Path(root) / "features" / folder_name(instrument)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ProviderError(f"two instruments would share the folder {folder.name!r}.") from None
    position = np.array([first], dtype="<f4")
    for field, values in zip(fields, table[:, first : last + 1], strict=True):
        np.concatenate([position, values]).tofile(folder / f"{field}.day.bin")


def write_universe(root: Path, market: str, spells: pd.DataFrame) -> None:
    """Write ``instruments/MARKET.txt`` from columns ``instrument``, ``start``, ``end``."""
    lines = (
        f"{row.instrument.upper()}\t{row.start:%Y-%m-%d}\t{row.end:%Y-%m-%d}\n"
        for row in spells.itertuples(index=False)
    )
    path = Path(root) / "instruments" / f"{market}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


def write_calendar(root: Path, calendar: pd.DatetimeIndex, name: str = "day") -> None:
    """Write ``calendars/NAME.txt``.

    Raises
    ------
    ProviderError
        There are no days, or they do not increase.
    """
    calendar = pd.DatetimeIndex(calendar)
    if not len(calendar):
        raise ProviderError("the calendar is empty; a provider needs at least one trading day.")
    late = np.flatnonzero(calendar[1:] <= calendar[:-1])
    if len(late):
        before, day = calendar[late[0]], calendar[late[0] + 1]
        raise ProviderError(
            f"the calendar must increase strictly, but {day:%Y-%m-%d} follows "
            f"{before:%Y-%m-%d}. Feature files count its lines, so build the provider anew."
        )
    path = Path(root) / "calendars" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{day:%Y-%m-%d}\n" for day in calendar))


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

    Raises
    ------
    ProviderError
        The calendar does not increase strictly, or a name has a date twice, a date outside the
        calendar, or the folder of another name.
    """
    write_calendar(root, calendar)
    for market, spells in universes.items():
        write_universe(root, market, spells)
    for name, frame in series.items():
        position = calendar.get_indexer(frame.index)
        if (position < 0).any():
            day = frame.index[position < 0][0]
            raise ProviderError(f"{name}: {day:%Y-%m-%d} is no trading day.")
        if frame.index.has_duplicates:
            day = frame.index[frame.index.duplicated()][0]
            raise ProviderError(f"{name}: {day:%Y-%m-%d} comes twice.")
        table = np.full((frame.shape[1], len(calendar)), np.nan)
        table[:, position] = frame.to_numpy(dtype=np.float64).T
        write_series(root, name, dict(zip(frame.columns, table, strict=True)))
    if manifest is not None:
        write_manifest(root, manifest)
    return Provider(root)
