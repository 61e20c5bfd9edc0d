"""A clean Qlib provider from an archive or a folder, of a provider or of CSV and Parquet files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...config import nearest
from ...errors import ConfigError, DataError
from ...files.archive import is_archive, unpack
from ...files.atomic import replacing_folder, scratch_folder
from ...files.digests import sha256_of, sha256_of_files
from ...files.progress import progress_bar
from . import cleaning, tables
from .cleaning import Fields, UnitEvidence
from .indices import alike_indices, known_indices
from .manifest import extent, write_manifest
from .provider import (
    Provider,
    check_target,
    read_series,
    spread,
    write_calendar,
    write_series,
    write_universe,
)

MAX_DEPTH = 3  # folders above the provider, or the tables, in an archive or a folder
_SUFFIX = ".day.bin"


@dataclass(frozen=True)
class _ProviderSource:
    """A Qlib provider of any quality; minute data and caches in it are left out."""

    root: Path
    kind: str = "Qlib provider"
    ignored: tuple[str, ...] = ()

    @cached_property
    def calendar(self) -> pd.DatetimeIndex:
        return Provider(self.root).calendar

    @cached_property
    def future(self) -> pd.DatetimeIndex | None:
        """The calendar with planned days (``day_future.txt``), which must continue the calendar."""
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
        folders: dict[str, Path] = {}
        for path in sorted((self.root / "features").iterdir()):
            if not path.is_dir() or path.name.startswith("."):
                continue
            name = path.name.upper().removeprefix("_QLIB_")
            if name in folders:
                raise DataError(
                    f"the provider has two folders for {name}: {folders[name].name} and "
                    f"{path.name}; remove one of them."
                )
            folders[name] = path
        return folders

    @property
    def names(self) -> list[str]:
        return list(self.folders)

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
            kept = spells[spells["start"] <= spells["end"]].drop_duplicates(ignore_index=True)
            counts["universe_lines_dropped"] += len(spells) - len(kept)
            out[path.stem.lower()] = kept  # Qlib asks for lists by lower-case names
        return out


@dataclass(frozen=True)
class _TableSource:
    """CSV or Parquet files of daily bars."""

    files: list[Path]
    progress: bool
    kind: str = "CSV or Parquet tables"
    future: None = None

    @cached_property
    def tables(self) -> tables.Tables:
        return tables.read_tables(self.files, progress=self.progress)

    @property
    def calendar(self) -> pd.DatetimeIndex:
        return self.tables.calendar

    @property
    def names(self) -> list[str]:
        return list(self.tables.frames)

    @property
    def ignored(self) -> list[str]:
        return self.tables.ignored

    def read(self, name: str) -> Fields:
        return self.tables.read(name)

    def universes(self, counts: Counter) -> dict[str, pd.DataFrame]:
        counts.update(self.tables.counts)
        return {}


# Both give ``kind``, ``files``, ``calendar``, ``future``, ``names`` and ``ignored`` columns, the
# fields of a name on the calendar by ``read``, and lists by ``universes``.
_Source = _ProviderSource | _TableSource


def import_provider(
    source: Path | str,
    to: Path | str,
    *,
    market: str | None = None,
    index: Sequence[str] | None = None,
    progress: bool = True,
) -> Provider:
    """Write a clean Qlib provider into the folder ``to`` from ``source``, all of it or nothing.

    ``source`` is a tar or zip archive, or a folder, that holds a Qlib provider (possibly some
    folders down) or CSV and Parquet files of daily bars (see :func:`.tables.read_tables`), or one
    such file. Feature folders are lower case and codes upper case; ``change`` is a fraction;
    suspended days are NaN in every field but ``factor`` (see :func:`.cleaning.clean`); a list
    ``all`` is made from the dates where there is none. ``manifest.json`` records what came from
    where and what was corrected. An existing provider at ``to`` is replaced at the very end.

    Parameters
    ----------
    market : also write the list ``all`` under this name.
    index : codes that are indices, to compare with and never to hold: they have prices and are in
        no list. By default those with the code of one (``SPX``, ``^DJI``, ``SH000300``) are left
        out of the lists that are made here; an empty sequence is none. The manifest has them as
        ``indices``, and as ``maybe_indices`` what is held and moves like the mean of all others.
    progress : show progress on a terminal.

    Raises
    ------
    DataError
        The source is absent, damaged, unsafe to unpack, of no known layout or inconsistent;
        or ``to`` cannot be written.
    ConfigError
        ``to`` is a file, holds something that is no provider, or lies inside ``source``; an index
        that the source does not have.
    """
    source, to = Path(source).expanduser(), Path(to).expanduser()
    if not source.exists():
        raise DataError(f"no such file or folder: {source}.")
    check_target(to)
    if source.resolve() in to.resolve().parents:
        raise ConfigError(f"{to} lies inside the source; name a folder outside {source}.")
    try:
        return install(source, to, market=market, index=index, progress=progress)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot write the provider to {to}: {error}.") from error


def install(
    source: Path,
    to: Path,
    *,
    market: str | None = None,
    index: Sequence[str] | None = None,
    progress: bool = True,
    origin: dict | None = None,
) -> Provider:
    """:func:`import_provider` after its checks; ``origin`` overrides entries of the manifest.

    Raises
    ------
    DataError, ConfigError
        As :func:`import_provider`.
    OSError
        While writing.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        fresh = stack.enter_context(replacing_folder(to))
        manifest: dict[str, Any] = {"source": source.resolve().name}
        place = source
        if source.is_file() and not tables.is_table(source):
            if not is_archive(source):
                raise DataError(
                    f"{source.name} is neither an archive (tar, zip) nor a CSV or Parquet file."
                )
            manifest |= {"sha256": sha256_of(source), "archive_bytes": source.stat().st_size}
            # Beside the target: the same disk, and not the small /tmp of many machines.
            place = stack.enter_context(scratch_folder(to))
            unpack(source, place / "content", progress=progress)
            place = place / "content"
        found = _locate(place, progress)
        if "sha256" not in manifest:
            manifest |= {"sha256": sha256_of_files(found.files, place), "files": len(found.files)}
        manifest |= _write(found, fresh, market, index, progress) | (origin or {})
        write_manifest(fresh, manifest)
    return Provider(to)


