"""Unpacking an archive that is not trusted: nothing outside the target, no links, bounded size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from ..errors import DataError
from .bounds import FREE_BYTES, most_bytes
from .progress import progress_bar

# Far above the full A-share release (under 2 GB unpacked, some 60,000 files).
MAX_UNPACKED_BYTES = 128 * 2**30
MAX_MEMBERS = 500_000

_CHUNK = 2**20
_MAX_HEADER = 16 * 2**20  # no name or attribute of a member needs more
# What the standard library raises on damaged input; OSError is also gzip's and bzip2's own.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
           EOFError, OSError, NotImplementedError, RuntimeError, ValueError)  # fmt: skip
_COMPRESSED: dict[bytes, Callable] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive; ``open`` gives a file's bytes, ``refusal`` why not to.

    ``size`` in bytes is what the archive states.
    """

    name: str
    is_folder: bool
    size: int
    open: Callable[[], Any]
    refusal: str = ""


def _kind(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(_ZIP):
        return "zip"
    if head.startswith(tuple(_COMPRESSED)) or head[257:262] == b"ustar":
        return "tar"
    return ""


def is_archive(path: Path) -> bool:
    """Does the file begin like a zip, or like a tar that is plain or packed by gzip, xz, bzip2?"""
    return bool(_kind(Path(path)))


class _Tail:
    """A readable stream that remembers what was read last."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.last = stream, b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_HEADER:  # only a header is read at once
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        self.last = self.stream.read(size)
        return self.last


def _tar_members(raw: IO[bytes], stack: ExitStack) -> Iterator[_Member]:
    head = raw.read(6)
    raw.seek(0)
    opener = next((o for magic, o in _COMPRESSED.items() if head.startswith(magic)), None)
    stream = _Tail(stack.enter_context(opener(raw)) if opener else raw)
    tar = stack.enter_context(tarfile.TarFile(fileobj=stream))  # type: ignore[arg-type]
    while (entry := tar.next()) is not None:
        refusal = ""
        if entry.issym() or entry.islnk():
            refusal = f"is a link (to {entry.linkname!r})"
        elif not (entry.isfile() or entry.isdir()):
            refusal = "is neither a file nor a folder"
        open_ = partial(tar.extractfile, entry)
        yield _Member(entry.name, entry.isdir(), entry.size, open_, refusal)
        tar.members.clear()  # type: ignore[attr-defined]  # one object a file would pile up
    # tarfile takes a damaged header for the end, and leaves the checksum of the last bytes unread.
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the members do not end with an end-of-archive mark")
    rest = 0
    while chunk := stream.read(_CHUNK):
        rest += len(chunk)
        if rest > FREE_BYTES:
            raise tarfile.ReadError("the archive goes on after its end")


def _zip_members(raw: IO[bytes], stack: ExitStack) -> Iterator[_Member]:
    archive = stack.enter_context(zipfile.ZipFile(raw))
    for entry in archive.infolist():
        mode = entry.external_attr >> 16
        refusal = ""
        if stat.S_ISLNK(mode):
            refusal = "is a link"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            refusal = "is neither a file nor a folder"
        elif entry.flag_bits & 1:
            refusal = "is encrypted"
        name = entry.filename.replace("\\", "/")
        open_ = partial(archive.open, entry)
        yield _Member(name, name.endswith("/"), entry.file_size, open_, refusal)


def _objection(member: _Member) -> str:
    """Why not to write ``member``, or an empty string."""
    path = PureWindowsPath(member.name)  # splits at both kinds of slash and at drives
    if path.anchor:
        return "is an absolute path"
    if ".." in path.parts or "\0" in member.name:
        return "leads out of the target folder"
    return member.refusal


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise DataError(f"{archive.name} is damaged or cut short: {error}.") from error


def _refused(archive: Path, why: str) -> DataError:
    return DataError(
        f"{archive.name} was not unpacked: {why}. Pack plain files and folders with relative "
        "names, or unpack an archive that you trust by hand and import the folder."
    )


def _too_large(archive: Path, member: _Member, most: int) -> DataError:
    times = most / max(archive.stat().st_size, 1)
    return _refused(
        archive, f"{member.name!r} takes it past {most:,} bytes, {times:,.0f} times its own size"
    )


def unpack(
    archive: Path,
    into: Path,
    *,
    max_bytes: int | None = None,
    max_members: int = MAX_MEMBERS,
    progress: bool = True,
) -> None:
    """Unpack a tar (plain, gzip, xz, bzip2) or zip into the empty folder ``into``, reading it all.

    Only files and folders are written, with fresh permissions; sizes are counted as written, not
    as the archive states them. On an error ``into`` may hold a part of the files. ``max_bytes`` is
    by default :func:`~.bounds.most_bytes` of the archive, at most :data:`MAX_UNPACKED_BYTES`.

    Raises
    ------
    DataError
        The archive is of no known kind, damaged or cut short; a member is absolute, leads out of
        ``into``, is a link, device or encrypted, or is a file where another is a folder; or the
        whole passes ``max_bytes`` or ``max_members``. The message names the member.
    OSError
        ``into`` cannot be written.
    """
    archive, into = Path(archive), Path(into)
    kind = _kind(archive)
    if not kind:
        raise DataError(
            f"{archive.name} is neither a zip nor a tar (plain, gzip, xz or bzip2) archive."
        )
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise DataError(f"{into} is not empty; unpack {archive.name} into an empty folder.")
    if max_bytes is None:
        max_bytes = min(most_bytes(archive.stat().st_size), MAX_UNPACKED_BYTES)
    written = count = 0
    with ExitStack() as stack:
        raw = stack.enter_context(open(archive, "rb"))
        bar = stack.enter_context(progress_bar("unpack", archive.stat().st_size, progress, "B"))
        members = (_tar_members if kind == "tar" else _zip_members)(raw, stack)
        while True:
            with _reading(archive):
                member = next(members, None)
            if member is None:
                return
            count += 1
            if count > max_members:
                raise _refused(archive, f"it has more than {max_members:,} members")
            reason = _objection(member)
            if reason:
                raise _refused(archive, f"{member.name!r} {reason}")
            path = into / member.name
            folder = path if member.is_folder else path.parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise _refused(archive, f"{member.name!r} collides with a file") from None
            if member.is_folder:
                continue
            # The stated size is checked before a byte is written, the real one while writing.
            if written + member.size > max_bytes:
                raise _too_large(archive, member, max_bytes)
            if path.is_dir():
                raise _refused(archive, f"{member.name!r} collides with a folder")
            with _reading(archive):
                source = member.open()
            with source, open(path, "wb") as file:
                while True:
                    with _reading(archive):
                        chunk = source.read(_CHUNK)
                    if not chunk:
                        break
                    written += len(chunk)
                    if written > max_bytes:
                        raise _too_large(archive, member, max_bytes)
                    file.write(chunk)
            bar.update(raw.tell() - bar.n)
