"""Pages of the reference from the code: keys, parts by name, commands, files, variables, API."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from api import api, public_names
from myst import capital, code, definitions, escaped, markdown, paragraphs, table

from bpqp_portfolio.reference.docstrings import Entry, opening
from bpqp_portfolio.reference.keys import REQUIRED, Block, Key
from bpqp_portfolio.reference.workflow import FAMILIES, Family, comparison, workflow

ROOT = Path(__file__).parents[2]


def anchor(place: str) -> str:
    """The label of a block, for links such as ``[risk](#block-task.dataset.kwargs.risk)``."""
    return f"block-{place or 'workflow'}"


# Keys ---------------------------------------------------------------------------------------------


AREAS = {
    "": "File, Qlib and task",
    "task.dataset.kwargs": "Dataset",
    "task.model": "Model",
    "task.record": "Records",
    "own_part": "A class of your own",
}
"""Headings of the page, by how the places below them begin."""


def workflow_keys() -> str:
    """Every key of a workflow, block by block."""
    out: dict[str, list[str]] = {}
    for one in workflow():
        area = max((a for a in AREAS if f"{one.place}.".startswith(f"{a}.") or not a), key=len)
        title = one.place.removeprefix(f"{area}.").removeprefix("kwargs.")
        out.setdefault(area, []).append(_block(one, title))
    return "\n\n".join(f"## {AREAS[area]}\n\n" + "\n\n".join(b) for area, b in out.items())


def comparison_keys() -> str:
    """Every key of a comparison's file."""
    blocks = "\n\n".join(_block(one, one.place) for one in comparison())
    return blocks.replace("### ", "## ")


def _block(one: Block, title: str) -> str:
    lines = [f"({anchor(one.place)})=", f"### {code(title) or 'The file'}", ""]
    lines += [paragraphs(one.text), ""] if one.text else []
    place = f"At `{one.place}`, read" if title != one.place else "Read"
    lines += [f"{place} by {{py:obj}}`{one.reader}`.", ""]
    lines += [_key(one, key) for key in one.keys]
    lines += [] if one.keys else ["It takes no options."]
    return "\n".join(lines)


def _key(block: Block, key: Key) -> str:
    said = key.default if "'" in key.default else code(key.default)  # words, or a value
    default = REQUIRED if key.default == REQUIRED else f"default {said}"
    unit = escaped(key.unit or "")
    unit = f"unit: {unit}" if unit not in ("", "no unit") else unit
    facts = " · ".join(filter(None, (key.type, unit, default)))
    text = markdown(key.text) or "Of Qlib."
    choices = f"\n\nNames: {', '.join(map(code, key.choices))}." if key.choices else ""
    place = _joined(block.place, key.name)
    return f":::{{key}} {place}\n*{facts}*\n\n{capital(text)}{choices}\n:::\n"


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}".lstrip(".")


# Parts by name ------------------------------------------------------------------------------------


def parts() -> str:
    """A table for each registry that a workflow names parts of."""
    return "\n\n".join(_family(one) for one in FAMILIES if not _terms(one))


def terms() -> str:
    """Constraints and costs of a mandate, with an example, the unit and whether they relax."""
    return "\n\n".join(_family(one) for one in FAMILIES if _terms(one))


def _terms(family: Family) -> bool:
    return family.title in ("constraint", "cost")


def _family(family: Family) -> str:
    title = {"policy": "policies", "loss": "losses"}.get(family.title, f"{family.title}s")
    head = f"## {title[0].upper()}{title[1:]}\n\nNamed by {{key}}`{family.place}`.\n\n"
    rows = definitions(
        (f"[`{name}`](#{anchor(f'{family.place}.{name}')})", _part(source))
        for name, source in family.parts.items()
    )
    return head + rows


def _part(source: Any) -> str:
    text = markdown(opening(source))
    example = getattr(source, "example", None)
    if example is None:
        return text
    shown = json.dumps(example[source.name], ensure_ascii=False).replace('"', "")
    relaxes = "" if source.is_cost else f" May be relaxed: {'yes' if source.relaxable else 'no'}."
    return f"{text} Unit: {escaped(source.unit)}. Example: `{source.name}: {shown}`.{relaxes}"


