"""The reference is whole: every key that the code takes has a text, a unit and a place in it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import io
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import bpqp_portfolio as bp
from bpqp_portfolio.backtest.mandate_settings import OWN as MANDATE_OWN
from bpqp_portfolio.cli import app
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.files.workflow import DROP, read_workflow
from bpqp_portfolio.portfolio.mandate.config import SETTINGS as MANDATE_SETTINGS
from bpqp_portfolio.qlib_ext.dataset import FILLED, SETTINGS
from bpqp_portfolio.qlib_ext.handlers import OWN as HANDLER_OWN
from bpqp_portfolio.qlib_ext.handlers import PASSED_ON
from bpqp_portfolio.reference.docstrings import entries, parameters
from bpqp_portfolio.reference.keys import Block, accepted
from bpqp_portfolio.reference.screen import print_place
from bpqp_portfolio.reference.workflow import FAMILIES, blocks, find

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bpqp_portfolio"
BLOCKS = blocks()
OURS = {place: one for place, one in BLOCKS.items() if one.reader.startswith("bpqp_portfolio")}
DATASET = "task.dataset.kwargs"
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
pages = importlib.import_module("pages")
api = importlib.import_module("api")
myst = importlib.import_module("myst")
rest = importlib.import_module("docstrings")


# Every key is there, with a text and a unit -------------------------------------------------------


@pytest.mark.parametrize("place", OURS)
def test_every_key_has_a_text_and_every_number_a_unit(place):
    for key in OURS[place].keys:
        assert len(key.text) > 3, f"{place}.{key.name}: no text in {OURS[place].reader}"
        assert key.type, f"{place}.{key.name}: no type"
        assert key.unit or not key.needs_unit, f"{place}.{key.name}: begin its text with [unit]"


@pytest.mark.parametrize("place", OURS)
def test_no_text_is_of_a_key_that_is_gone(place):
    source = OURS[place].source
    gone = set(parameters(source)) - set(accepted(source)) - set(PASSED_ON)
    assert not gone, f"{OURS[place].reader} has no {gone}"


@pytest.mark.parametrize(
    ("place", "taken"),
    [
        (DATASET, SETTINGS),
        (f"{DATASET}.handler.kwargs", set(HANDLER_OWN) | set(PASSED_ON) - set(FILLED)),
        (f"{DATASET}.mandate", {*MANDATE_OWN, *MANDATE_SETTINGS, "constraints", "costs"}),
    ],
)
def test_a_block_shows_what_its_check_takes(place, taken):
    """Where the check has a list of its own: the keys that are not shown are refused."""
    assert {key.name for key in BLOCKS[place].keys} == set(taken)


# What reads a workflow's keys, each with its place in the reference. A new call of one of these
# functions needs a block in reference/workflow.py, and a line here.
READERS = {
    "AccountRules": f"{DATASET}.mandate.account",
    "ClusterConfig": f"{DATASET}.mandate.sectors",
    "Comparison": "comparison",
    "Method": "comparison.methods.NAME",
    "ModelConfig": "task.model.kwargs",
    "ProblemConfig": f"{DATASET}.problem",
    "RiskConfig": f"{DATASET}.risk",
    "RiskHeadConfig": "task.model.kwargs.risk_head",
    "TradingCosts": f"{DATASET}.mandate.costs",
    "TrainerConfig": "task.model.kwargs.trainer",
    "cls.config_class": "task.record.topk_dropout",
    "self.config_class": "task.record.topk_dropout",
}
REGISTRIES = {"LOSSES", "NORMALISATIONS", "POLICIES", "PREDICTORS", "RISK_MODELS"}
CHECKED = {
    "OWN_PART": "own_part",
    "SEGMENTS": f"{DATASET}.segments",
    "SETTINGS": DATASET,
    "TASK": "task",
    "LEARNING": f"{DATASET}.problem",
    "known": "",  # of constraints, costs and classes, by their registry or signature
    "fields": "",  # of from_mapping itself
    "(*OWN, *PASSED_ON)": f"{DATASET}.handler.kwargs",
    "('name', 'out', 'skip_existing')": "task.record.report",
    "('skip_existing',)": "task.record.truth",
    "('seed',)": "task.model.RandomScores.kwargs",
    "()": "task.model.ConstantScores.kwargs",
    "asdict(rules)": f"{DATASET}.market_rules",
    "keys_of(Pretraining)": "task.model.kwargs.pretrain",
    "keys_of(Relaxation)": f"{DATASET}.mandate.on_failure",
    "QLIB_SETTINGS": "qlib_init",
    "('uri', 'default_exp_name')": "qlib_init.exp_manager.kwargs",
    "registry": f"{DATASET}.mandate.constraints",
    "[*MONEY, *registry]": f"{DATASET}.mandate.costs",
    "[*SETTINGS, YEAR, 'constraints', 'costs', *known]": f"{DATASET}.mandate",
    "list(signature.parameters)[len(arguments):]": "",  # of build itself
    "solver.settings": "",  # a solver's own, for Python alone
    "('class', 'settings', 'fitted')": "",  # of a saved run
}


@cache
def tree() -> list[ast.Call]:
    """Every call in the package."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))]
    texts = [text for text in texts if re.search(r"\b(check_keys|from_mapping|build)\(", text)]
    nodes = (node for text in texts for node in ast.walk(ast.parse(text)))
    return [
        node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]


