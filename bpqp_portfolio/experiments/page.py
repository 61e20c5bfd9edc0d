"""The comparison as files: Markdown, CSV, figures, and one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..files.atomic import replacing_file
from ..report.style import css_colours, drawing, to_svg
from ..report.template import CSS
from .figures import CAPTIONS, NARROW, WIDE, frontier, gains, growth
from .headline import headline
from .notes import absent, markdown, protocol
from .table import ComparisonTable

FIGURES = {"gains": gains, "frontier": frontier, "growth": growth}
STYLE = """
body { display: block; }
main { max-width: 1120px; }
main h2 { margin-top: 2.5rem; }
.partial { border-left: 4px solid var(--bad); background: var(--card); padding: 0.6rem 1rem; }
.partial p { max-width: none; overflow-wrap: anywhere; }
.scroll th:first-child { position: sticky; left: 0; background: var(--paper); min-width: 11rem;
  max-width: 22rem; text-align: left; }
.scroll td.no { color: var(--bad); } .scroll td.yes { color: var(--net); font-weight: 640; }
.scroll td.text { white-space: normal; min-width: 6rem; text-align: left; }
.scroll thead th { white-space: normal; vertical-align: bottom; }
.paired td { white-space: normal; min-width: 3.8rem; }
.paired th, .paired td { padding-left: 0.35rem; padding-right: 0.35rem; }
.paired td:first-of-type { text-align: left; min-width: 9rem; }
table { font-size: 0.85rem; }
@media (max-width: 900px) { .wide { display: none; } .narrow { display: block; max-width: 480px; } }
figure svg [style*="#ffffff"] { fill: var(--paper) !important; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{{ css }}</style></head>
<body><main><header><div class="eyebrow">Comparison</div><h1>{{ title }}</h1>
<p class="lead">{{ headline[0] }}</p>
{%- for sentence in headline[1:] %}<p>{{ sentence }}</p>{% endfor %}</header>
{% if absent %}<div class="partial">{% for line in absent %}<p>{{ line }}</p>{% endfor %}</div>
{% endif -%}
{% for figure in figures[:1] %}{{ picture(figure) }}{% endfor %}
{% for name, rows in tables[:1] %}<h2>{{ name }}</h2>{{ table(rows) }}{% endfor %}
{% if paired %}<h2>Each method against its controls, paired by day</h2>
<div class="paired">{{ table(paired) }}</div>{% endif %}
{% for figure in figures[1:] %}{{ picture(figure) }}{% endfor %}
{% for name, rows in tables[1:] %}<h2>{{ name }}</h2>{{ table(rows) }}{% endfor %}
<h2>How it was measured</h2><ul class="notes">
{% for line in protocol %}<li>{{ line }}</li>{% endfor %}</ul>
</main></body></html>
"""
TABLE = """{% macro table(rows) %}<div class="scroll"><table><thead><tr>
{%- for cell in rows[0] %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows[1:] %}<tr><th scope="row">{{ row[0] }}</th>
{%- for cell in row[1:] %}<td{% if cell.startswith("yes") %} class="text yes"
{%- elif cell.startswith(("no", "vanishes")) %} class="text no"{% endif %}>
{{- cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endmacro %}
{% macro picture(figure) %}<h2>{{ figure.name }}</h2>
<figure><div class="wide">{{ figure.wide }}</div><div class="narrow">{{ figure.narrow }}</div>
<figcaption>{{ figure.caption }}</figcaption></figure>{% endmacro %}"""


def write_comparison(table: ComparisonTable, out: Path) -> list[Path]:
    """Write comparison.md, .csv (a row for each run), .html and figures to ``out``; their paths."""
    title, paired = table.comparison.experiment_name, table.paired_text()
    said = headline(table)
    parts = [f"# {title}", f"**{said[0]}**", *said[1:], *absent(table)]
    for number, (name, frame) in enumerate(table.groups().items()):
        parts += [f"## {name}", markdown(frame)]
        if not number and len(paired):
            parts += ["## Each method against its controls, paired by day", markdown(paired)]
    parts += ["## How it was measured", "\n".join(f"- {line}" for line in protocol(table))]
    files = {"comparison.md": "\n\n".join(parts) + "\n", "comparison.csv": table.runs.to_csv()}
    over = f"Net over {table.benchmark_name}" if table.benchmark_name else "Net return"
    names = {
        "gains": "Net gains over the controls",
        "frontier": "Return against turnover",
        "growth": f"{over}, compounded, %",
    }
    figures = []
    for key, draw in FIGURES.items():
        with drawing():
            drawn = {width: draw(table, width) for width in (WIDE, NARROW)}
            svgs = {
                width: to_svg(figure, f"{key}{width}", names[key])
                for width, figure in drawn.items()
                if figure is not None
            }
            if (figure := drawn[WIDE]) is None:
                continue
            files[f"{key}.svg"] = to_svg(figure, key, names[key], themed=False)
        wide, narrow = (Markup(svgs[width]) for width in (WIDE, NARROW))
        figures.append(
            {"name": names[key], "caption": CAPTIONS[key], "wide": wide, "narrow": narrow}
        )
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    stylesheet = CSS.replace("__LIGHT__", css_colours(0)).replace("__DARK__", css_colours(1))
    files["comparison.html"] = environment.from_string(TABLE + PAGE).render(
        title=title,
        headline=said,
        css=Markup(stylesheet + STYLE),
        absent=absent(table),
        protocol=protocol(table),
        tables=[(name, _rows(frame)) for name, frame in table.groups().items()],
        paired=_rows(paired.set_index("Method"), once=True) if len(paired) else None,
        figures=figures,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with replacing_file(out / name) as path:
            path.write_text(content, encoding="utf-8")
    return [out / name for name in files]


def _rows(frame: pd.DataFrame, *, once: bool = False) -> list[list[str]]:
    """The header and the rows of a frame of text, its index first; ``once``: where it changes."""
    whole = frame.reset_index()
    if once:
        first = whole.columns[0]
        whole[first] = whole[first].where(whole[first] != whole[first].shift(), "")
    return [list(map(str, whole.columns)), *(list(map(str, row)) for row in whole.to_numpy())]
