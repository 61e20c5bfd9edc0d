"""The reference of constraints and costs, from the registry: a table for a page.

    python -m bpqp_portfolio.portfolio.mandate.reference docs/how-to/mandates.md

writes it anew between the file's two marks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ...files.atomic import replacing_file
from .terms import CONSTRAINTS, COSTS, Term

BEGIN, END = "<!-- constraints and costs -->", "<!-- end of constraints and costs -->"


def reference() -> str:
    """A row for each registered constraint and cost: name, example, unit, relaxable, meaning."""
    rows = [
        "| name | in a workflow | unit | `relax` | what it says |",
        "|---|---|---|---|---|",
        *(_row(term) for term in (*CONSTRAINTS.values(), *COSTS.values())),
    ]
    return "\n".join(rows)


def _row(term: type[Term]) -> str:
    example = json.dumps(term.example[term.name], ensure_ascii=False).replace('"', "")
    meaning = " ".join((term.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
    relaxed = "cost" if term.is_cost else "yes" if term.relaxable else "no"
    cells = (f"`{term.name}`", f"`{example}`", term.unit, relaxed, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def with_reference(text: str) -> str:
    """``text`` with the table between its marks written anew.

    Raises
    ------
    ValueError
        The marks are not there, once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected the marks {BEGIN} and {END}, once each.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    text = with_reference(path.read_text(encoding="utf-8"))
    with replacing_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
