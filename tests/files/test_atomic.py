"""What killed writers left is swept, what live ones write stays; a full disk is one clear error."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bpqp_portfolio.errors import BPQPError, StorageError
from bpqp_portfolio.files.atomic import replacing_file, replacing_folder, scratch_folder, sweep
from bpqp_portfolio.files.cache import cached
from bpqp_portfolio.training.checkpoint import load_checkpoint, save_checkpoint

WRITE = """
import sys, time
from pathlib import Path
from bpqp_portfolio.files.atomic import replacing_file, replacing_folder
place = Path(sys.argv[1])
with replacing_folder(place / "entry") as folder, replacing_file(place / "file.csv") as file:
    (folder / "part.npy").write_bytes(b"0" * 1000)
    file.write_text("half")
    (place / "ready").touch()
    time.sleep(600)
"""


def scratch(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir() if ".partial" in p.name)


@contextlib.contextmanager
def writer(place: Path):
    """A process that is in the middle of writing a folder and a file; killed in the end."""
    place.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(place)], env=environment)
    try:
        while not (place / "ready").exists():
            assert process.poll() is None
            time.sleep(0.02)
        (place / "ready").unlink()
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_live_ones_stays(tmp_path):
    place = tmp_path / "cache" / "risk"
    with writer(place) as process:
        assert len(scratch(place)) == 2
        with replacing_file(place / "other.json") as file:
            file.write_text("{}")
        sweep(place)
        assert len(scratch(place)) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(scratch(place)) == 2
        with replacing_folder(place / "another") as folder:
            (folder / "x").touch()
    assert sorted(p.name for p in place.iterdir()) == ["another", "other.json"]


def test_the_cache_sweeps_what_its_writers_left(tmp_path, monkeypatch):
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path))
    with writer(tmp_path / "risk"):
        pass
    assert len(scratch(tmp_path / "risk")) == 2
    cached("risk", {"a": 1}, lambda: {"x": np.zeros(3)})
    assert scratch(tmp_path / "risk") == []


def test_nothing_of_others_is_swept(tmp_path):
    names = [".notes.partial", "a.partial", ".x.0123.partial", ".swap.0123456789abcdef.part"]
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_what_earlier_versions_left_goes_after_a_day(tmp_path):
    names = [".entry.k3j_x9ab.partial", f".file.{'0a' * 16}.partial.csv", ".abcdefgh.unpacked"]
    for age, kept in ((0, 3), (2 * 86_400, 0)):
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
            os.utime(tmp_path / name, (time.time() - age,) * 2)
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == kept


def test_a_scratch_folder_is_gone_afterwards(tmp_path):
    with scratch_folder(tmp_path / "source") as folder:
        (folder / "x").touch()
        sweep(tmp_path)
        assert (folder / "x").exists()
    assert list(tmp_path.iterdir()) == []


# Full and unwritable places --------------------------------------------------------------------


@pytest.fixture
def no_more_than():
    """Files of this process may not grow past a number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def limit(count: int):
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


def test_a_cache_without_room_is_named_with_its_variable(tmp_path, monkeypatch, no_more_than):
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path))
    table = np.zeros(100_000)
    match = rf"cannot write {tmp_path}/risk/.*MiB free there.*BPQP_CACHE"
    with no_more_than(50_000), pytest.raises(StorageError, match=match):
        cached("risk", {"a": 1}, lambda: {"table": table})
    assert list((tmp_path / "risk").iterdir()) == []
    checkpoint = tmp_path / "checkpoints" / "run.pt"
    with no_more_than(50_000), pytest.raises(StorageError, match=r"run\.pt.*BPQP_CACHE"):
        save_checkpoint(checkpoint, "key", state={"x": np.zeros(100_000).tolist()})
    assert load_checkpoint(checkpoint, "key") is None
    assert len(cached("risk", {"a": 1}, lambda: {"table": table})["table"]) == 100_000


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("3961500 requested and 151520 written"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
)
def test_whatever_a_disk_says_it_is_one_clear_error(tmp_path, error):
    for replacing in (replacing_file, replacing_folder):
        target = tmp_path / "weights.csv"
        match = r"cannot write .*weights\.csv: .*name another"
        with pytest.raises(StorageError, match=match), replacing(target):
            raise error
        assert issubclass(StorageError, BPQPError) and list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_stays_what_it_is(tmp_path):
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/somewhere/else.bin")
    for error in (elsewhere, FileNotFoundError(errno.ENOENT, "No such file", "x"), OSError("odd")):
        with pytest.raises(OSError) as found, replacing_file(tmp_path / "weights.csv"):
            raise error
        assert found.value is error


@pytest.mark.parametrize("place", ["a file/cache", "/proc/cache"])
def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch, place):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path / place))
    with pytest.raises(StorageError, match=r"cannot write .*cache.*BPQP_CACHE"):
        cached("risk", {"a": 1}, lambda: {"x": np.zeros(3)})


def test_an_entry_of_a_read_only_cache_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path))
    cached("risk", {"a": 1}, lambda: {"x": np.arange(3)})

    def refused(*args, **kwargs):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    np.testing.assert_array_equal(cached("risk", {"a": 1}, dict)["x"], [0, 1, 2])
