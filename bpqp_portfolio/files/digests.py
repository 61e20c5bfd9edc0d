"""SHA-256 of files, and of all files of a folder in a list beside them, checked before use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ..errors import DataError
from .atomic import replacing_file

DIGESTS = "digests.json"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(files: Iterable[Path], place: Path) -> str:
    """One SHA-256 over the names of ``files`` relative to ``place``, sorted, and their contents."""
    digest = hashlib.sha256()
    base = place if place.is_dir() else place.parent
    for name, path in sorted((str(path.relative_to(base)), path) for path in files):
        digest.update(f"{name}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def seal(folder: Path) -> None:
    """Write the digests of all files of ``folder`` into :data:`DIGESTS`."""
    digests = {p.name: sha256_of(p) for p in sorted(folder.iterdir()) if p.name != DIGESTS}
    with replacing_file(folder / DIGESTS) as scratch:
        scratch.write_text(json.dumps({"sha256": digests}, indent=1) + "\n")


def verify(folder: Path, where: str, remedy: str) -> bool:
    """Are the files of ``folder`` those that were sealed?  False where none were.

    Raises
    ------
    DataError
        A file is damaged, missing or was not sealed; the message begins with
        ``where`` and ends with the ``remedy``.
    """
    path = folder / DIGESTS
    if not path.exists():
        return False
    try:
        digests = json.loads(path.read_text())["sha256"]
        items = {str(name): str(digest) for name, digest in digests.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: {DIGESTS} is damaged ({error!r}); {remedy}") from error
    found = {p.name for p in folder.iterdir()} - {DIGESTS}
    for name in sorted(found ^ set(items)):
        what = "is missing" if name in items else f"is not listed in {DIGESTS}"
        raise DataError(f"{where}: {name} {what}; {remedy}")
    for name, digest in items.items():
        if sha256_of(folder / name) != digest:
            raise DataError(
                f"{where}: {name} is damaged, its digest is not that of {DIGESTS}; {remedy}"
            )
    return True
