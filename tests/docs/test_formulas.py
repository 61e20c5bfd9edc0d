"""Formulas of the pages: drawn where matplotlib can set them, an error where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the extra docs is not installed")
from sphinx.errors import SphinxError

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "_ext"))
import formulas


def test_a_formula_stands_on_the_line_of_the_text():
    flat, deep = formulas.drawing("x"), formulas.drawing(r"\tfrac12 z^\top P z_+")
    assert "vertical-align:-0.0" in flat and "vertical-align:-0.0" not in deep
    assert 'fill="currentColor"' in flat and 'aria-label="x"' in flat
    assert flat.count("M") >= 1 and "nan" not in flat


def test_tex_that_cannot_be_set_is_an_error():
    with pytest.raises(SphinxError, match="unknowncommand"):
        formulas.drawing(r"\unknowncommand x")
