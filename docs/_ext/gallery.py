"""Notebooks as tutorials: copied below docs/tutorials, each with a picture for its card."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

LONG = 12
"""Lines of code beyond which a cell is folded on the page, so that its picture is seen first."""


def first_picture(name: str, notebook: dict[str, Any]) -> bytes:
    """The first PNG among a notebook's stored outputs.

    Raises
    ------
    SphinxError
        The notebook was stored without one.
    """
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", ())):
        if png := output.get("data", {}).get("image/png"):
            return base64.b64decode("".join(png))
    raise SphinxError(f"notebooks/{name}: stored without a picture; run `make notebooks`.")


def copy_notebooks(app: Sphinx) -> None:
    """Put each notebook of the checkout and its picture below docs/tutorials; git ignores both."""
    there = Path(app.srcdir) / "tutorials"
    pictures = there / "pictures"
    pictures.mkdir(exist_ok=True)
    for path in sorted((Path(app.srcdir).parent / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        # Cells may hold commands of IPython (`!git`), which are no Python.
        notebook["metadata"].setdefault("language_info", {})["pygments_lexer"] = "ipython3"
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code" and len(cell["source"]) > LONG:
                cell["metadata"].setdefault("tags", []).append("hide-input")
        text = json.dumps(notebook)
        copy = there / path.name
        if not copy.is_file() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")
        (pictures / f"{path.stem}.png").write_bytes(first_picture(path.name, notebook))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
