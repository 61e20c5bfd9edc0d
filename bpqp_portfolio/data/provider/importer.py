"""A clean Qlib provider from an archive or a folder, of a provider or of CSV and Parquet files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
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
from ...markets.codes import qlib_code
from . import cleaning
from .append import extend
from .cleaning import UnitEvidence
from .indices import alike_indices, known_indices
from .manifest import extent, write_manifest
from .provider import Provider, check_target, write_calendar, write_series, write_universe
from .sources import Source, locate
from .table_file import AS_WRITTEN, Reading, is_table


def import_provider(
    source: Path | str,
    to: Path | str,
    *,
    market: str | None = None,
    benchmark: str | Sequence[str] | None = None,
    reading: Reading = AS_WRITTEN,
    append: bool = False,
    progress: bool = True,
) -> Provider:
    """Write a clean Qlib provider into the folder ``to`` from ``source``, all of it or nothing.

    ``source`` is a tar or zip archive, or a folder, that holds a Qlib provider (possibly some
    folders down) or CSV and Parquet files of daily bars (see :func:`.tables.read_tables`), or one
    such file. Feature folders are lower case and codes upper case, those of China's exchanges as
    Qlib writes them; ``change`` is a fraction; suspended days are NaN in every field but ``factor``
    (see :func:`.cleaning.clean`); a list ``all`` is made from the dates where there is none.
    ``manifest.json`` records what came from where and what was corrected. An existing provider at
    ``to`` is replaced at the very end.

    Parameters
    ----------
    market : also write the list ``all`` under this name.
    benchmark : codes to compare with and never to hold: they have prices and are in no list. By
        default those with the code of an index (``SPX``, ``^DJI``, ``SH000300``) are left out of
        the lists that are made here; an empty sequence is none. The manifest has them as
        ``indices``, the first of those given as ``benchmark``, and as ``maybe_indices`` what is
        held and moves like the mean of all others.
    reading : how tables are read where they do not say it themselves.
    append : add the days that follow the last of the provider at ``to``, from tables that repeat
        some of its days (see :func:`.append.extend`), in place of replacing it.
    progress : show progress on a terminal.

    Raises
    ------
    DataError
        The source is absent, damaged, unsafe to unpack, of no known layout or inconsistent;
        or ``to`` cannot be written.
    ConfigError
        ``to`` is a file, holds something that is no provider, or lies inside ``source``; a
        benchmark that the source does not have; ``append`` with a list or a benchmark to be made.
    """
    source, to = Path(source).expanduser(), Path(to).expanduser()
    if not source.exists():
        raise DataError(f"no such file or folder: {source}.")
    check_target(to)
    if source.resolve() in to.resolve().parents:
        raise ConfigError(f"{to} lies inside the source; name a folder outside {source}.")
    if append and (market is not None or benchmark is not None):
        raise ConfigError(
            "append: the provider keeps its lists and its benchmark; leave --market and "
            "--benchmark out, or import the whole history again."
        )
    try:
        if append:
            return _append(source, Provider(to).require(), reading, progress)
        codes = [benchmark] if isinstance(benchmark, str) else benchmark
        return install(
            source, to, market=market, benchmark=codes, reading=reading, progress=progress
        )
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot write the provider to {to}: {error}.") from error


def install(
    source: Path,
    to: Path,
    *,
    market: str | None = None,
    benchmark: Sequence[str] | None = None,
    reading: Reading = AS_WRITTEN,
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
        found, manifest = _opened(stack, source, to, reading, progress)
        manifest |= _write(found, fresh, market, benchmark, progress) | (origin or {})
        write_manifest(fresh, manifest)
    return Provider(to)


def _append(source: Path, old: Provider, reading: Reading, progress: bool) -> Provider:
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(old.root))
        found, origin = _opened(stack, source, old.root, reading, progress)
        manifest = extend(old, found, scratch / "new", progress)
        if manifest != old.manifest:
            manifest["appended"][-1] |= origin
            with replacing_folder(old.root) as fresh:
                fresh.rmdir()
                (scratch / "new").rename(fresh)
                write_manifest(fresh, manifest)
    return Provider(old.root)


def _opened(
    stack: ExitStack, source: Path, to: Path, reading: Reading, progress: bool
) -> tuple[Source, dict[str, Any]]:
    """What ``source`` holds, unpacked where it is an archive, and the manifest's account of it."""
    origin: dict[str, Any] = {"source": source.resolve().name}
    place = source
    if source.is_file() and not is_table(source):
        if not is_archive(source):
            raise DataError(
                f"{source.name} is neither an archive (tar, zip) nor a CSV or Parquet file."
            )
        origin |= {"sha256": sha256_of(source), "archive_bytes": source.stat().st_size}
        # Beside the target: the same disk, and not the small /tmp of many machines.
        place = stack.enter_context(scratch_folder(to)) / "content"
        unpack(source, place, progress=progress)
    found = locate(place, reading, progress)
    if "sha256" not in origin:
        origin |= {"sha256": sha256_of_files(found.files, place), "files": len(found.files)}
    return found, origin


def _write(
    source: Source, root: Path, market: str | None, benchmark: Sequence[str] | None, progress: bool
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

    stated = _stated(benchmark or (), spans)
    without = (
        set(stated) if benchmark is not None and not benchmark else {*stated, *known_indices(spans)}
    )
    universes, indices, maybe = _lists(universes, spans, returns, stated, without)
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
        **({"benchmark": stated[0]} if stated else {}),
        "fields": dict(fields),
        "source_units": {
            what: str(np.atleast_1d(unit)[-1])
            for what, unit in (("change", units.change), ("volume", units.volume))
        },
        "cleaned": dict(counts),
        "ignored_columns": list(source.ignored),
        "codes": dict(source.codes),
        "open_ended": list(source.open_ended),
        "maybe_lots": list(source.maybe_lots),
    }


def _units(source: Source, progress: bool) -> cleaning.Units:
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
    stated: Collection[str],
    indices: Collection[str],
) -> tuple[dict[str, pd.DataFrame], list[str], list[str]]:
    """The lists without what is ``stated`` to be an index, and with ``all``, which has none of the
    ``indices``; those that no list holds; and names to hold that look like one."""
    universes = {k: v[~v["instrument"].isin(stated)] for k, v in universes.items()}
    universes.setdefault("all", _spells({k: v for k, v in spans.items() if k not in indices}))
    # The list of everything is no universe to hold where there are others.
    lists = {k: v for k, v in universes.items() if k != "all"} or universes
    held = set().union(*(spells["instrument"] for spells in lists.values()))
    maybe = sorted({*indices, *alike_indices(returns)} & held)
    return universes, sorted(set(indices) - held), maybe


def _stated(benchmark: Sequence[str], names: Collection[str]) -> list[str]:
    """The codes of ``benchmark`` as the source has them."""
    codes = []
    for given in benchmark:
        code = given.upper() if given.upper() in names else qlib_code(given.upper())
        if code not in names:
            near = _near(code, names)
            raise ConfigError(f"benchmark: the source has no prices of {given!r}.{near}")
        codes.append(code)
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
