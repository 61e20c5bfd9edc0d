"""Every notebook runs from top to bottom, and is stored with outputs that show it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

EXPECTED = ["01_layer", "02_end_to_end_vs_two_stage", "03_backtest"]
ALONE = [path for path in NOTEBOOKS if path.stem != "03_backtest"]
"""Those that make their own data; the third reads a run (tests/workflows/)."""
CHOICES = ("BPQP_RUN", "BPQP_DAY", "BPQP_TWO_STAGE_RUN", "BPQP_END_TO_END_RUN", "BPQP_PROVIDER_URI")
"""Variables by which a user points a notebook at runs and data of his own."""
LARGEST = 1.5e6  # bytes of all together
AGAIN = "; run `make notebooks`"


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == EXPECTED


def test_the_stored_notebooks_are_light():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_stored(path):
    """Every code cell was executed, in order, without an error; nothing in it changes by itself."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), path.name + AGAIN
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {
        "display_data",
        "execute_result",
        "stream",
    }
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 5, path.name + AGAIN
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    shown = " ".join(str(o.get("text", "")) + str(o.get("data", {})) for o in outputs)
    for place in (tempfile.gettempdir(), "/home/", Path("~root").expanduser(), Path.home()):
        assert f"{place}/".replace("//", "/") not in re.sub(r"[A-Za-z0-9+/=]{200,}", "", shown)


@pytest.mark.slow
@pytest.mark.parametrize("path", ALONE, ids=lambda p: p.stem)
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
