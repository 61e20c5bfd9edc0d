"""The report's HTML and CSS: one page that needs nothing outside itself."""

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f7f9; __LIGHT__ }
@media (prefers-color-scheme: dark) { :root { --paper: #12171d; --card: #1a2027; __DARK__ }
  figure svg image { filter: brightness(1.35); } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    "Liberation Sans", sans-serif;
}
a { color: var(--net); text-decoration: none; }
a:hover { text-decoration: underline; }
main, nav { padding: 0 1.25rem; }
main { max-width: 900px; margin: 0 auto; padding-bottom: 5rem; }
header { padding: 2.75rem 0 0; }
#summary h2 { display: none; }
h1, h2, h3 { line-height: 1.2; letter-spacing: -0.012em; overflow-wrap: anywhere; }
h1 { font-size: 2rem; margin: 0.15rem 0 0.5rem; }
h2 { font-size: 1.4rem; margin: 3.5rem 0 0.5rem; padding-top: 1.1rem;
  border-top: 1px solid var(--grid); }
h3 { font-size: 1.02rem; margin: 2.25rem 0 0.35rem; letter-spacing: 0; }
p { margin: 0.5rem 0; max-width: 68ch; }
.eyebrow { color: var(--muted); font-size: 0.8rem; letter-spacing: 0.09em;
  text-transform: uppercase; }
.facts { color: var(--muted); max-width: none; }
.facts span:not(:last-child)::after { content: "·"; margin: 0 0.5em; }
.facts span { display: inline-block; max-width: 100%; overflow-wrap: anywhere; }
.lead { font-size: 1.28rem; line-height: 1.4; font-weight: 600; letter-spacing: -0.01em;
  margin: 1.1rem 0 0.4rem; max-width: 56ch; text-wrap: pretty; }
code, pre { font: 12.5px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono",
  monospace; }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 0.75rem;
  margin: 1.3rem 0 0.6rem;
  padding: 0; list-style: none; }
.cards li { background: var(--card); border-radius: 10px; padding: 0.85rem 1rem; min-width: 0; }
.cards li { border-left: 3px solid transparent; }
.cards .good b { color: var(--net); } .cards .good.sure { border-color: var(--net); }
.cards .bad b { color: var(--bad); } .cards .bad.sure { border-color: var(--bad); }
.cards b { display: block; font-size: 1.45rem; line-height: 1.25; letter-spacing: -0.015em;
  font-weight: 640; font-variant-numeric: tabular-nums; white-space: nowrap; }
.cards span { display: block; font-size: 0.82rem; }
.cards small { display: block; color: var(--muted); font-size: 0.78rem; line-height: 1.35; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 0; }
th, td { padding: 0.42rem 0.6rem; text-align: right; border-bottom: 1px solid var(--grid);
  vertical-align: baseline; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 400; }
