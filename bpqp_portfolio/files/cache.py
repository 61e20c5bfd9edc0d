"""Arrays on disk under a key of everything that determines them; checked before every use."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import replacing_folder

logger = logging.getLogger(__name__)

ELSEWHERE = "point BPQP_CACHE at another folder"
VERSION = 1
KEPT_ENTRIES = 8


@dataclass(frozen=True)
class Pieces:
    """An array of ``shape`` and ``dtype`` that is written piece by piece, never whole in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[], Iterator[np.ndarray]]

    @classmethod
    def of(cls, array: np.ndarray, order: np.ndarray, rows: int = 100_000) -> Pieces:
        """``array[order]``, along the first axis."""
        parts = range(0, len(order), rows)
        return cls(
            (len(order), *array.shape[1:]),
            array.dtype,
            lambda: (array[order[i : i + rows]] for i in parts),
        )

    def save(self, path: Path) -> None:
        """Write it as ``np.save`` would."""
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)),
            "fortran_order": False,
            "shape": self.shape,
        }
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for piece in self.pieces():
                file.write(np.ascontiguousarray(piece).data)


def cache_root() -> Path:
    """``$BPQP_CACHE``, by default ``~/.cache/bpqp_portfolio``."""
    return Path(os.environ.get("BPQP_CACHE", "~/.cache/bpqp_portfolio")).expanduser()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _load(folder: Path, key: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays of an entry, or None where it is absent, of another key or damaged."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["version"] != VERSION or meta["key"] != json.loads(json.dumps(key, default=str)):
            logger.warning("cache entry %s is stale; it is built anew", folder.name)
            return None
        if {path.stem for path in folder.glob("*.npy")} != set(meta["arrays"]):
            raise ValueError("its arrays are not those that it describes")
        arrays = {}
        for name in meta["arrays"]:
            path = folder / f"{name}.npy"
            if _file_digest(path) != meta["arrays"][name]:
                raise ValueError(f"{path.name} does not match its checksum")
            arrays[name] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("cache entry %s is damaged (%s); it is built anew", folder.name, error)
        return None
    with suppress(OSError):  # an entry of a read-only cache is as good
        os.utime(folder)
    return arrays


def cached(
    kind: str, key: Mapping[str, Any], build: Callable[[], Mapping[str, np.ndarray | Pieces]]
) -> dict[str, np.ndarray]:
    """The arrays that ``build`` makes, from disk where an intact entry of the same key exists.

    Parameters
    ----------
    kind : folder below :func:`cache_root`, such as ``"features"``.
    key : JSON-like; everything that determines the result.
    build : called only where there is no intact entry. No object arrays; a large one as
        :class:`Pieces`.

    Returns
    -------
    Arrays memory-mapped copy-on-write: changing one never changes the cache.

    Raises
    ------
    StorageError
        What was built cannot be written: the disk is full or read-only.
    """
    parent = cache_root() / kind
    folder = parent / digest(key)[:32]
    arrays = _load(folder, key)
    if arrays is not None:
        logger.info("%s: read from cache %s", kind, folder)
        return arrays
    built = build()
    with replacing_folder(folder, elsewhere=ELSEWHERE) as scratch:
        checksums = {}
        for name, array in built.items():
            path = scratch / f"{name}.npy"
            if isinstance(array, Pieces):
                array.save(path)
            else:
                np.save(path, array, allow_pickle=False)
            checksums[name] = _file_digest(path)
        meta = {"version": VERSION, "key": dict(key), "arrays": checksums}
        (scratch / "meta.json").write_text(json.dumps(meta, indent=1, default=str))
    entries = [p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    for old in sorted(entries, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT_ENTRIES:]:
        shutil.rmtree(old, ignore_errors=True)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in built}
