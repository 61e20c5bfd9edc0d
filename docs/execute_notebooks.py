"""Execute the notebooks in place (`make notebooks`), with light pictures and no local path."""

from __future__ import annotations

import base64
import io
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from bpqp_portfolio.experiments.starter import workflow_header, write_starter

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
COLOURS = 64  # of a picture's palette, which makes it a third as large
NEEDS_RUN = {"03_backtest": "mandate_demo.yaml"}


def execute(path: Path, project: Path) -> None:
    """Run a notebook in ``project`` and write it back with its outputs.

    Raises
    ------
    RuntimeError
        A cell fails, writes to stderr, or shows a path of this machine.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(project / "notebooks")}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{path.name}: a cell writes to stderr: {output.text}")
            picture = output.get("data", {}).get("image/png")
            if picture:
                output.data["image/png"] = lighter(picture)
    text = nbformat.writes(notebook)
    for place in (tempfile.gettempdir(), str(Path.home()), str(NOTEBOOKS.parent)):
        if f"{place}/" in text:
            raise RuntimeError(f"{path.name}: an output shows {place}.")
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


def lighter(picture: str) -> str:
    """A PNG picture in base64, with a palette."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    out = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def main(names: list[str]) -> None:
    """Execute the notebooks named, or all, in a starter project that has the run they need."""
    for variable in [key for key in os.environ if key.startswith(("BPQP_", "MLFLOW_"))]:
        if variable != "BPQP_CACHE":
            del os.environ[variable]
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "demo"
        write_starter(project)
        for name in names or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")):
            if workflow := NEEDS_RUN.get(name):
                for command in workflow_header(project / "workflows" / workflow)[1].split(" && "):
                    script, *arguments = shlex.split(command)
                    script = str(Path(sys.executable).with_name(script))
                    subprocess.run([script, *arguments], cwd=project, check=True)
            execute(NOTEBOOKS / f"{name}.ipynb", project)


if __name__ == "__main__":
    main(sys.argv[1:])
