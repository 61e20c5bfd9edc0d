"""The report of one run as a self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..files.atomic import replacing_file
from ..markets.rules import QLIB_DAYS_PER_YEAR
from ..runs.results import RunResults, plain
from .cards import cards
from .figures import PLOTS, inline_svgs
from .headline import SPACE, headline
from .mandate import CAUSES, EVENTS_SHOWN, cause_table, constraint_table, event_counts, has_mandate
from .metrics import FEWEST, book_rows, cautions, counted, other_rows, summarise
from .statistics import BLOCK
from .style import css_colours
from .template import CSS, PAGE
from .truth import CAPTION, HEADERS, truth_rows, truth_sentences

SECTIONS = {
    "summary": "Summary",
    "truth": "By the truth of this market",
    "performance": "Performance",
    "signal": "Signal",
    "learning": "Learning",
    "portfolio": "Portfolio",
    "mandate": "Mandate",
    "solver": "Solver",
    "run": "Run, configuration and data",
    "notes": "Conventions and cautions",
}


SOME: dict[str, Callable[[RunResults], bool]] = {
    "mandate": has_mandate,
    "truth": lambda results: not results.truth.empty,
}
"""Sections that only some runs have, and which."""
ORDERS = {"orders": "order", "unfilled": "unfilled order", "cut": "partly filled order"}


def write_report(results: RunResults, path: Path | str) -> Path:
    """Write the page of ``results`` to ``path``, whole or not at all; returns ``path``."""
    path = Path(path).expanduser()
    text = render(results)
    with replacing_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return path


def render(results: RunResults) -> str:
    """The page as text: no script, no address, every text of the run escaped."""
    summary = summarise(results)
    stylesheet = CSS.replace("__LIGHT__", css_colours(0)).replace("__DARK__", css_colours(1))
    # Autoescape covers every value below; only our own stylesheet and SVGs are let through as
    # they are, and the text inside an SVG was escaped when it was serialised.
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(PAGE).render(
        css=Markup(stylesheet),
        name=results.name,
        facts_line=_facts_line(results),
        headline=[*truth_sentences(results), *headline(results)],
        cautions=cautions(results),
        sections=_sections(results),
        cards=cards(results, summary),
        table_caption=_table_caption(results),
        books=_books(results, summary),
        small_tables=[
            (title, rows)
            for title, section in (("Signal", "signal"), ("Trading", "trading"))
            if (rows := other_rows(summary, section))
        ],
        holdings=_holdings(results),
        mandate=_mandate(results),
        truth=_truth(results),
        settings=_settings(results),
        timing=_timing(results.timing),
        config=_yaml(results.config),
        manifest=_yaml(results.manifest),
        notes=_notes(results),
    )


def _facts_line(results: RunResults) -> list[str]:
    days = results.daily.index
    facts = [
        str(results.manifest["source"]) if results.manifest.get("source") else None,
        f"{results.settings['market']}" if results.settings.get("market") else None,
        f"{days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {counted(len(days), 'trading day')}",
        f"benchmark {results.settings['benchmark']}" if results.settings.get("benchmark") else None,
        f"made {results.created[:16].replace('T', ' ')}",
        f"run {results.run_id}",
    ]
    return [fact for fact in facts if fact]


def _sections(results: RunResults) -> list[dict[str, Any]]:
    number = 0
    plots: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    shown = [key for key in SECTIONS if key not in SOME or SOME[key](results)]
    for plot in PLOTS:
        if plot.section not in shown:
            continue
        svgs = inline_svgs(plot, results)
        number += svgs is not None
        wide, narrow = (Markup(svg) for svg in svgs) if svgs else (None, None)
        plots[plot.section].append(
            {
                "id": f"figure-{plot.key}",
                "title": plot.title,
                "caption": plot.caption,
                "absent": plot.absent,
                "number": number,
                "wide": wide,
                "narrow": narrow,
            }
        )
    return [{"id": key, "title": SECTIONS[key], "plots": plots[key]} for key in shown]


def _truth(results: RunResults) -> dict[str, Any]:
    """Sentences, header and rows of the section on the truth; empty where there is none."""
    if not SOME["truth"](results):
        return {}
    return {
        "sentences": truth_sentences(results),
        "headers": [f"{name}, {unit}" for name, unit in HEADERS.items()],
        "rows": truth_rows(results),
        "caption": CAPTION,
    }


def _books(results: RunResults, summary: pd.DataFrame) -> list[dict[str, Any]]:
    rows = book_rows(summary, results.benchmark)
    out = []
    for i, (label, cells) in enumerate(rows):
        classes = ["strong"] if label.endswith(", with cost") else []
        group = label.partition(",")[0]
        if i + 1 < len(rows) and rows[i + 1][0].partition(",")[0] != group and "," in label:
            classes.append("last")
        out.append({"label": label, "cells": cells, "style": " ".join(classes)})
    return out


def _table_caption(results: RunResults) -> str:
    index = f"{results.benchmark} or " if results.has_index else ""
    benchmarks = f"{index}the equally weighted universe"
    return (
        f"Arithmetic figures a year of {results.days_per_year:g} trading days: mean and standard "
        "deviation of daily returns, and their ratio; and the largest fall of compounded returns "
        f"from their highest point. “Over” is the portfolio minus {benchmarks}, day by day."
    )


def _holdings(results: RunResults) -> dict[str, Any] | None:
    if results.weights.empty:
        return None
    day = results.weights["datetime"].max()
    target = _on(results.weights, day)
    held, held_day = pd.Series(dtype=float), None
    if not results.realised.empty:
        held_day = results.realised["datetime"].max()
        held = _on(results.realised, held_day)
    invested = results.risk_degree
    total = f"{_percent(target.sum())} of the account"
    if invested < 1:
        part = f"the invested part, which is {100 * invested:g}{SPACE}% of the account"
        total = f"{_percent(target.sum())} of {part}"
    # Both of the whole account, so that their difference is a trade.
    table = pd.DataFrame({"target": invested * target, "held": held}).fillna(0.0)
    table = table.sort_values(["target", "held"], ascending=False)
    return {
        "day": f"{day:%Y-%m-%d}",
        "held_day": f"{held_day:%Y-%m-%d}" if held_day is not None else "",
        "count": len(target),
        "total": total,
        "rows": [
            (name, _percent(row.target), _percent(row.held), _percent(row.target - row.held, "+"))
            for name, row in table.iterrows()
        ],
    }


def _mandate(results: RunResults) -> dict[str, Any] | None:
    if not has_mandate(results):
        return None
    events = results.events.sort_values("datetime", kind="stable")
    gaps = results.implementation_shortfall
    return {
        "facts": [
            (
                key.replace("_", " ").capitalize(),
                value if isinstance(value, list) else [_text(value)],
            )
            for key, value in (results.settings.get("mandate") or {}).items()
        ],
        "constraints": [
            (name, _percent(row.share), f"{row.shadow_price:.3f}", f"{row.all_days:.3f}")
            for name, row in constraint_table(results).iterrows()
        ],
        "causes": [
            (CAUSES.get(str(name), "All"), _percent(row.gap), _percent(row.annual, "+"))
            for name, row in cause_table(results).iterrows()
        ]
        if len(gaps)
        else [],
        "orders": [counted(int(gaps[c].sum()), w) for c, w in ORDERS.items()] if len(gaps) else [],
        "counts": [
            f"{counted(int(number), 'time')} {action}"
            for action, number in event_counts(results).items()
        ],
        "events": [
            (f"{row.datetime:%Y-%m-%d}", row.action, row.reason)
            for row in events.head(EVENTS_SHOWN).itertuples()
        ],
        "events_left": max(0, len(events) - EVENTS_SHOWN),
    }


def _on(weights: pd.DataFrame, day: pd.Timestamp) -> pd.Series:
    rows = weights[weights["datetime"] == day]
    return pd.Series(rows["weight"].to_numpy(dtype=float), index=rows["instrument"].astype(str))


def _settings(results: RunResults) -> list[tuple[str, list[str]]]:
    """Label and lines of each setting."""
    rows = [
        (key.replace("_", " ").capitalize(), _lines(value))
        for key, value in results.settings.items()
        if key not in ("survivorship", "excluded_name_days", "mandate", "days_per_year")
    ]
    if len(results.epochs):
        text = counted(len(results.epochs), "epoch")
        if "member" in results.epochs:
            text += f" of {results.epochs['member'].nunique()} networks, whose mean score decides"
        if results.best_epoch is not None:
            text += f", the network of epoch {results.best_epoch} kept"
        if "seconds" in results.epochs:
            text += f", {results.epochs['seconds'].mean():.2f} s each"
        rows.append(("Training", [text]))
    return rows


def _timing(timing: Mapping[str, float]) -> list[dict[str, Any]]:
    longest = max(timing.values(), default=0)
    rows = [
        {
            "name": name,
            "seconds": f"{seconds:.1f}",
            "share": round(100 * seconds / longest, 1) if longest else 0,
            "style": "",
        }
        for name, seconds in timing.items()
    ]
    if rows:
        total = f"{sum(timing.values()):.1f}"
        rows.append({"name": "All", "seconds": total, "share": 0, "style": "strong"})
    return rows


def _notes(results: RunResults) -> list[tuple[str, str]]:
    """What a note is about, and the note."""
    year, years = results.days_per_year, results.years
    excluded = results.settings.get("excluded_name_days")
    return [
        ("Survivorship", str(results.settings.get("survivorship") or "Not stated by the run.")),
        (
            "Exclusions",
            "The run does not state how many doubtful name-days were left out."
            if excluded is None
            else f"{counted(int(excluded), 'name-day')} with doubtful prices left out.",
        ),
        (
            "Precision",
            f"Over {years:.2f} years the standard error of an annual information ratio is about "
            f"1/√years = {1 / math.sqrt(years):.2f}: smaller differences are noise.",
        ),
        (
            "Interval",
            "That of the sentence at the top is of the mean daily difference, from a bootstrap of "
            f"blocks of {BLOCK} days (of √days where these are fewer), with Student's correction "
            "for few blocks. It holds zero: not distinguishable from chance. It is that of this "
            "run alone, whatever was tried before it, and of one seed of its training.",
        ),
        (
            "Timing",
            "Features and risk of day t use data up to the close of t; the trade is at the close "
            "of t+1; forecasts are judged by the return from t+1 to t+2.",
        ),
        (
            "Annual figures",
            f"Mean × {year:g} and standard deviation (ddof 1) × √{year:g} of daily returns, of at "
            f"least {FEWEST} days; a Sharpe ratio is taken at a risk-free rate of zero. Qlib's own "
            f"records, tracked under its own names, count {QLIB_DAYS_PER_YEAR} days in any market.",
        ),
        (
            "Drawdown",
            "The largest fall of compounded returns from their highest point so far, of excess "
            "returns too, in table and figure; never below −100 %. Qlib's own figures, tracked as "
            "1day.….max_drawdown and in port_analysis_1day.pkl, are of summed returns and can be.",
        ),
        (
            "IC",
            "Pearson correlation of forecast and realised return across names on a day, Rank IC "
            "the same of ranks; ICIR is mean over standard deviation of the daily IC, not "
            "annualised.",
        ),
        (
            "Regret",
            "Objective reached minus the best objective with hindsight, for the same problem, as "
            "a daily return.",
        ),
        ("Turnover", "One-way: half of Qlib's figure, which counts buys and sells both."),
        (
            "Benchmarks",
            "They pay no cost. The index is weighted by capitalisation; a book of nearly equal "
            "weights is better compared with the equally weighted universe."
            if results.has_index
            else "The run names no index, so there is no figure over one; the equally weighted "
            "universe pays no cost.",
        ),
    ]


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}: {_text(item)}" for key, item in value.items()]
    return [_text(value)]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "none"
    return str(value)


def _yaml(value: Mapping) -> str:
    if not value:
        return "(none)"
    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=88)


def _percent(value: float, sign: str = "") -> str:
    if math.isnan(value):
        return "–"
    return f"{100 * value:{sign}.2f}{SPACE}%".replace("-", "−")
