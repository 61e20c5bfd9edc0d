"""The community's daily A-share release over HTTP: resumed, verified, cleaned, put in place."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...config import check_number
from ...errors import ConfigError, DataError, DownloadError
from ...files.digests import sha256_of
from ...files.progress import progress_bar
from .importer import install
from .provider import Provider, check_target

RELEASE_URL = "https://github.com/chenditc/investment_data/releases/latest/download/qlib_bin.tar.gz"
CN_DATA = Path("~/.qlib/qlib_data/cn_data")

_CHUNK = 2**18
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_MAX_PAUSE = 60.0  # seconds


class _Interrupted(Exception):
    """An attempt failed, but another may not; ``wait`` seconds is what the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTP(S) only, and never from HTTPS to HTTP."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and scheme != urlsplit(req.full_url).scheme:
            raise DownloadError(f"{_shown(req.full_url)} redirects to {scheme}:, which is refused.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class _Version:
    """Which version of which file a partial download is of; ``length`` in bytes, -1 unknown."""

    url: str
    etag: str = ""
    modified: str = ""
    length: int = -1

    @property
    def validator(self) -> str:
        """What If-Range may carry: a strong entity tag or else a date (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def continues(self, answer: _Version, total: int) -> bool:
        """May a partial answer, of ``total`` bytes in the whole, be appended to this version?

        It may leave a header out, but not contradict one.
        """
        return (
            answer.etag in ("", self.etag)
            and answer.modified in ("", self.modified)
            and (total == self.length if self.length >= 0 else total >= 0)
        )


class _Partial:
    """The bytes received so far, ``data``, and beside them the version that they are of."""

    def __init__(self, target: Path, url: str) -> None:
        self.url = url
        self.folder = target.with_name(f".{target.name}.download")
        name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rpartition("/")[2])[:100]
        self.data = self.folder / (name.lstrip(".") or "download")
        self.note = self.folder / ".version.json"

    @property
    def size(self) -> int:
        return self.data.stat().st_size if self.data.exists() else 0

    def version(self) -> _Version | None:
        """The version of the bytes at hand; None where they cannot be resumed safely."""
        try:
            version = _Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):  # no note, or half of one: begin again
            return None
        resumable = version.url == self.url and version.validator and self.size > 0
        return version if resumable else None

    def restart(self, version: _Version) -> None:
        self.discard()
        self.folder.mkdir(parents=True)
        self.data.touch()
        self.note.write_text(json.dumps(asdict(version)))

    def discard(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)


def download_release(
    url: str = RELEASE_URL,
    to: Path | str = CN_DATA,
    *,
    sha256: str | None = None,
    progress: bool = True,
    retries: int = 5,
    pause: float = 1.0,
    timeout: float = 60.0,
) -> Provider:
    """Download the archive of a Qlib provider and import it into ``to``, all of it or nothing.

    What has arrived is kept beside ``to`` and resumed by the next attempt or the next call, as
    long as the server still has the same version of the file. The archive must have the length
    that the server states, the SHA-256 where one is given, and unpack to its very end into a
    provider; it is cleaned as by :func:`.importer.import_provider`, and an existing provider at
    ``to`` is replaced at the very end.

    Parameters
    ----------
    sha256 : expected digest of the archive, 64 hexadecimal digits.
    retries : attempts after one that brought nothing new, before giving up.
    pause : seconds before the first retry, doubled for each that follows, at most a minute.
    timeout : seconds without any byte after which an attempt is given up.

    Raises
    ------
    DownloadError
        The server refuses, has no such file or keeps failing (what has arrived is kept), or what
        arrived does not verify or is no provider (it is removed).
    ConfigError
        ``url`` is not http(s), ``sha256`` no digest, or ``to`` holds something else.
    """
    to = Path(to).expanduser().resolve()
    _check_url(url)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"sha256: expected 64 hexadecimal digits, got {sha256!r}.")
    check_number(retries, "retries", low=0, integer=True)
    check_number(pause, "pause", low=0)
    check_number(timeout, "timeout", low=0, open_low=True)
    check_target(to)

    partial = _Partial(to, url)
    try:
        _fetch(partial, retries, pause, timeout, progress)
        digest = sha256_of(partial.data)
        if sha256 is not None and digest != sha256.lower():
            raise DataError(f"its SHA-256 is {digest}, not {sha256.lower()}.")
        provider = install(partial.data, to, progress=progress, origin={"url": _shown(url)})
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"cannot write to {to.parent}: {error}. Make room, or name another folder; what has "
            f"arrived is kept in {partial.folder.name} and used again."
        ) from error
    except DataError as error:
        partial.discard()
        raise DownloadError(
            f"what {_shown(url)} sent cannot be used: {error} The download was removed; run it "
            "again, or name another source with --url."
        ) from error
    partial.discard()
    return provider


def _fetch(partial: _Partial, retries: int, pause: float, timeout: float, progress: bool) -> None:
    """Attempts until the file is complete; ones that bring it further than ever are free."""
    failures, best = 0, partial.size
    while True:
        try:
            return _attempt(partial, timeout, progress)
        except _Interrupted as error:
            if partial.size > best:
                failures, best = 0, partial.size
            if failures == retries:
                kept = f" {partial.size:,} bytes are kept." if partial.size else ""
                raise DownloadError(
                    f"{_shown(partial.url)}: {error}; gave up after {failures + 1} attempts "
                    f"without progress.{kept} Run it again later to go on."
                ) from error
            time.sleep(min(max(pause * 2**failures, error.wait), _MAX_PAUSE))
            failures += 1


def _attempt(partial: _Partial, timeout: float, progress: bool) -> None:
    """One request; returns when the whole file is there."""
    headers = {"User-Agent": "bpqp-portfolio", "Accept-Encoding": "identity"}
    known, have = partial.version(), partial.size
    if known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    request = urllib.request.Request(partial.url, headers=headers)
    opener = urllib.request.build_opener(_Redirects)
    with _network(partial.url):
        try:
            answer = opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                answered = _refusal(error, partial, known)
            if answered is None:
                return
            raise answered from error
    with answer:
        length = answer.headers.get("Content-Length", "")
        version = _Version(
            url=partial.url,
            etag=answer.headers.get("ETag", ""),
            modified=answer.headers.get("Last-Modified", ""),
            length=int(length) if length.isdecimal() else -1,
        )
        if answer.status == 206:
            start, total = _content_range(answer.headers.get("Content-Range", ""))
            if known is None or start != have or not known.continues(version, total):
                partial.discard()
                raise _Interrupted("the file changed on the server")
        else:  # no range was asked for, or the server ignores ranges, or the file changed
            have, total = 0, version.length
            partial.restart(version)
        _receive(answer, partial, have, total, progress)


def _receive(
    answer: http.client.HTTPResponse, partial: _Partial, have: int, total: int, progress: bool
) -> None:
    """Append the body; ``total`` bytes must be there in the end, where it is known (not -1)."""
    length = total if total >= 0 else None
    with (
        progress_bar("download", length, progress, "B", done=have) as bar,
        open(partial.data, "ab") as file,
    ):
        while True:
            with _network(partial.url):
                chunk = answer.read(_CHUNK)
            if not chunk:
                break
            file.write(chunk)
            bar.update(len(chunk))
    if total >= 0 and partial.size < total:
        raise _Interrupted(f"cut short at {partial.size:,} of {total:,} bytes")
    if total >= 0 and partial.size > total:
        partial.discard()
        raise _Interrupted(f"more than the stated {total:,} bytes arrived")


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Sort what the network raises into final errors and ones worth another attempt."""
    try:
        yield
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        host = urlsplit(url).netloc.rpartition("@")[2]
        if isinstance(reason, ConnectionRefusedError):
            remedy = "nothing answers there; check the address, or try later."
        elif isinstance(reason, socket.gaierror):
            remedy = "the name does not resolve; check the address and the network."
        elif isinstance(reason, ssl.SSLCertVerificationError):
            remedy = "its certificate is not trusted; check the address and the system's clock."
        else:
            detail = reason if isinstance(reason, str) else str(reason) or type(reason).__name__
            raise _Interrupted(f"the connection failed ({detail})") from error
        raise DownloadError(f"cannot reach {host}: {remedy}") from error


def _refusal(
    error: urllib.error.HTTPError, partial: _Partial, known: _Version | None
) -> Exception | None:
    """What to raise for an error status, or None where it means that the file is complete."""
    if error.code == 416 and known:  # asked for bytes from the end of the file
        _, total = _content_range(error.headers.get("Content-Range", ""))
        if partial.size == known.length == total:
            return None
        partial.discard()
        return _Interrupted("the file changed on the server")
    if error.code in _BUSY:
        wait = error.headers.get("Retry-After", "")
        return _Interrupted(
            f"the server answered {error.code} ({error.reason})",
            wait=float(wait) if wait.isdecimal() else 0.0,
        )
    hint = "the address may have changed; name another with --url"
    if error.code != 404:
        hint = "check the address, or name another with --url"
    return DownloadError(f"{_shown(partial.url)}: {error.code} ({error.reason}); {hint}.")


def _content_range(header: str) -> tuple[int, int]:
    """First byte and total length of ``bytes 5-9/10`` or ``bytes */10``; -1 where not stated."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", header.strip())
    if not match:
        return -1, -1
    start, total = match.groups()
    return int(start or -1), int(total) if total != "*" else -1


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        valid = False
    if not valid or re.search(r"[\s\0]", url):
        raise ConfigError(
            f"url: expected http(s)://host/path, got {url!r}. For a file use `bpqp data import`."
        )


def _shown(url: str) -> str:
    """``url`` without credentials, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
