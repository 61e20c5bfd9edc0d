"""Downloading from a loopback server that truncates, corrupts, refuses and changes its mind."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import struct
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider import download, importer
from bpqp_portfolio.data.provider.download import CN_DATA, RELEASE_URL, download_release
from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.errors import ConfigError, DownloadError

DAYS = pd.bdate_range("2022-01-03", periods=250)


def provider_at(root, price):
    rng = np.random.default_rng(0)
    close = price * np.exp(np.cumsum(rng.normal(0, 0.01, len(DAYS))))
    fields = {f: close * rng.uniform(0.99, 1.01, len(DAYS)) for f in ("open", "high", "low")}
    fields |= {"close": close, "volume": rng.uniform(1e5, 1e6, len(DAYS))}
    series = {"SH600000": pd.DataFrame(fields, index=DAYS)}
    spells = pd.DataFrame({"instrument": ["SH600000"], "start": DAYS[0], "end": DAYS[-1]})
    return write_provider(root, DAYS, series, {"all": spells, "csi300": spells})


def release(folder, price=10.0):
    """The bytes of a release: a provider in ``qlib_bin/``."""
    root = provider_at(folder / "making", price).root
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(root, "./qlib_bin")
    shutil.rmtree(root)
    return packed.getvalue()


class Server(ThreadingHTTPServer):
    """Serves ``content``; each request takes one of ``faults``, and ``log`` keeps what was asked.

    A fault is a status to refuse with, ``("cut", bytes)``, ``("reset", bytes)``,
    ``("redirect", address)`` or a function that is called with the server.
    """

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.faults, self.log = content, [], []
        self.ranges = self.heeds_if_range = self.states_length = True
        self.etag, self.modified = '"one"', ""
        self.url = f"http://127.0.0.1:{self.server_port}/releases/qlib_bin.tar.gz"

    def change(self, content, etag='"two"'):
        self.content, self.etag = content, etag

    @property
    def asked(self):
        """The Range headers of the requests, in order."""
        return [headers.get("Range") for headers in self.log]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.log.append(dict(self.headers))
        fault = server.faults.pop(0) if server.faults else None
        if callable(fault):
            fault = fault(server)
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        kind, detail = fault or (None, None)
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", detail)
            self.end_headers()
            return
        total, asked = len(server.content), self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, server.etag, server.modified)
        start = 0
        if asked and server.ranges and (same or not server.heeds_if_range):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start < total else 416)
            served = f"{start}-{total - 1}" if start < total else "*"
            self.send_header("Content-Range", f"bytes {served}/{total}")
        else:
            self.send_response(200)
        body = server.content[start:]
        if server.states_length:
            self.send_header("Content-Length", str(len(body)))
        for header, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
            if value:
                self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body[:detail])
        if kind == "reset":  # close() with SO_LINGER 0 sends RST instead of FIN
            self.wfile.flush()
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server(release(tmp_path))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def old(tmp_path):
    """An older provider at the target."""
    return provider_at(tmp_path / "data" / "cn_data", 99.0)


fetch = partial(download_release, progress=False, pause=0.001, timeout=5.0)
impatient = partial(fetch, retries=0)


def price(root):
    """About 10 in the release, 20 in its next version, 99 in the older provider."""
    return round(float(Provider(root).series("SH600000", "close")[0]), -1)


def test_the_release_replaces_an_older_provider(server, old):
    provider = fetch(server.url, old.root)
    assert price(provider.root) == 10
    assert provider.markets == ["all", "csi300"]
    manifest = provider.manifest
    assert (manifest["source"], manifest["url"]) == ("qlib_bin.tar.gz", server.url)
    assert manifest["sha256"] == hashlib.sha256(server.content).hexdigest()
    assert [p.name for p in old.root.parent.iterdir()] == ["cn_data"]
    assert server.asked == [None]


def test_the_defaults_are_the_community_release_and_the_folder_that_qlib_uses():
    assert RELEASE_URL.startswith("https://github.com/chenditc/investment_data/releases/latest/")
    assert RELEASE_URL.endswith("/qlib_bin.tar.gz")
    assert str(CN_DATA) == "~/.qlib/qlib_data/cn_data"


def test_a_cut_download_is_resumed_at_once(server, old):
    server.faults = [("cut", 1000), ("cut", 500)]
    provider = fetch(server.url, old.root)
    assert price(provider.root) == 10
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert server.log[1]["If-Range"] == '"one"'


def test_a_cut_download_is_resumed_by_the_next_call(server, old):
    server.faults = [("cut", 1000)]
    with pytest.raises(DownloadError, match=r"cut short at 1,000 of .* kept.*go on"):
        impatient(server.url, old.root)
    assert price(old.root) == 100
    impatient(server.url, old.root)
    assert server.asked == [None, "bytes=1000-"]
    assert price(old.root) == 10
    assert [p.name for p in old.root.parent.iterdir()] == ["cn_data"]


def test_a_date_serves_where_there_is_no_strong_tag(server, old):
    server.etag, server.modified = 'W/"weak"', "Mon, 03 Jan 2022 00:00:00 GMT"
    server.faults = [("cut", 1000)]
    fetch(server.url, old.root)
    assert server.log[1]["If-Range"] == server.modified
    assert server.asked == [None, "bytes=1000-"]


def test_without_a_tag_or_date_it_begins_again(server, old):
    server.etag = ""
    server.faults = [("cut", 1000)]
    assert price(fetch(server.url, old.root).root) == 10
    assert server.asked == [None, None]


def test_a_server_without_ranges_is_read_from_the_beginning(server, old):
    server.ranges = False
    server.faults = [("cut", 1000)]
    assert price(fetch(server.url, old.root).root) == 10
    assert server.asked == [None, "bytes=1000-"]


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changed_between_two_tries_is_read_anew(server, old, tmp_path, heeds):
    server.heeds_if_range = heeds
    server.faults = [("cut", 1000), lambda s: s.change(release(tmp_path, price=20.0))]
    provider = fetch(server.url, old.root)
    assert price(provider.root) == 20
    assert provider.manifest["sha256"] == hashlib.sha256(server.content).hexdigest()
    assert server.asked == [None, "bytes=1000-"] + ([] if heeds else [None])


def test_a_part_of_another_address_is_not_resumed(server, old):
    server.faults = [("cut", 1000)]
    with pytest.raises(DownloadError):
        impatient(server.url, old.root)
    impatient(server.url + "?other", old.root)
    assert server.asked == [None, None]


def test_a_damaged_note_begins_again(server, old):
    server.faults = [("cut", 1000)]
    with pytest.raises(DownloadError):
        impatient(server.url, old.root)
    (note,) = old.root.parent.glob(".cn_data.download/.version.json")
    note.write_text('{"url": "x"')
    impatient(server.url, old.root)
    assert server.asked == [None, None]


def test_a_reset_connection_is_tried_again(server, old):
    server.faults = [("reset", 2000)]
    assert price(fetch(server.url, old.root).root) == 10
    assert len(server.log) == 2


def test_a_busy_server_is_tried_again_with_growing_pauses(server, old, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.faults = [503, 500, 429]
    fetch(server.url, old.root, pause=1.0)
    assert pauses == [1.0, 2.0, 4.0]


def test_a_server_that_stays_busy_is_given_up(server, old):
    server.faults = [503] * 10
    with pytest.raises(DownloadError, match=r"503.*gave up after 3 attempts"):
        fetch(server.url, old.root, retries=2)
    assert len(server.log) == 3
    assert price(old.root) == 100


def test_progress_wins_new_tries(server, old):
    server.faults = [("cut", 500)] * 8
    assert price(fetch(server.url, old.root, retries=1).root) == 10
    assert len(server.log) == 9


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(server, old):
    server.ranges = False
    server.faults = [("cut", 500)] * 10
    with pytest.raises(DownloadError, match="cut short at 500"):
        fetch(server.url, old.root, retries=3)
    assert len(server.log) == 4
    assert price(old.root) == 100


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_final(server, old, status):
    server.faults = [status]
    with pytest.raises(DownloadError, match=rf"{status}.*--url"):
        fetch(server.url, old.root)
    assert len(server.log) == 1
    assert price(old.root) == 100


def test_nobody_listening_is_final(old):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(DownloadError, match=rf"cannot reach 127\.0\.0\.1:{port}.*nothing"):
            fetch(f"http://127.0.0.1:{port}/qlib_bin.tar.gz", old.root)
    assert price(old.root) == 100


def leftovers(old):
    return [path.name for path in old.root.parent.iterdir() if path.name != "cn_data"]


def test_a_corrupt_release_is_removed_and_downloaded_anew(server, old):
    good = server.content
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 0xFF
    server.content = bytes(bad)
    with pytest.raises(DownloadError, match=r"qlib_bin\.tar\.gz is damaged.*removed; run it again"):
        fetch(server.url, old.root)
    assert price(old.root) == 100
    assert leftovers(old) == []
    server.content = good
    assert price(fetch(server.url, old.root).root) == 10
    assert server.asked == [None, None]


def test_a_page_in_place_of_the_release_is_refused(server, old):
    server.content = b"<html>Please sign in to the hotel's network</html>"
    with pytest.raises(DownloadError, match="neither an archive"):
        fetch(server.url, old.root)
    assert price(old.root) == 100
    assert leftovers(old) == []


def test_a_cut_that_the_server_does_not_admit_is_found_by_unpacking(server, old):
    server.states_length = False
    server.content = server.content[:-100]
    with pytest.raises(DownloadError, match="damaged or cut short"):
        fetch(server.url, old.root)
    assert price(old.root) == 100


def test_an_unstated_length_is_fine(server, old):
    server.states_length = False
    assert price(fetch(server.url, old.root).root) == 10


def test_the_digest_is_checked(server, old):
    digest = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DownloadError, match=f"SHA-256 is {digest}, not {'0' * 64}"):
        fetch(server.url, old.root, sha256="0" * 64)
    assert price(old.root) == 100
    assert leftovers(old) == []
    assert price(fetch(server.url, old.root, sha256=digest.upper()).root) == 10


def test_a_full_disk_keeps_the_complete_download(server, old, monkeypatch):
    def full(root, name, fields):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(importer, "write_series", full)
        with pytest.raises(DownloadError, match=r"No space left.*kept in \.cn_data\.download"):
            fetch(server.url, old.root)
    assert price(old.root) == 100
    assert leftovers(old) == [".cn_data.download"]
    assert price(fetch(server.url, old.root).root) == 10
    assert server.asked == [None, f"bytes={len(server.content)}-"]


def test_a_complete_download_of_an_older_release_is_replaced(server, old, monkeypatch, tmp_path):
    def full(root, name, fields):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(importer, "write_series", full)
        with pytest.raises(DownloadError):
            fetch(server.url, old.root)
    server.heeds_if_range = False
    server.change(server.content[:1000] + server.content[1001:])
    server.faults = [None, lambda s: s.change(release(tmp_path, price=20.0))]
    size = len(server.content) + 1
    assert price(fetch(server.url, old.root).root) == 20
    assert server.asked == [None, f"bytes={size}-", None]


def test_redirects_are_followed_with_the_range_but_not_to_other_schemes(server, old):
    server.faults = [("cut", 1000), ("redirect", server.url)]
    assert price(fetch(server.url, old.root).root) == 10
    assert server.asked == [None, "bytes=1000-", "bytes=1000-"]
    server.faults = [("redirect", "ftp://127.0.0.1/x")]
    with pytest.raises(DownloadError, match="redirects to ftp"):
        fetch(server.url, old.root)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/x",
        "qlib_bin.tar.gz",
        "http://",
        "http://h:x/",
        "http://a b",
    ],
)
def test_only_web_addresses_are_taken(tmp_path, url):
    with pytest.raises(ConfigError, match="http"):
        fetch(url, tmp_path / "out")


def test_a_folder_of_something_else_is_refused_before_the_download(server, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no Qlib provider"):
        fetch(server.url, tmp_path / "thesis")
    with pytest.raises(ConfigError, match="sha256"):
        fetch(server.url, tmp_path / "out", sha256="abc")
    assert server.log == []


def test_credentials_and_queries_do_not_reach_the_manifest(server, old):
    assert fetch(server.url + "?token=secret", old.root).manifest["url"] == server.url


def test_the_command_downloads_and_says_what_it_made(server, tmp_path):
    digest = hashlib.sha256(server.content).hexdigest()
    command = ["data", "csi300", "--url", server.url, "--to", str(tmp_path / "x" / "cn_data")]
    result = CliRunner().invoke(app, [*command, "--sha256", digest], catch_exceptions=False)
    assert result.exit_code == 0
    assert "list csi300: 1 names, 1 on the last day" in result.output
