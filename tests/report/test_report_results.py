"""Saved results come back as they were, and a bad table or folder is refused by name."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from bpqp_portfolio.errors import DataError
from bpqp_portfolio.runs.results import COLUMNS, load_results, plain, save_results


def test_round_trip(run, tmp_path):
    folder = save_results(run, tmp_path / "results")
    back = load_results(folder)
    for field in dataclasses.fields(run):
        ours, theirs = getattr(run, field.name), getattr(back, field.name)
        if field.name in COLUMNS:
            assert_frame_equal(ours, theirs, check_freq=False, check_dtype=False)
        else:
            assert ours == theirs, field.name


def test_only_parquet_and_json_are_written(run, tmp_path):
    folder = save_results(run, tmp_path / "results")
    written = sorted(path.name for path in folder.iterdir())
    tables = ["shortfall" if name == "implementation_shortfall" else name for name in COLUMNS]
    assert written == sorted([*(f"{table}.parquet" for table in tables), "results.json"])
    facts = json.loads((folder / "results.json").read_text())
    assert facts["stages"] == run.timing  # the names in the files are those of earlier runs


def test_empty_tables_survive(changed, tmp_path):
    empty = pd.DataFrame({"epoch": []})
    bare = changed(epochs=empty, signal=pd.DataFrame(), best_epoch=None)
    back = load_results(save_results(bare, tmp_path / "results"))
    assert back.epochs.empty and back.signal.empty and back.best_epoch is None


def test_results_are_replaced_as_a_whole(run, changed, tmp_path):
    folder = save_results(run, tmp_path / "results")
    save_results(changed(name="second"), folder)
    assert load_results(folder).name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_folder_of_something_else_is_not_replaced(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds no saved results"):
        save_results(run, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_plain_turns_everything_into_json():
    value = {
        1: np.float32(0.5),
        "day": datetime.date(2020, 1, 2),
        "stamp": pd.Timestamp("2020-01-02 03:04"),
        "path": Path("a/b"),
        "array": np.arange(3),
        "nested": ({"yes": np.bool_(True)}, None),
    }
    expected = {
        "1": 0.5,
        "day": "2020-01-02",
        "stamp": "2020-01-02T03:04:00",
        "path": "a/b",
        "array": [0, 1, 2],
        "nested": [{"yes": True}, None],
    }
    assert json.loads(json.dumps(plain(value))) == expected


def damage_truncated(folder):
    path = folder / "daily.parquet"
    path.write_bytes(path.read_bytes()[:100])


def damage_flipped(folder):
    path = folder / "weights.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_missing(folder):
    (folder / "signal.parquet").unlink()


def damage_json(folder):
    path = folder / "results.json"
    path.write_text(path.read_text()[:50])


def damage_foreign(folder):
    (folder / "results.json").write_text('{"metrics": 3}')


def damage_list(folder):
    (folder / "results.json").write_text("[1, 2]")


def damage_facts(folder):
    path = folder / "results.json"
    facts = json.loads(path.read_text())
    del facts["run_id"]
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncated, "daily.parquet is damaged"),
        (damage_flipped, "weights.parquet is damaged"),
        (damage_missing, "signal.parquet is missing"),
        (damage_json, "results.json is damaged"),
        (damage_foreign, "damaged or not ours"),
        (damage_list, "damaged or not ours"),
        (damage_facts, "run_id"),
    ],
)
def test_damage_is_named(run, tmp_path, damage, message):
    folder = save_results(run, tmp_path / "results")
    damage(folder)
    with pytest.raises(DataError, match=message):
        load_results(folder)


def test_other_schema_is_refused(run, tmp_path):
    folder = save_results(run, tmp_path / "results")
    path = folder / "results.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "schema": 99}))
    with pytest.raises(DataError, match="schema version 99"):
        load_results(folder)


def test_absent_folder(tmp_path):
    with pytest.raises(DataError, match="no saved results"):
        load_results(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("daily", lambda t: t.rename(columns={"cost": "costs"}), "Did you mean 'cost'"),
        ("daily", lambda t: t.drop(columns="return"), "missing return"),
        ("daily", lambda t: t.iloc[:0], "no trading day"),
        ("daily", lambda t: t.iloc[::-1], "increasing"),
        ("daily", lambda t: t.reset_index(drop=True), "indexed by day"),
        ("daily", lambda t: t.assign(bench=np.inf), "'bench'"),
        ("daily", lambda t: t.assign(cost="much"), "'cost'.*numbers"),
        ("signal", lambda t: pd.concat([t, t.iloc[-1:]]), "unique"),
        ("weights", lambda t: t.drop(columns="weight"), "missing weight"),
        ("weights", lambda t: pd.concat([t, t.iloc[:1]]), "occurs twice on 2019-01-02"),
        ("weights", lambda t: t.assign(datetime=t["datetime"].astype(str)), "must hold dates"),
        ("realised", lambda t: t.assign(weight=np.nan), "not finite"),
        ("epochs", lambda t: t.to_numpy(), "expected a table"),
    ],
)
def test_bad_tables_are_refused(run, changed, table, change, message):
    with pytest.raises(DataError, match=message):
        changed(**{table: change(getattr(run, table))})