td { white-space: nowrap; }
thead th { color: var(--muted); font-size: 0.85rem; border-bottom: 1px solid var(--muted); }
tr.strong th, tr.strong td { font-weight: 640; }
tr.last th, tr.last td { border-bottom-color: var(--muted); }
table.facts-table td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts-table th { width: 13rem; color: var(--muted); text-align: left; }
table.events td { text-align: left; white-space: normal; min-width: 8rem; }
table.events th { white-space: nowrap; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 3rem; align-items: start; }
figure { margin: 0.25rem 0 0; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg text { font-family: inherit !important; font-variant-numeric: tabular-nums; }
figure svg image { image-rendering: pixelated; }
.narrow { display: none; }
figcaption, .caption { color: var(--muted); font-size: 0.86rem; line-height: 1.45;
  margin: 0.5rem 0 0; max-width: 78ch; }
figcaption b, .caption b { color: var(--ink); font-weight: 600; }
.absent { color: var(--muted); background: var(--card); border-radius: 10px; max-width: none;
  padding: 0.85rem 1rem; }
details { background: var(--card); border-radius: 10px; margin: 0.75rem 0; }
summary { cursor: pointer; padding: 0.7rem 1rem; font-weight: 600; }
details pre, details .scroll { margin: 0; padding: 0 1rem 1rem; overflow-x: auto; }
.bar { display: block; height: 0.55rem; border-radius: 3px; background: var(--net);
  min-width: 2px; }
td.share { width: 45%; }
ul.notes { padding-left: 1.1rem; max-width: 74ch; }
ul.notes li { margin: 0.4rem 0; }
nav { font-size: 0.9rem; }
nav ol { list-style: none; margin: 0; padding: 0; }
nav li { margin: 0.15rem 0; }
nav ol ol { padding-left: 0.8rem; border-left: 1px solid var(--grid); margin: 0.2rem 0 0.5rem; }
nav ol ol a { color: var(--muted); }
nav summary { padding: 0.6rem 1rem; }
nav details > ol { padding: 0 1rem 0.8rem; columns: 2; column-gap: 1.5rem; }
nav details > ol > li { break-inside: avoid; }
nav .side { display: none; }
@media (min-width: 1180px) {
  body { display: grid; grid-template-columns: 230px minmax(0, 1fr); }
  main { margin: 0 auto; width: 100%; }
  nav { padding: 2.9rem 0 2rem 1.75rem; position: sticky; top: 0; align-self: start;
    max-height: 100vh; overflow-y: auto; }
  nav .side { display: block; }
  nav details { display: none; }
}
@media (max-width: 1179px) { nav { padding-top: 1rem; max-width: 900px; margin: 0 auto; } }
@media (max-width: 600px) {
  body { font-size: 14.5px; }
  header { padding-top: 1.25rem; }
  main, nav { padding-left: 1rem; padding-right: 1rem; }
  h1 { font-size: 1.6rem; }
  .lead { font-size: 1.12rem; }
  .wide { display: none; }
  .narrow { display: block; max-width: 480px; }
  .cards { grid-template-columns: repeat(2, 1fr); gap: 0.5rem; }
  .cards li { padding: 0.7rem 0.8rem; }
  .cards li { border-left: 3px solid transparent; }
.cards .good b { color: var(--net); } .cards .good.sure { border-color: var(--net); }
.cards .bad b { color: var(--bad); } .cards .bad.sure { border-color: var(--bad); }
.cards b { font-size: 1.25rem; }
  .pair { grid-template-columns: 1fr; }
  .facts span { display: block; }
  .facts span:not(:last-child)::after { content: none; }
  th, td { padding: 0.4rem 0.4rem; font-size: 0.88rem; }
  table.books th, table.books td { padding: 0.4rem 0 0.4rem 0.5rem; font-size: 0.8rem; }
  table.books th:first-child { padding-left: 0; }
  table.facts-table th { width: 6.5rem; }
}
@media print {
  nav { display: none; }
  body { display: block; }
  main { max-width: none; }
  figure, table, .cards li { break-inside: avoid; }
}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ name }}: report of a run</title>
<link rel="icon" href="data:,">
<style>{{ css }}</style>
</head>
<body>
{%- macro contents() %}
<ol>
{%- for section in sections %}
<li><a href="#{{ section.id }}">{{ section.title }}</a>
{%- if section.plots %}<ol>
{%- for plot in section.plots %}<li><a href="#{{ plot.id }}">{{ plot.title }}</a></li>{% endfor -%}
</ol>{% endif %}</li>
{%- endfor %}
</ol>
{%- endmacro %}
{%- macro facts(rows) %}
<table class="facts-table"><tbody>
{%- for label, lines in rows %}
<tr><th scope="row">{{ label }}</th>
<td>{% for line in lines %}<div>{{ line }}</div>{% endfor %}</td></tr>
{%- endfor %}
</tbody></table>
{%- endmacro %}
<nav aria-label="Contents">
<div class="side">{{ contents() }}</div>
<details><summary>Contents</summary>{{ contents() }}</details>
</nav>
<main>
<header>
<div class="eyebrow">Report of a run</div>
<h1>{{ name }}</h1>
<p class="facts">{% for fact in facts_line %}<span>{{ fact }}</span>{% endfor %}</p>
<p class="lead">{{ headline[0] }}</p>
{%- if headline[1:] %}
<p>{{ headline[1:] | join(" ") }}</p>
{%- endif %}
{%- for caution in cautions %}
<p class="absent">{{ caution }}</p>
{%- endfor %}
</header>
{%- for section in sections %}
<section id="{{ section.id }}">
<h2>{{ section.title }}</h2>
{%- if section.id == "summary" %}
<ul class="cards">
{%- for card in cards %}
<li class="{{ card.tone }}{{ " sure" if card.sure }}"><span>{{ card.label }}</span>
<b>{{ card.value }}</b><small>{{ card.note }}</small></li>
{%- endfor %}
</ul>
<p class="caption">Returns are net of cost where that is said. An edge in the figure’s colour: its
95 % interval excludes zero, or the difference to both references does.</p>
{%- endif %}
{%- for plot in section.plots %}
<h3 id="{{ plot.id }}">{{ plot.title }}</h3>
{%- if plot.wide %}
<figure>
<div class="wide">{{ plot.wide }}</div>
<div class="narrow">{{ plot.narrow }}</div>
<figcaption><b>Figure {{ plot.number }}.</b> {{ plot.caption }}</figcaption>
</figure>
{%- else %}
<p class="absent">{{ plot.absent }}</p>
{%- endif %}
{%- endfor %}
{%- if section.id == "summary" %}
<h3 id="figures">Figures of the test</h3>
<div class="scroll"><table class="books">
<thead><tr><th></th><th scope="col">Return</th><th scope="col">Volatility</th>
<th scope="col">Sharpe or IR</th><th scope="col">Max drawdown</th></tr></thead>
<tbody>
{%- for row in books %}
<tr class="{{ row.style }}"><th scope="row">{{ row.label }}</th>
{%- for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
<p class="caption"><b>Table 1.</b> {{ table_caption }}</p>
<div class="pair">
{%- for title, rows in small_tables %}
<div><h3>{{ title }}</h3>
<table><tbody>
{%- for label, text in rows %}
<tr><th scope="row">{{ label }}</th><td>{{ text }}</td></tr>
{%- endfor %}
</tbody></table></div>
{%- endfor %}
</div>
{%- endif %}
{%- if section.id == "truth" %}
<p>{{ truth.sentences | join(" ") }}</p>
<div class="scroll"><table class="books">
<thead><tr><th></th>
{%- for header in truth.headers %}<th scope="col">{{ header }}</th>{% endfor %}</tr></thead><tbody>
{%- for label, cells in truth.rows %}
<tr><th scope="row">{{ label }}</th>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
<p class="caption">{{ truth.caption }}</p>
{%- endif %}
{%- if section.id == "portfolio" and holdings %}
<h3>Latest target weights</h3>
<p>The target of the last signal day, {{ holdings.day }}: {{ holdings.count }} names,
{{ holdings.total }}
{%- if holdings.held_day %}, beside the weights held at the close of {{ holdings.held_day }}
{%- endif %}.</p>
<details><summary>All {{ holdings.rows | length }} names</summary>
<div class="scroll"><table>
<thead><tr><th scope="col">% of the account</th><th scope="col">Target</th>
<th scope="col">Held</th>
<th scope="col">Difference</th></tr></thead><tbody>
{%- for row in holdings.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div></details>
{%- endif %}
{%- if section.id == "mandate" and mandate %}
{%- if mandate.facts %}<h3>What was asked</h3>
{{ facts(mandate.facts) }}{% endif %}
{%- if mandate.constraints %}
<h3>What each constraint cost</h3>
<div class="scroll"><table class="constraints">
<thead><tr><th scope="col">Constraint</th><th scope="col">Days bound</th>
<th scope="col">Shadow price when bound</th>
<th scope="col">Shadow price, all days</th></tr></thead><tbody>
{%- for row in mandate.constraints %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
<p class="caption">Shadow prices are duals: basis points of return a day that one percentage point
more of the limit would gain, to first order; a mean over days.</p>
{%- endif %}
{%- if mandate.causes %}
<h3>Realised against target weights</h3>
<p>{{ mandate.orders | join(", ") }}.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">Difference</th><th scope="col">Σ|realised − target|, a day</th>
<th scope="col">Its return, a year</th></tr></thead><tbody>
{%- for row in mandate.causes %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
<p class="caption">In percent of the account; a return below zero is what the difference cost,
before trading costs.</p>
{%- endif %}
<h3>Days that could not be solved as they were</h3>
{%- if mandate.events %}
<p>{{ mandate.counts | join(", ") }}.</p>
<details><summary>All {{ mandate.events | length }} of them
{%- if mandate.events_left %}, and {{ mandate.events_left }} more{% endif %}</summary>
<div class="scroll"><table class="events"><tbody>
{%- for row in mandate.events %}
<tr><th scope="row">{{ row[0] }}</th><td>{{ row[1] }}</td><td>{{ row[2] }}</td></tr>
{%- endfor %}
</tbody></table></div></details>
{%- else %}
<p>None: every day was solved with all constraints.</p>
{%- endif %}
{%- endif %}
{%- if section.id == "run" %}
{{ facts(settings) }}
{%- if timing %}
<h3>Seconds by stage</h3>
<table><tbody>
{%- for stage in timing %}
<tr class="{{ stage.style }}"><th scope="row">{{ stage.name }}</th><td>{{ stage.seconds }} s</td>
<td class="share">{% if stage.share %}<span class="bar" style="width: {{ stage.share }}%"></span>
{%- endif %}</td></tr>
{%- endfor %}
</tbody></table>
{%- endif %}
<h3>Configuration and data</h3>
<details><summary>Configuration</summary><pre>{{ config }}</pre></details>
<details><summary>Data manifest</summary><pre>{{ manifest }}</pre></details>
{%- endif %}
{%- if section.id == "notes" %}
<ul class="notes">
{%- for about, note in notes %}
<li><b>{{ about }}.</b> {{ note }}</li>
{%- endfor %}
</ul>
{%- endif %}
</section>
{%- endfor %}
</main>
</body>
</html>
"""
