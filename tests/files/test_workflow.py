"""Workflows read: what a change of kind replaces, what merges, and where own files are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.files.workflow import merged, read_workflow

MLP = {"predictor": {"name": "mlp", "hidden": [256, 256]}}
OWN = {"class": "Net", "module_path": "desk.py", "kwargs": {"depth": 2}}


@pytest.mark.parametrize(
    ("base", "change", "result"),
    [
        # Another kind replaces the block.
        (MLP, {"predictor": {"name": "gru"}}, {"predictor": {"name": "gru"}}),
        (MLP, {"predictor": "gru"}, {"predictor": {"name": "gru"}}),
        (MLP, {"predictor": OWN}, {"predictor": OWN}),
        ({"predictor": OWN}, {"predictor": "gru"}, {"predictor": {"name": "gru"}}),
        ({"loss": {"name": "huber", "delta": 1}}, {"loss": "mse"}, {"loss": {"name": "mse"}}),
        (
            {"handler": {"class": "A", "module_path": "a", "kwargs": {"fields": [1]}}},
            {"handler": {"class": "B", "module_path": "b"}},
            {"handler": {"class": "B", "module_path": "b"}},
        ),
        (
            {"p": OWN},
            {"p": {"class": "Other"}},
            {"p": {"class": "Other", "module_path": "desk.py"}},
        ),
        ({"p": OWN}, {"p": {**OWN, "module_path": "x.py"}}, {"p": {**OWN, "module_path": "x.py"}}),
        # The same kind, or none, merges.
        (MLP, {"predictor": {"hidden": [8]}}, {"predictor": {"name": "mlp", "hidden": [8]}}),
        (MLP, {"predictor": "mlp"}, MLP),
        (
            {"predictor": "mlp"},
            {"predictor": {"hidden": [8]}},
            {"predictor": {"name": "mlp", "hidden": [8]}},
        ),
        (
            {"p": OWN},
            {"p": {"kwargs": {"wide": 1}}},
            {"p": {**OWN, "kwargs": {"depth": 2, "wide": 1}}},
        ),
        # The settings of risk belong to every model; the model's own options do not.
        (
            {"risk": {"model": "pca", "window": 60}},
            {"risk": "oas"},
            {"risk": {"model": "oas", "window": 60}},
        ),
        (
            {"risk": {"model": {"name": "a", "x": 1}, "window": 60}},
            {"risk": {"model": {"name": "b"}}},
            {"risk": {"model": {"name": "b"}, "window": 60}},
        ),
        # An option of a class that is called name is no kind.
        (
            {"kwargs": {"name": "a", "x": 1}},
            {"kwargs": {"name": "b"}},
            {"kwargs": {"name": "b", "x": 1}},
        ),
        # Names of files are no kinds either.
        ({"sectors": "a.csv"}, {"sectors": {"count": 3}}, {"sectors": {"count": 3}}),
        ({"sectors": {"count": 3}}, {"sectors": "a.csv"}, {"sectors": "a.csv"}),
        # What is dropped leaves no trace.
        ({"a": 1, "b": 2}, {"a": "__DROP__"}, {"b": 2}),
        (MLP, {"predictor": {"name": "gru", "hidden": "__DROP__"}}, {"predictor": {"name": "gru"}}),
        ({}, {"new": {"x": "__DROP__", "y": 1}}, {"new": {"y": 1}}),
    ],
)
def test_a_change_replaces_another_kind_and_merges_with_its_own(base, change, result):
    assert merged(base, change) == result


def test_changes_are_made_in_order_and_leave_their_inputs_alone():
    base, first = {"a": {"x": [1]}}, {"a": {"y": 2}}
    out = merged(base, first, {"a": {"x": [3]}})
    assert out == {"a": {"x": [3], "y": 2}}
    out["a"]["x"].append(4)
    assert base == {"a": {"x": [1]}} and first == {"a": {"y": 2}}


def test_a_file_of_own_classes_lies_beside_the_workflow_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "flows").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "flows" / "mine.py").touch()
    (tmp_path / "base" / "theirs.py").touch()
    (tmp_path / "base" / "base.yaml").write_text(
        "task: {record: [{class: A, module_path: theirs.py}], x: {class: X, module_path: no.py}}"
    )
    (tmp_path / "flows" / "flow.yaml").write_text(
        "BASE_CONFIG_PATH: ../base/base.yaml\ntask: {model: {class: B, module_path: ./mine.py}}"
    )
    monkeypatch.chdir(tmp_path)
    task = read_workflow(Path("flows/flow.yaml"))["task"]
    assert task["record"][0]["module_path"] == str(tmp_path / "base" / "theirs.py")
    assert task["model"]["module_path"] == str(tmp_path / "flows" / "mine.py")
    assert task["x"]["module_path"] == "no.py"


def test_a_base_that_names_a_base_is_refused(tmp_path):
    (tmp_path / "base.yaml").write_text("task: {model: {class: A}}")
    (tmp_path / "middle.yaml").write_text("BASE_CONFIG_PATH: base.yaml")
    (tmp_path / "flow.yaml").write_text(f"BASE_CONFIG_PATH: {tmp_path}/middle.yaml")
    message = r"flow\.yaml: its BASE_CONFIG_PATH .*middle\.yaml names a base itself, 'base\.yaml'"
    with pytest.raises(ConfigError, match=message):
        read_workflow(tmp_path / "flow.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"flow\.yaml, line 1, column 5: expected the node"),
        ("- a", "expected a mapping"),
        ("BASE_CONFIG_PATH: no.yaml", "no file"),
    ],
)
def test_a_file_that_is_no_workflow_is_named(tmp_path, text, message):
    (tmp_path / "flow.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_workflow(tmp_path / "flow.yaml")
