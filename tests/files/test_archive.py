"""Unpacking: every kind of archive comes out whole, every hostile or damaged one is refused."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from bpqp_portfolio.errors import DataError
from bpqp_portfolio.files.archive import is_archive, unpack

CONTENT = {
    "p/calendars/day.txt": b"2020-01-01\n",
    "p/empty": b"",
    "p/features/sh600000/close.day.bin": np.random.default_rng(0).bytes(300_000),
}
KINDS = ["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"]


def pack(path, content=CONTENT):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("p")
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        mode = {".tar": "w"}.get(path.suffix, f"w:{path.suffix[1:]}")
        with tarfile.open(path, mode) as archive:
            folder = tarfile.TarInfo("./p")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            for name, data in content.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return path


def unpacked(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_out_whole(tmp_path, kind):
    archive = pack(tmp_path / f"a.{kind}")
    assert is_archive(archive)
    unpack(archive, tmp_path / "out", progress=False)
    assert unpacked(tmp_path / "out") == CONTENT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_truncated_archive_is_refused(tmp_path, kind, share):
    archive = pack(tmp_path / f"a.{kind}")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"a\.\S+ is damaged or cut short"):
        unpack(archive, tmp_path / "out", progress=False)


def test_a_tar_cut_between_two_members_is_refused(tmp_path):
    archive = pack(tmp_path / "a.tar")
    data = archive.read_bytes()
    archive.write_bytes(data[: data.index(b"p/features")])
    with pytest.raises(DataError, match="end-of-archive"):
        unpack(archive, tmp_path / "out", progress=False)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "tar.bz2", "zip"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_flipped_byte_is_noticed(tmp_path, kind, share):
    archive = pack(tmp_path / f"a.{kind}")
    data = bytearray(archive.read_bytes())
    data[int(share * len(data))] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        unpack(archive, tmp_path / "out", progress=False)


def test_a_checksum_after_the_last_member_is_read(tmp_path):
    archive = pack(tmp_path / "a.tar.gz")
    data = bytearray(archive.read_bytes())
    data[-6] ^= 0xFF  # in gzip's CRC of the whole
    archive.write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        unpack(archive, tmp_path / "out", progress=False)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    archive = pack(tmp_path / "a.tar")
    data = bytearray(archive.read_bytes())
    at = data.index(b"p/features")
    data[at] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(DataError, match="end-of-archive"):
        unpack(archive, tmp_path / "out", progress=False)


HOSTILE_NAMES = ["../evil", "p/../../evil", "/etc/evil", "C:/evil", "\\evil", "p\\..\\..\\evil"]


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_member_leaves_the_target(tmp_path, kind, name):
    archive = pack(tmp_path / f"a.{kind}", {"good": b"1", name: b"evil"})
    with pytest.raises(DataError, match=r"evil' (leads out of|is an absolute path)"):
        unpack(archive, tmp_path / "deep" / "out", progress=False)
    assert set(unpacked(tmp_path)) <= {f"a.{kind}", "deep/out/good"}


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "inside"),
        (tarfile.LNKTYPE, "../../secret"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, target):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("odd")
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
        beyond = tarfile.TarInfo("odd/passwd")
        beyond.size = 1
        archive.addfile(beyond, io.BytesIO(b"1"))
    with pytest.raises(DataError, match=r"'odd' is (a link|neither a file)"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind):
    entry = zipfile.ZipInfo("odd")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match=r"'odd' is (a link|neither a file)"):
        unpack(tmp_path / "a.zip", tmp_path / "out", progress=False)


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = pack(tmp_path / "a.zip", {"secret": b"1"})
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + offset] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match="'secret' is encrypted"):
        unpack(archive, tmp_path / "out", progress=False)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_the_unpacked_size_is_bounded(tmp_path, kind):
    archive = pack(tmp_path / f"a.{kind}", {"small": b"1" * 10, "bomb": bytes(20_000_000)})
    assert archive.stat().st_size < 100_000
    with pytest.raises(DataError, match="'bomb' takes it past 1,000,000 bytes"):
        unpack(archive, tmp_path / "out", max_bytes=1_000_000, progress=False)
    assert sum(map(len, unpacked(tmp_path / "out").values())) <= 1_000_000


def test_the_number_of_members_is_bounded(tmp_path):
    archive = pack(tmp_path / "a.zip", {str(i): b"" for i in range(30)})
    with pytest.raises(DataError, match="more than 20 members"):
        unpack(archive, tmp_path / "out", max_members=20, progress=False)


@pytest.mark.parametrize("content", [{"x": b"1", "x/y": b"2"}, {"x/y": b"1", "x": b"2"}])
def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path, content):
    archive = pack(tmp_path / "a.tar", content)
    with pytest.raises(DataError, match="collides"):
        unpack(archive, tmp_path / "out", progress=False)


def test_a_tar_that_was_appended_to_gives_the_last_version(tmp_path):
    archive = pack(tmp_path / "a.tar", {"x": b"old"})
    with tarfile.open(archive, "a") as tar:
        entry = tarfile.TarInfo("x")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"new"))
    unpack(archive, tmp_path / "out", progress=False)
    assert unpacked(tmp_path / "out") == {"x": b"new"}


def test_what_is_no_archive_says_so(tmp_path):
    (tmp_path / "a.tar.gz").write_text("<html>Sign in to the network</html>")
    assert not is_archive(tmp_path / "a.tar.gz")
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", progress=False)


def test_the_target_must_be_empty(tmp_path):
    archive = pack(tmp_path / "a.zip")
    with pytest.raises(DataError, match="not empty"):
        unpack(archive, tmp_path, progress=False)
