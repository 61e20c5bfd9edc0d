"""Formulas as drawings within the page, by matplotlib: no script, no network, the text's colour."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

EM, SIZE = 100.0, 115.0
"""Units of a drawing in an em of the text, and the size of its letters."""
_FONT = FontProperties(math_fontfamily="stix", size=SIZE)
_PARSER = MathTextParser("path")
_SAME = (
    (r"\\operatorname\{", r"\\mathrm{"),
    (r"\\tfrac\s*(\d)(\d)", r"\\frac{\1}{\2}"),
    (r"\\tfrac", r"\\frac"),
    (r"\\[lr]Vert\b", r"\\Vert "),
    (r"\\([lg])e\b", r"\\\1eq"),
    (r"\\[bB]ig\b", ""),
    (r"\\;", r"\\,"),
    (r"\\top\b", r"{\\mathrm{T}}"),
    (r"([\^_])(\\star\b|\+)", r"\1{\2}"),  # no room around what is no operator here
)
"""TeX that matplotlib does not know or sets with gaps, and what stands for it."""
_LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}


@cache
def drawing(tex: str) -> str:
    """An ``<svg>`` of a formula, whose baseline is the text's.

    Raises
    ------
    SphinxError
        TeX that matplotlib cannot set.
    """
    text = " ".join(tex.split())
    for pattern, instead in _SAME:
        text = re.sub(pattern, instead, text)
    try:
        width, height, depth, *_ = _PARSER.parse(f"${text}$", 72, _FONT)
        outline = TextPath((0, 0), f"${text}$", prop=_FONT)
    except ValueError as error:
        raise SphinxError(f"matplotlib cannot set the formula {tex!r}: {error}") from error
    # A path points up, an SVG down; `depth` is below the baseline, `height` all of it.
    steps = [
        "Z" if code == Path.CLOSEPOLY else _LETTERS[code] + _numbers(points)
        for points, code in outline.iter_segments(simplify=False)
    ]
    top = depth - height
    return (
        f'<svg class="formula" role="img" aria-label="{html.escape(tex.strip())}" '
        f'viewBox="0 {top:.1f} {width:.1f} {height:.1f}" fill="currentColor" '
        f'style="width:{width / EM:.3f}em;height:{height / EM:.3f}em;'
        f'vertical-align:{-depth / EM:.3f}em"><path d="{"".join(steps)}"/></svg>'
    )


def _numbers(points: Any) -> str:
    """Coordinates (x, y, x, y, …) in a picture whose y points down."""
    return " ".join(f"{-v if place % 2 else v:.1f}" for place, v in enumerate(points))


def _inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(drawing(node.astext()))
    raise nodes.SkipNode


def _display(writer: Any, node: nodes.Element) -> None:
    tex = node.astext().replace(r"\frac", r"\dfrac")
    writer.body.append(f'<div class="formula">{drawing(tex)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathtext", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
