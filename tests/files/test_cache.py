"""The array cache: intact entries are read, everything else is built anew."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from bpqp_portfolio.files import cache
from bpqp_portfolio.files.cache import Pieces, cache_root, cached, digest

KEY = {"source": "a", "days": [1, 2], "nested": {"x": 0.1, "y": None}}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    """Counts how often it was asked to build."""

    def __init__(self, **arrays):
        self.arrays = arrays or {
            "table": np.arange(12.0).reshape(3, 4),
            "index": np.array([3, 1, 2]),
            "empty": np.empty((0, 5), dtype=np.float32),
            "flags": np.array([True, False]),
            "codes": np.array(["SH600000", "SZ000001"]),
            "dates": np.array(["2020-01-02", "NaT"], dtype="datetime64[D]"),
            "number": np.array(7),
        }
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.arrays


def assert_intact(found, builder) -> None:
    assert found.keys() == builder.arrays.keys()
    for name, array in builder.arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def entry(root: Path) -> Path:
    (folder,) = [p for p in (root / "risk").iterdir() if not p.name.startswith(".")]
    return folder


def test_what_was_built_once_is_read_afterwards():
    builder = Builder()
    assert_intact(cached("risk", KEY, builder), builder)
    assert_intact(cached("risk", KEY, builder), builder)
    assert builder.calls == 1


def test_the_order_of_keys_does_not_matter_but_every_value_does():
    builder = Builder()
    cached("risk", KEY, builder)
    cached("risk", dict(reversed(KEY.items())), builder)
    assert builder.calls == 1
    for i, change in enumerate(
        ({"source": "b"}, {"days": [2, 1]}, {"nested": {"x": 0.1, "y": 0}}, {"more": None})
    ):
        cached("risk", {**KEY, **change}, builder)
        assert builder.calls == 2 + i
    cached("features", KEY, builder)
    assert builder.calls == 6


def test_values_that_are_not_json_count_by_their_text():
    builder = Builder()
    for key in ({"path": Path("/a"), "pair": (1, 2)}, {"path": Path("/a"), "pair": (1, 2)}):
        cached("risk", key, builder)
    assert builder.calls == 1
    cached("risk", {"path": Path("/b"), "pair": (1, 2)}, builder)
    assert builder.calls == 2
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_changing_an_array_never_changes_the_cache(root):
    builder = Builder()
    for _ in range(2):  # as built, and as read
        found = cached("risk", KEY, builder)
        found["table"][1] = -1.0
        found["flags"][:] = True
        del found
    assert_intact(cached("risk", KEY, builder), builder)
    assert builder.calls == 1


# Damage


def flip_a_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


def change_meta(**changes):
    def damage(folder: Path) -> None:
        path = folder / "meta.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def forget_an_array(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    del meta["arrays"]["table"]
    change_meta(arrays=meta["arrays"])(folder)


DAMAGES = {
    "a flipped bit": lambda f: flip_a_bit(f / "table.npy"),
    "a truncated array": lambda f: os.truncate(f / "table.npy", 100),
    "an empty array": lambda f: os.truncate(f / "table.npy", 0),
    "a lost array": lambda f: (f / "index.npy").unlink(),
    "another array in its place": lambda f: np.save(f / "index.npy", np.zeros(3)),
    "a folder in its place": lambda f: ((f / "index.npy").unlink(), (f / "index.npy").mkdir()),
    "no description": lambda f: (f / "meta.json").unlink(),
    "an empty description": lambda f: (f / "meta.json").write_text(""),
    "a cut description": lambda f: os.truncate(f / "meta.json", 40),
    "a binary description": lambda f: (f / "meta.json").write_bytes(b"\xff\xfe\x00"),
    "a description of another kind": lambda f: (f / "meta.json").write_text("[1, 2]"),
    "a description without arrays": lambda f: (f / "meta.json").write_text('{"version": 1}'),
    "a list of arrays": change_meta(arrays=["table"]),
    "an array that is not described": forget_an_array,
    "an array that is described twice over": lambda f: np.save(f / "more.npy", np.zeros(2)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_built_anew_with_a_warning(root, caplog, damage):
    builder = Builder()
    cached("risk", KEY, builder)
    damage(entry(root))
    with caplog.at_level(logging.WARNING):
        assert_intact(cached("risk", KEY, builder), builder)
    assert builder.calls == 2
    assert f"cache entry {entry(root).name} is damaged" in caplog.text
    assert_intact(cached("risk", KEY, builder), builder)
    assert builder.calls == 2


@pytest.mark.parametrize("change", [{"version": cache.VERSION - 1}, {"key": {**KEY, "days": [9]}}])
def test_an_entry_of_another_version_or_key_is_stale(root, caplog, change):
    builder = Builder()
    cached("risk", KEY, builder)
    change_meta(**change)(entry(root))
    with caplog.at_level(logging.WARNING):
        assert_intact(cached("risk", KEY, builder), builder)
    assert builder.calls == 2 and "is stale" in caplog.text
    cached("risk", KEY, builder)
    assert builder.calls == 2


def test_an_interrupted_build_leaves_nothing_behind(root):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("risk", KEY, interrupted)
    builder = Builder()
    assert_intact(cached("risk", KEY, builder), builder)


def test_an_interrupted_write_leaves_nothing_behind(root, monkeypatch):
    def interrupted(path, *args, **kwargs):
        save(path, *args, **kwargs)
        if path.name == "index.npy":
            raise KeyboardInterrupt

    save = np.save
    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached("risk", KEY, Builder())
    assert list((root / "risk").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("BPQP_CACHE", str(root))
    builder = Builder()
    assert_intact(cached("risk", KEY, builder), builder)


def test_what_a_killed_process_left_is_not_taken_for_an_entry(root):
    builder = Builder()
    cached("risk", KEY, builder)
    folder = entry(root)
    half = root / "risk" / f".{folder.name}.abc.partial" / "new"
    half.mkdir(parents=True)
    (folder / "table.npy").rename(half / "table.npy")
    assert_intact(cached("risk", KEY, builder), builder)
    assert builder.calls == 2


def test_objects_are_not_stored(root):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        cached("risk", KEY, Builder(objects=np.array([{}, None], dtype=object)))
    assert list((root / "risk").iterdir()) == []


# Where, and how many


def test_the_folder_is_named_by_the_environment(root, monkeypatch):
    assert cache_root() == root
    monkeypatch.delenv("BPQP_CACHE")
    assert cache_root() == Path("~/.cache/bpqp_portfolio").expanduser()


def test_the_entries_that_were_used_last_are_kept(root):
    builder = Builder(table=np.zeros(2))

    def use(i):
        before = builder.calls
        cached("risk", {"i": i}, builder)
        if builder.calls > before:  # long ago, in the order of the builds
            long_ago = 1_000_000 + builder.calls
            os.utime(root / "risk" / digest({"i": i})[:32], (long_ago, long_ago))
        return builder.calls > before

    for i in range(cache.KEPT_ENTRIES):
        assert use(i)
    assert not use(0)
    assert use(100)  # one too many: 1 is the one that was not used for longest
    assert not use(0)
    assert use(1)
    entries = [p for p in (root / "risk").iterdir() if not p.name.startswith(".")]
    assert len(entries) == cache.KEPT_ENTRIES


def test_blocks_are_written_as_the_whole_array_would_be():
    array, order = np.arange(40, dtype=np.float32).reshape(10, 4), np.array([7, 0, 9, 3, 3])
    builder = Builder(table=Pieces.of(array, order, rows=2), none=Pieces.of(array, order[:0]))
    for _ in range(2):
        found = cached("kind", KEY, builder)
        np.testing.assert_array_equal(found["table"], array[order])
        assert found["table"].dtype == np.float32 and found["none"].shape == (0, 4)
        assert isinstance(found["table"], np.memmap)
    assert builder.calls == 1