def calls(name: str) -> Iterator[ast.Call]:
    """Every call of a function of config.py in the package."""
    return (node for node in tree() if node.func.id == name)  # type: ignore[attr-defined]


def test_what_reads_keys_is_in_the_reference():
    found = {ast.unparse(call.args[0]) for call in calls("from_mapping")} - {"cls"}
    assert found == set(READERS)
    registries = {ast.unparse(call.args[1]) for call in calls("build") if len(call.args) > 2}
    assert registries == REGISTRIES | {"{}"}  # a class of the user's own alone
    assert {ast.unparse(call.args[1]) for call in calls("check_keys")} == set(CHECKED)
    for place in (*READERS.values(), *filter(None, CHECKED.values())):
        assert place in BLOCKS or any(one.place == place for one in FAMILIES)


def places(config: Any, place: str = "") -> Iterator[str]:
    """The place of every key in a workflow, parts by their names."""
    if isinstance(config, list):
        for one in config:
            yield from places(one, place)
        return
    if not isinstance(config, Mapping):
        return
    for key, value in config.items():
        if value == DROP:
            continue
        yield f"{place}.{key}".lstrip(".")
        name = value.get("name") if isinstance(value, Mapping) else None
        below = f"{place}.{key}" + (f".{name}" if name else "")
        yield from places(
            {k: v for k, v in value.items() if k != "name"} if name else value, below.lstrip(".")
        )


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("workflows/*.yaml"), *ROOT.glob("configs/port*.yaml")]), ids=str
)
def test_every_key_of_a_shipped_workflow_is_in_the_reference(path):
    config = read_workflow(path)
    if "lightgbm" in path.name:
        config["task"].pop("model")
    known = {f"{one.place}.{key.name}".lstrip(".") for one in BLOCKS.values() for key in one.keys}
    known |= set(BLOCKS)
    free = re.compile(
        r"^(task\.record\.|qlib_init\.exp_manager\.)|\.(limit|lower)\.|\.max_weights\."
    )
    found = {place.replace("pretrain.trainer.", "trainer.") for place in places(config)}
    assert found and not [one for one in found - known if not free.search(one)]


# Pages --------------------------------------------------------------------------------------------


