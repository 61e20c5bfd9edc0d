"""Every notebook runs from top to bottom on data it makes, and git holds none of its outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


EXPECTED = ["01_layer", "02_end_to_end_vs_two_stage", "03_backtest"]
CHOICES = ("BPQP_RUN", "BPQP_DAY", "BPQP_TWO_STAGE_RUN", "BPQP_END_TO_END_RUN", "BPQP_PROVIDER_URI")
"""Variables by which a user points a notebook at runs and data of his own."""


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == EXPECTED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs"), f"run `jupyter nbconvert --clear-output --inplace {path}`"
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """Without an error or a warning, with figures, and without a file left where it was started."""
    for folder in ("cache", "temporary", "start"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    for name in (*CHOICES, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    beside = set(path.parent.iterdir())

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "start")}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert list((tmp_path / "start").iterdir()) == []
    assert set(path.parent.iterdir()) == beside