def _locate(place: Path, progress: bool) -> _Source:
    """The provider, or else the tables, in ``place`` or in the folders below it."""
    if place.is_file():
        return _TableSource([place], progress)
    levels = [[place]]
    for depth in range(MAX_DEPTH + 1):
        providers = [folder for folder in levels[depth] if _is_provider(folder)]
        if providers:
            return _ProviderSource(_only(providers, place))
        levels.append([child for folder in levels[depth] for child in _subfolders(folder)])
    for level in levels[:-1]:
        with_tables = [folder for folder in level if _tables_in(folder)]
        if with_tables:
            return _TableSource(_tables_in(_only(with_tables, place)), progress)
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
    return sorted(path for path in folder.iterdir() if path.is_file() and tables.is_table(path))


def _is_provider(folder: Path) -> bool:
    return (folder / "calendars" / "day.txt").is_file() and (folder / "features").is_dir()


def _only(folders: list[Path], place: Path) -> Path:
    if len(folders) > 1:
        names = ", ".join(str(folder.relative_to(place)) for folder in folders[:5])
        raise DataError(f"the source holds several data sets ({names}); import one of them.")
    return folders[0]


def _write(
    source: _Source, root: Path, market: str | None, index: Sequence[str] | None, progress: bool
) -> dict:
    """Clean ``source`` into the empty folder ``root``; the manifest's account of it."""
    write_calendar(root, source.calendar)
    counts = Counter(dict.fromkeys((*cleaning.COUNTS, "universe_lines_dropped"), 0))
    universes = source.universes(counts)
    if source.future is not None:
        write_calendar(root, source.future, "day_future")
    units = _units(source, progress)

    spans: dict[str, pd.DatetimeIndex] = {}
    fields: Counter[str] = Counter()
    left_out = []
    returns: dict[str, np.ndarray] = {}
    with progress_bar("import", len(source.names), progress, "name") as bar:
        for name in source.names:
            series = cleaning.clean(source.read(name), units, counts)
            if series:
                write_series(root, name, series)
                fields.update(series.keys())
                returns[name] = series["change"]
                days = np.flatnonzero(np.isfinite(series["close"]))
                spans[name] = source.calendar[days[[0, -1]]]
            else:
                left_out.append(name)
            bar.update()
    if not spans:
        raise DataError("the source holds no day with a positive close.")

    universes, indices, maybe = _lists(universes, spans, returns, index)
    if market is not None:
        _check_market(market, universes)
        universes[market] = universes["all"]
    for name, spells in universes.items():
        write_universe(root, name, spells)
    return {
        "kind": source.kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **extent(source.calendar, universes, spans),
        "without_prices": left_out,
        "indices": indices,
        "maybe_indices": maybe,
        **({"benchmark": indices[0]} if index and len(indices) == 1 else {}),
        "fields": dict(fields),
        "source_units": {
            what: str(np.atleast_1d(unit)[-1])
            for what, unit in (("change", units.change), ("volume", units.volume))
        },
        "cleaned": dict(counts),
        "ignored_columns": list(source.ignored),
    }