def test_pages_name_every_key_part_and_command():
    keys = pages.workflow_keys() + pages.comparison_keys()
    for place, one in BLOCKS.items():
        assert f"(block-{place or 'workflow'})=" in keys
        for key in one.keys:
            assert f":::{{key}} {f'{place}.{key.name}'.lstrip('.')}\n" in keys
    listed = pages.parts() + pages.terms()
    assert all(f"[`{name}`](#block-" in listed for one in FAMILIES for name in one.parts)
    commands = pages.commands()
    assert "## `bpqp data import`" in commands and "## `bpqp keys`" in commands
    assert "Environment variable: `BPQP_PROVIDER_URI`" in commands
    assert "`BPQP_DEBUG`" in pages.variables() and "`--debug`" in commands
    assert "`BPQP_CACHE`" in pages.variables() and "`BPQP_MARKET`" in pages.variables()
    assert "`date,instrument,weight`" in pages.files() and "`clarabel`" in pages.solvers()
    assert "| `cn` | `238` | `100` | `boards` |" in pages.regions()
    assert "`move-impossible` (warning)" in pages.checks() and "(`growth`)" in pages.figures()


def test_marks_of_pages_are_known():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    marks = re.findall(r"<!-- reference: ([\w-]+)(?: ([\w-]+))? -->", "\n".join(texts))
    assert {name for name, _ in marks} == set(pages.PAGES)
    assert {page for name, page in marks if name == "api"} == set(api.API)
    folder = ROOT / "docs" / "reference"
    assert pages.is_filled(folder / "workflow.md")
    assert not pages.is_filled(folder / "api" / "risk.md")  # autodoc's own
    with pytest.raises(KeyError, match="wrkflow"):
        pages.filled("<!-- reference: wrkflow -->")


def test_every_public_name_and_registered_class_is_in_the_python_reference():
    shown = {module for page in api.API for module in api.modules(page)}
    assert all(importlib.util.find_spec(module) for module in shown)
    public = {name: getattr(bp, name) for name in bp.__all__}
    parts = {name: part for one in FAMILIES for name, part in one.parts.items()}
    readers = {one.reader: one.source for one in OURS.values()}
    lost = {n for n, one in {**public, **parts, **readers}.items() if one.__module__ not in shown}
    assert not lost
    assert all(f"`bp.{name} <" in pages.public_names() for name in bp.__all__)


def test_docstrings_become_fields():
    text = (
        "Sum |x|.\n\nParameters\n----------\na : [days] one\n    day.\n\nRaises\n------\nE\n    No."
    )
    lines = [line for line in rest.rewritten(text) if line]
    assert lines == [r"Sum \|x\|.", ":param a: [days] one day.", ":Raises E:", "    No."]
    assert myst.markdown("w_b of :class:`~.a.B`, ``x_y``") == r"w\_b of {py:class}`~.a.B`, `x_y`"
    assert myst.table(("a",), [("`x|y`",)]).endswith(r"| `x\|y` |")


# The terminal -------------------------------------------------------------------------------------


def test_a_key_is_found_by_its_end():
    assert find("trainer.epochs") == BLOCKS["task.model.kwargs.trainer"]["epochs"]
    assert isinstance(find("max_turnover"), Block)
    assert find("mandate.risk_aversion").default == "required"
    with pytest.raises(ConfigError, match=r"Did you mean 'trainer\.epochs'"):
        find("trainer.epoch")
    with pytest.raises(ConfigError, match=r"'limit' is the end of \d+ places"):
        find("limit")


def test_a_block_is_printed_with_its_facts():
    console = Console(file=io.StringIO(), width=80)
    print_place("task.model.kwargs.trainer", console)
    shown = console.file.getvalue()
    assert "epochs  whole number · epochs · default 30" in shown
    assert "names: valid_ic, valid_loss" in shown and "``" not in shown
    result = CliRunner().invoke(app, ["keys", "loss.huber"])
    assert result.exit_code == 0 and "delta  number · standard deviations of the label" in (
        " ".join(result.output.split(" "))
    )


def test_a_parameters_section_that_is_malformed_is_an_error():
    with pytest.raises(ValueError, match="`name : text`"):
        entries(["a : one", "no entry"])
    assert inspect.signature(entries).return_annotation == "dict[str, Entry]"