def solvers() -> str:
    """Forward solvers by kind of program, and what each needs."""
    from bpqp_portfolio.solvers.registry import _SOLVERS

    out = []
    titles = {"qp": "Quadratic programs", "cone": "Cone programs", "smooth": "Smooth programs"}
    for kind, entries in _SOLVERS.items():
        rows = []
        for name, entry in entries.items():
            cls = getattr(
                importlib.import_module(f"bpqp_portfolio.solvers.{entry.module}"), entry.cls
            )
            rows.append((code(name), f"{markdown(opening(cls))} Installed by `{entry.install}`."))
        out.append(f"### {titles[kind]} (`{kind}`)\n\n{definitions(rows)}")
    return "\n\n".join(out)


def regions() -> str:
    """The rules of each region."""
    from bpqp_portfolio.markets.rules import MARKET_RULES
    from bpqp_portfolio.reference.keys import shown

    rows = [
        (code(name), *(code(shown(v)) for v in vars(rules).values()))
        for name, rules in MARKET_RULES.items()
    ]
    return table(("region", *(code(key) for key in vars(MARKET_RULES["cn"]))), rows)


def metrics() -> str:
    """What a run tracks, in which unit."""
    from bpqp_portfolio.report.tracked_metrics import METRICS

    rows = ((code(m.name), escaped(m.unit), escaped(m.text)) for m in METRICS)
    return table(("metric", "unit", "what it is"), rows)


def checks() -> str:
    """What a check of a provider can find."""
    from bpqp_portfolio.data.quality.findings import CHECKS

    return definitions(
        (f"`{name}` ({severity})", f"{capital(escaped(what))}. Remedy: {markdown(remedy)}.")
        for name, (severity, what, remedy) in CHECKS.items()
    )


def figures() -> str:
    """The figures of a run's report."""
    from bpqp_portfolio.report.figures import PLOTS

    return definitions((f"{plot.title} (`{plot.key}`)", escaped(plot.caption)) for plot in PLOTS)


# Commands -----------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options, from the program itself."""
    from bpqp_portfolio.cli import app

    return "\n\n".join(_commands(typer.main.get_command(app), "bpqp"))