def _units(source: _Source, progress: bool) -> cleaning.Units:
    """The units of ``source``, from all its names."""
    evidence = UnitEvidence()
    with progress_bar("units", len(source.names), progress, "name") as bar:
        for name in source.names:
            evidence.add(source.read(name))
            bar.update()
    return evidence.units()


def _lists(
    universes: dict[str, pd.DataFrame],
    spans: dict[str, pd.DatetimeIndex],
    returns: dict[str, np.ndarray],
    index: Sequence[str] | None,
) -> tuple[dict[str, pd.DataFrame], list[str], list[str]]:
    """The lists without the indices and with ``all``; the indices; names that look like one."""
    indices = _indices(index, spans)
    if index:
        universes = {k: v[~v["instrument"].isin(indices)] for k, v in universes.items()}
    universes.setdefault("all", _spells({k: v for k, v in spans.items() if k not in indices}))
    if index is not None:
        return universes, indices, []
    # The list of everything is no universe to hold where there are others.
    lists = {k: v for k, v in universes.items() if k != "all"} or universes
    held = set().union(*(spells["instrument"] for spells in lists.values()))
    maybe = sorted({*indices, *alike_indices(returns)} & held)
    return universes, [name for name in indices if name not in held], maybe


def _indices(index: Sequence[str] | None, names: Collection[str]) -> list[str]:
    """Codes of the source's indices: those given, or those with the code of one."""
    if index is None:
        return known_indices(names)
    codes = sorted({code.upper() for code in index})
    for code in codes:
        if code not in names:
            raise ConfigError(f"index: the source has no prices of {code!r}.{_near(code, names)}")
    return codes


def _near(code: str, names: Collection[str]) -> str:
    hint = nearest(code, names)
    return hint if hint.startswith(" Did") else ""


def _spells(spans: dict[str, pd.DatetimeIndex]) -> pd.DataFrame:
    return pd.DataFrame(
        [(name, first, last) for name, (first, last) in spans.items()],
        columns=["instrument", "start", "end"],
    )


def _check_market(market: str, universes: dict) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", market):
        raise ConfigError(f"{market!r} is no list name: use lower-case letters, digits, - and _.")
    if market in universes:
        raise ConfigError(f"the source has a list {market!r} already; choose another name.")
