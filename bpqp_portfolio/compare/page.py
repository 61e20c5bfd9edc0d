"""The comparison as files: Markdown, CSV, figures, and one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.atomic import replacing_file
from ..report.style import (
    INK,
    MUTED,
    WIDE,
    baseline,
    css_colours,
    date_axis,
    drawing,
    heading,
    panels,
    to_svg,
)
from ..report.template import CSS
from .table import ComparisonTable, markdown, methods_in_order, protocol

# Told apart without colour vision too, in this order.
METHOD_COLOURS = ("#1f5fd6", "#d9722b", "#0f8f78", "#c2334d", "#8a5fbf", "#9a7b1d", "#5c6875")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{{ css }}</style></head>
<body><main><header><p class="eyebrow">Comparison</p><h1>{{ title }}</h1>
{% for line in protocol %}<p>{{ line }}</p>{% endfor %}</header>
<h2>Methods</h2><div class="scroll">{{ methods }}</div>
{% if paired %}<h2>Against the matched control</h2><div class="scroll">{{ paired }}</div>{% endif %}
{% for name, svg in figures %}<h2>{{ name }}</h2><figure>{{ svg }}</figure>{% endfor %}
</main></body></html>
"""


def write_comparison(table: ComparisonTable, out: Path) -> list[Path]:
    """Write comparison.md, .csv (a row for each run), .html and figures to ``out``; their paths."""
    title = table.comparison.experiment_name
    text, paired = table.text(), table.paired_text()
    parts = [f"# {title}", *protocol(table), markdown(text)]
    if len(paired):
        parts.append(markdown(paired))
    figures = {
        "Net return against turnover": frontier,
        "Over the index, net, summed, %": growth,
    }
    files = {"comparison.md": "\n\n".join(parts) + "\n", "comparison.csv": table.runs.to_csv()}
    svgs = []
    for name, draw in figures.items():
        with drawing():
            figure = draw(table)
            svgs.append((name, Markup(to_svg(figure, draw.__name__, name))))
            files[f"{draw.__name__}.svg"] = to_svg(figure, draw.__name__, name, themed=False)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    stylesheet = CSS.replace("__LIGHT__", css_colours(0)).replace("__DARK__", css_colours(1))
    files["comparison.html"] = environment.from_string(PAGE).render(
        title=title,
        css=Markup(stylesheet),
        protocol=protocol(table),
        methods=Markup(text.T.rename_axis(columns=None).to_html(border=0)),
        paired=Markup(paired.to_html(border=0, index=False)) if len(paired) else "",
        figures=svgs,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with replacing_file(out / name) as path:
            path.write_text(content, encoding="utf-8")
    return [out / name for name in files]


def _colours(table: ComparisonTable) -> dict[str, str]:
    names = methods_in_order(table.comparison, list(table.net))
    return {name: METHOD_COLOURS[i % len(METHOD_COLOURS)] for i, name in enumerate(names)}


def frontier(table: ComparisonTable) -> Figure:
    """Net and gross excess return over the index against turnover: a dot for each run."""
    figure, axes = panels(WIDE, [300, 300], columns=2, left=52)
    for ax, column, name in zip(axes, ("gross_index", "net_index"), ("Gross", "Net"), strict=True):
        for method, colour in _colours(table).items():
            own = 100 * table.runs.loc[method]
            ax.scatter(own["turnover"], own[column], s=26, color=colour, alpha=0.55, linewidths=0)
            ax.scatter(
                own["turnover"].mean(), own[column].mean(), s=80, color=colour, edgecolors=INK
            )
            ax.annotate(
                table.comparison.methods[method].title,
                (own["turnover"].mean(), own[column].mean()),
                xytext=(7, 5),
                textcoords="offset points",
                color=INK,
                fontsize=11,
            )
        baseline(ax, 0)
        ax.margins(x=0.22, y=0.12)
        heading(ax, f"{name} over the index, % a year, by one-way turnover, % a day", columns=2)
    _share_limits(axes)
    return figure


def growth(table: ComparisonTable) -> Figure:
    """Summed net excess over the index: the mean over seeds, and their range as a band."""
    figure, (ax,) = panels(WIDE, [320], legend=len(table.net))
    for method, colour in _colours(table).items():
        paths = 100 * table.net[method].sub(table.index, axis=0).cumsum()
        values = paths.to_numpy()
        if values.shape[1] > 1:
            low, high = values.min(axis=1), values.max(axis=1)
            ax.fill_between(paths.index, low, high, color=colour, alpha=0.14, linewidth=0)
        ax.plot(
            paths.index,
            values.mean(axis=1),
            color=colour,
            label=table.comparison.methods[method].title,
        )
    baseline(ax, 0)
    date_axis(ax, table.index.index)
    heading(ax, "Mean of the seeds, and the range they span", legend=True)
    return figure


def _share_limits(axes: list[Axes]) -> None:
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        ax.tick_params(axis="x", colors=MUTED)
