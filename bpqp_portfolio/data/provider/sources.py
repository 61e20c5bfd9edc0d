"""What an import reads: a Qlib provider, or tables, in a folder or some folders below it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from ...errors import DataError
from ...markets.codes import qlib_code
from . import tables
from .cleaning import Fields
from .provider import Provider, read_series, spread
from .table_file import Reading, is_table

MAX_DEPTH = 3  # folders above the provider, or the tables, in an archive or a folder
_SUFFIX = ".day.bin"


class Source(ABC):
    """What an import reads; ``kind`` says what it is."""

    kind: str

    @property
    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that it consists of."""

    @property
    def future(self) -> pd.DatetimeIndex | None:
        """The calendar with planned days, where it has one."""
        return None

    @property
    def ignored(self) -> Sequence[str]:
        """Columns that are left out."""
        return ()

    @property
    def open_ended(self) -> Sequence[str]:
        """Files that may be cut off."""
        return ()

    @property
    def maybe_lots(self) -> Sequence[str]:
        """Files whose volumes may be in lots of 100 shares."""
        return ()

    @property
    @abstractmethod
    def calendar(self) -> pd.DatetimeIndex:
        """Its trading days, (T,)."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The codes that it has, as they are written to the provider."""

    @property
    @abstractmethod
    def codes(self) -> dict[str, str]:
        """Codes that are rewritten as Qlib writes them."""

    @abstractmethod
    def read(self, name: str) -> Fields:
        """The fields of ``name``, each (T,) float32, NaN where it has none."""

    @abstractmethod
    def universes(self, counts: Counter) -> dict[str, pd.DataFrame]:
        """Its lists; ``counts`` is added what was mended."""


@dataclass(frozen=True)
class ProviderSource(Source):
    """A Qlib provider of any quality; minute data and caches in it are left out."""

    root: Path
    reading: Reading
    kind: str = "Qlib provider"

    @cached_property
    def calendar(self) -> pd.DatetimeIndex:
        return Provider(self.root).calendar

    @cached_property
    def future(self) -> pd.DatetimeIndex | None:
        """The calendar with planned days (``day_future.txt``), which must continue the calendar.

        Raises
        ------
        DataError
            It does not, or cannot be read.
        """
        path = self.root / "calendars" / "day_future.txt"
        if not path.is_file():
            return None
        try:
            days = pd.DatetimeIndex(pd.to_datetime(path.read_text().split(), format="%Y-%m-%d"))
        except ValueError as error:
            raise DataError(f"cannot read day_future.txt of the source: {error}") from error
        if not days[: len(self.calendar)].equals(self.calendar):
            raise DataError(
                "day_future.txt of the source does not begin with the days of day.txt; mend or "
                "remove it (it is optional)."
            )
        return days

    @cached_property
    def folders(self) -> dict[str, Path]:
        """The feature folder of each code.

        Raises
        ------
        DataError
            Two folders have one code.
        """
        folders: dict[str, Path] = {}
        for path in sorted((self.root / "features").iterdir()):
            if not path.is_dir() or path.name.startswith("."):
                continue
            name = self._code(path.name.upper().removeprefix("_QLIB_"))
            if name in folders:
                raise DataError(
                    f"the provider has two folders for {name}: {folders[name].name} and "
                    f"{path.name}; remove one of them."
                )
            folders[name] = path
        return folders

    def _code(self, code: str) -> str:
        return code if self.reading.keep_codes else qlib_code(code)

    @property
    def names(self) -> list[str]:
        return list(self.folders)

    @property
    def codes(self) -> dict[str, str]:
        given = {
            folder.name.upper().removeprefix("_QLIB_"): n for n, folder in self.folders.items()
        }
        return {code: name for code, name in given.items() if code != name}

    @cached_property
    def files(self) -> list[Path]:
        lists = [*(self.root / "calendars").glob("day*.txt"), *self._lists()]
        return lists + [f for folder in self.folders.values() for f in folder.glob("*" + _SUFFIX)]

    def _lists(self) -> list[Path]:
        return sorted((self.root / "instruments").glob("*.txt"))

    def read(self, name: str) -> Fields:
        out = {}
        for path in sorted(self.folders[name].glob("*" + _SUFFIX)):
            start, values = read_series(path)
            field = path.name.removesuffix(_SUFFIX).lower()
            out[field] = spread(start, values, len(self.calendar), f"{name} {field}")
        return out

    def universes(self, counts: Counter) -> dict[str, pd.DataFrame]:
        out = {}
        for path in self._lists():
            spells = Provider(self.root).spells(path.stem)
            spells["instrument"] = spells["instrument"].map(self._code)
            kept = spells[spells["start"] <= spells["end"]].drop_duplicates(ignore_index=True)
            counts["universe_lines_dropped"] += len(spells) - len(kept)
            out[path.stem.lower()] = kept  # Qlib asks for lists by lower-case names
        return out


@dataclass(frozen=True)
class TableSource(Source):
    """CSV or Parquet files of daily bars."""

    paths: list[Path]
    reading: Reading
    progress: bool
    kind: str = "CSV or Parquet tables"

    @property
    def files(self) -> list[Path]:
        return self.paths

    @cached_property
    def tables(self) -> tables.Tables:
        return tables.read_tables(self.paths, self.reading, progress=self.progress)

    @property
    def calendar(self) -> pd.DatetimeIndex:
        return self.tables.calendar

    @property
    def names(self) -> list[str]:
        return list(self.tables.frames)

    @property
    def ignored(self) -> list[str]:
        return self.tables.ignored

    @property
    def codes(self) -> dict[str, str]:
        return self.tables.codes

    @property
    def open_ended(self) -> list[str]:
        return self.tables.open_ended

    @property
    def maybe_lots(self) -> list[str]:
        return self.tables.maybe_lots

    def read(self, name: str) -> Fields:
        return self.tables.read(name)

    def universes(self, counts: Counter) -> dict[str, pd.DataFrame]:
        counts.update(self.tables.counts)
        return {}


def locate(place: Path, reading: Reading, progress: bool) -> Source:
    """The provider, or else the tables, in ``place`` or in the folders below it.

    Raises
    ------
    DataError
        There is neither, or several.
    """
    if place.is_file():
        return TableSource([place], reading, progress)
    levels = [[place]]
    for depth in range(MAX_DEPTH + 1):
        providers = [folder for folder in levels[depth] if _is_provider(folder)]
        if providers:
            return ProviderSource(_only(providers, place), reading)
        levels.append([child for folder in levels[depth] for child in _subfolders(folder)])
    for level in levels[:-1]:
        with_tables = [folder for folder in level if _tables_in(folder)]
        if with_tables:
            return TableSource(_tables_in(_only(with_tables, place)), reading, progress)
    raise DataError(
        "the source holds neither a Qlib provider (calendars/day.txt and features/) nor CSV or "
        f"Parquet files, down to {MAX_DEPTH} folders below it."
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith((".", "__MACOSX"))
    )


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and is_table(path))


def _is_provider(folder: Path) -> bool:
    return (folder / "calendars" / "day.txt").is_file() and (folder / "features").is_dir()


def _only(folders: list[Path], place: Path) -> Path:
    if len(folders) > 1:
        names = ", ".join(str(folder.relative_to(place)) for folder in folders[:5])
        raise DataError(f"the source holds several data sets ({names}); import one of them.")
    return folders[0]
