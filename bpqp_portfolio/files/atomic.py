"""Writing without ever leaving a half-written file or folder in place of a good one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import StorageError

try:
    import fcntl
except ImportError:  # Windows: whether a writer lives cannot be seen, so nothing is swept
    fcntl = None  # type: ignore[assignment]

ELSEWHERE = "name another place"
# Scratch entries as they are named here; and as earlier versions named them, who held no lock.
_SCRATCH = re.compile(r"\..+\.[0-9a-f]{16}\.partial(\.\w+)?")
_EARLIER = re.compile(r"\..+\.([0-9a-f]{32}|[a-z0-9_]{8})\.partial(\.\w+)?|\..*\.unpacked")
_PROBE = 2**18
"""Bytes that a disk must still take for it to count as writable."""
_DAY = 86_400.0
_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO
}  # fmt: skip
# numpy and pyarrow report a full disk in their message alone.
_SHORT = re.compile(r"requested and \d+ written|[Nn]o space left|write failed", re.ASCII)


@contextlib.contextmanager
def replacing_folder(target: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """Yield an empty scratch folder beside ``target`` that replaces it only on success.

    On an error or an interruption the scratch folder is removed and ``target`` stays as it was.
    What killed writers left beside it is removed as well.

    Raises
    ------
    StorageError
        The disk is full or not writable; ``elsewhere`` is what else the user may do.
    """
    with writing(target, elsewhere):
        target = _resolved(target, elsewhere)
        with scratch_folder(target) as scratch:
            old = scratch / "old"
            fresh = scratch / "new"
            fresh.mkdir()
            yield fresh
            # rename() cannot replace a non-empty folder, so the old one steps aside first.
            try:
                if target.exists():
                    os.rename(target, old)
                os.rename(fresh, target)
            except BaseException:  # an interrupt between the two renames must not lose the old one
                if old.exists() and not target.exists():
                    os.rename(old, target)
                raise


@contextlib.contextmanager
def replacing_file(target: Path, *, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """Yield a scratch path beside ``target``, of the same suffix; it replaces it on success.

    Raises
    ------
    StorageError
        As :func:`replacing_folder`.
    """
    with writing(target, elsewhere):
        target = _resolved(target, elsewhere)
        if target.is_dir():
            raise StorageError(f"cannot write {target}: it is a folder, so {elsewhere}.")
        with _scratch(target, folder=False) as scratch:
            yield scratch
            os.replace(scratch, target)


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that is removed in the end, or by the next writer."""
    with _scratch(target, folder=True) as scratch:
        yield scratch


@contextlib.contextmanager
def writing(target: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn what a full or unwritable disk raises at ``target`` into a :class:`StorageError`.

    Raises
    ------
    StorageError
        The disk is full or not writable; ``elsewhere`` is what else the user may do.
    OSError
        Any other, as it is.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = _reason(error)
        named = Path(os.fsdecode(error.filename)) if error.filename else None
        if reason is None or (named is not None and not _beside(named, target)):
            raise
        raise StorageError(
            f"cannot write {target}: {reason} ({_free(Path(target))} free there). Free space, make "
            f"the place writable, or {elsewhere}."
        ) from error


def check_writable(target: Path, *, folder: bool = False, elsewhere: str = ELSEWHERE) -> None:
    """Find out now, before the work whose result it holds, whether ``target`` can be written.

    A file is written beside it, or in the nearest folder above it that exists, and removed.
    ``folder`` says that ``target`` is to be one.

    Raises
    ------
    StorageError
        It cannot be written, is a folder and no file, or the other way round; ``elsewhere`` is
        what the user may do.
    """
    target = Path(target).expanduser().resolve()
    wrong = "it is a file" if folder else "it is a folder"
    place = target if folder else target.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if target.exists() and target.is_dir() != folder:
        reason = f"{wrong}, so {elsewhere}"
    elif not place.is_dir():
        reason = f"{place} is a file, so {elsewhere}"
    else:
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(bytes(_PROBE))
            return
        except OSError as error:
            reason = (
                f"{error.strerror or error} ({_free(place)} free there). Free space, make the "
                f"place writable, or {elsewhere}"
            )
    raise StorageError(f"cannot write {target}: {reason}.")


def _reason(error: OSError) -> str | None:
    """Why a disk cannot be written, None where the error is about something else."""
    if error.errno in _UNWRITABLE:
        return error.strerror or os.strerror(error.errno)
    return "the disk is full" if error.errno is None and _SHORT.search(str(error)) else None


def _beside(path: Path, target: Path) -> bool:
    """Does ``path`` lie in the folder of ``target``, or above it?"""
    place = Path(target).expanduser().resolve().parent
    path = path.absolute()
    return place in path.parents or path == place or path in place.parents


def _free(path: Path) -> str:
    place = path.expanduser().absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    try:
        return f"{shutil.disk_usage(place).free / 2**20:,.1f} MiB"
    except OSError:
        return "unknown space"


def make_folder(folder: Path, elsewhere: str = ELSEWHERE) -> None:
    """Make ``folder`` and those above it.

    Raises
    ------
    StorageError
        That cannot be done; ``elsewhere`` is what else the user may do.
    """
    with writing(folder, elsewhere):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # A parent that is a file, or cannot be made: as little writable as a full disk.
            code = error.errno if error.errno in _UNWRITABLE else errno.EACCES
            raise OSError(code, error.strerror) from error


def _resolved(target: Path, elsewhere: str) -> Path:
    """``target`` with links followed, so that what a link points to is replaced, not the link."""
    target = Path(target).expanduser().resolve()
    make_folder(target.parent, elsewhere)
    return target


@contextlib.contextmanager
def _scratch(target: Path, *, folder: bool) -> Iterator[Path]:
    """A new entry beside ``target``, locked as long as this process lives or the block lasts."""
    sweep(target.parent)
    while True:
        name = f".{target.stem[:80]}.{uuid.uuid4().hex[:16]}.partial"
        path = target.with_name(name if folder else name + target.suffix)
        path.mkdir() if folder else path.touch()
        held = _locked(path)
        if held is None or _same(path, held):
            break
        os.close(held)  # a sweep came between making and locking it
    try:
        yield path
    finally:
        _remove(path)
        if held is not None:
            os.close(held)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _locked(path: Path, *, wait: bool = True) -> int | None:
    """A descriptor that holds the lock of ``path``; None where there is no lock to be had."""
    if fcntl is None:
        return None
    try:
        held = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(held)
        return None
    return held


def _same(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(held))
    except OSError:
        return False


def sweep(folder: Path) -> None:
    """Remove scratch entries in ``folder`` whose writers are dead: their lock is free.

    What an earlier version of this package left, without a lock, goes when it is a day old.
    """
    for entry in list(os.scandir(folder)):
        earlier = bool(_EARLIER.fullmatch(entry.name))
        if not (earlier or _SCRATCH.fullmatch(entry.name)):
            continue
        path = Path(entry.path)
        with contextlib.suppress(OSError):  # another process may sweep at the same time
            if earlier and time.time() - entry.stat(follow_symlinks=False).st_mtime < _DAY:
                continue
            held = _locked(path, wait=False)
            if held is None:
                continue
            try:
                _remove(path)
            finally:
                os.close(held)