def _commands(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        if command.params:
            options = definitions((_title(p), _meaning(p)) for p in command.params)
            yield f"## `{name}`\n\n{markdown(command.help)}\n\n{options}"
        for own, one in command.commands.items():
            yield from _commands(one, f"{name} {own}")
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    needed = [f"{p.opts[0]} {_value(p)}".strip() for p in options if p.required]
    usage = " ".join([name, *map(_metavar, arguments), *needed, "[OPTIONS]" if options else ""])
    help_text = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    yield f"({name.replace(' ', '-')})=\n## `{name}`\n\n{markdown(help_text)}\n\n" + (
        f"```text\n{usage.strip()}\n```\n\n"
        + definitions((_title(p), _meaning(p)) for p in [*arguments, *options])
    )


def _metavar(parameter: Any) -> str:
    shown = parameter.metavar or parameter.name.upper()
    return shown if parameter.required else f"[{shown}]"


def _value(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    if kind is bool:
        return ""
    words = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER"}
    name = getattr(kind, "__name__", str(kind))
    return str(parameter.metavar or words.get(name, name)).upper()


def _title(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return code(_metavar(parameter))
    return code(" ".join(filter(None, (", ".join(parameter.opts), _value(parameter)))))


def _meaning(parameter: Any) -> str:
    notes = [markdown(parameter.help or "")]
    if parameter.required:
        notes.append("Required.")
    elif parameter.default not in (None, False, ()):
        notes.append(f"Default: `{parameter.default}`.")
    if parameter.multiple:
        notes.append("May be repeated.")
    if parameter.envvar:
        notes.append(f"Environment variable: `{parameter.envvar}`.")
    return " ".join(filter(None, notes))


# Environment variables ----------------------------------------------------------------------------

_JINJA = re.compile(r"\{\{ (\w+) \| default\('([^']*)'")


def variables() -> str:
    """Environment variables of the workflows that are shipped, of the code and of the commands."""
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.glob("workflows/*.yaml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            key = line.partition(":")[0].strip(" -")
            for name, default in _JINJA.findall(line):
                text = f"fills `{key}`, default `{default}`"
                places = found.setdefault(name, [])
                if text not in places:
                    places.append(text)
    for parameter, name in _asked():
        text = f"gives `{parameter.opts[0]}` of `{name}`"
        found.setdefault(parameter.envvar, []).append(text)
    out = {name: "; ".join(texts) + "." for name, texts in found.items()}
    out |= _read()
    return definitions((code(name), capital(text)) for name, text in out.items())


_GET = re.compile(r'environ\.get\("?(\w+)"?, "([^"]*)"\)')


def _read() -> dict[str, str]:
    """Variables that the code reads, by name or by a constant whose docstring says what for."""
    out = {}
    for path in sorted((ROOT / "bpqp_portfolio").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for name, default in _GET.findall(text):
            said = f"read by `{path.relative_to(ROOT)}`, default `{default}`."
            constant = re.search(rf'^{name} = "(\w+)"\n"""(.+?)"""', text, re.MULTILINE | re.DOTALL)
            out[constant[1] if constant else name] = markdown(constant[2]) if constant else said
    return out


def _asked() -> Iterator[tuple[Any, str]]:
    from bpqp_portfolio.cli import app

    def walk(command: Any, name: str) -> Iterator[tuple[Any, str]]:
        for own, one in getattr(command, "commands", {}).items():
            yield from walk(one, f"{name} {own}")
        yield from ((p, name) for p in command.params if p.envvar)

    return walk(typer.main.get_command(app), "bpqp")


# Files --------------------------------------------------------------------------------------------


def files() -> str:
    """Columns of the CSV files that are read."""
    from bpqp_portfolio.backtest import holdings
    from bpqp_portfolio.data.quality import exclusions
    from bpqp_portfolio.data.universe import dated, index_weights, sectors

    exposure = {"NAME": "[the exposure's own] a column of numbers for each exposure"}
    kinds = {
        "Holdings": ("`bpqp weights --holdings`", holdings.COLUMNS),
        "Exclusions": ("{key}`task.dataset.kwargs.exclusions`", exclusions.COLUMNS),
        "Sectors": (
            "{key}`task.dataset.kwargs.mandate.sectors`", sectors.COLUMNS | sectors.DATES,
        ),
        "Index weights": (
            "{key}`task.dataset.kwargs.mandate.index_weights`", dated.KEYS | index_weights.COLUMNS,
        ),
        "Exposures": (
            "{key}`task.dataset.kwargs.mandate.exposure_table`", dated.KEYS | exposure,
        ),
    }  # fmt: skip
    out = []
    for title, (reader, columns) in kinds.items():
        rows = []
        for name, text in columns.items():
            entry = Entry.of(text)
            rows.append((code(name), escaped(entry.unit or ""), markdown(entry.text)))
        head = f"## {title}\n\nRead by {reader}; its first line is `{','.join(columns)}`.\n\n"
        out.append(head + table(("column", "unit", "what it holds"), rows))
    return "\n\n".join(out)


PAGES: dict[str, Callable[..., str]] = {
    "workflow": workflow_keys,
    "comparison": comparison_keys,
    "parts": parts,
    "terms": terms,
    "solvers": solvers,
    "regions": regions,
    "metrics": metrics,
    "checks": checks,
    "figures": figures,
    "commands": commands,
    "variables": variables,
    "files": files,
    "api": api,
    "public-names": public_names,
}
_MARK = re.compile(r"^<!-- reference: ([\w-]+)(?: ([\w-]+))? -->$", re.MULTILINE)


def is_filled(path: str | Path) -> bool:
    """Has a page a mark, but for those of autodoc, which knows itself what has changed?"""
    marks = _MARK.findall(Path(path).read_text(encoding="utf-8"))
    return any(name != "api" for name, _ in marks)


def filled(text: str) -> str:
    """A page's source with each mark ``<!-- reference: NAME -->`` replaced by what it names.

    Raises
    ------
    KeyError
        No such page.
    """
    return _MARK.sub(lambda m: PAGES[m[1]](*filter(None, [m[2]])), text)
