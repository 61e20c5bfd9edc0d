"""What the pages show can be used: Python runs, YAML is a workflow's, commands and links exist."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from documents import ROOT, Page, commands_in, pages

from bpqp_portfolio.cli import app
from bpqp_portfolio.experiments.plan import plan, read_comparison
from bpqp_portfolio.files.workflow import merged, read_workflow, read_yaml
from bpqp_portfolio.qlib_ext.components import written_out
from bpqp_portfolio.qlib_ext.dataset import SETTINGS, PortfolioDataset
from bpqp_portfolio.qlib_ext.model import ModelConfig, PortfolioModel
from bpqp_portfolio.qlib_ext.preflight import check_records, check_task

PAGES = pages()
TODAY = [pytest.param(page, id=page.name) for page in PAGES if page.name != "CHANGELOG.md"]
"""Pages that speak of the present alone."""
BASE = read_yaml(ROOT / "configs" / "portfolio.yaml")
DATA = {
    "market": "all",
    "benchmark": None,
    "segments": {
        "train": ["2011-01-04", "2016-12-30"],
        "valid": ["2017-01-03", "2018-12-28"],
        "test": ["2019-01-02", "2022-12-30"],
    },
}
"""What a workflow states of its data, where a snippet leaves it out."""
MODEL = tuple(ModelConfig.__dataclass_fields__)


def of(select: str) -> list[Any]:
    """Pages that have blocks of a language."""
    return [pytest.param(page, id=page.name) for page in PAGES if page.blocks(select)]


@pytest.mark.parametrize("page", of("python"))
def test_python_runs(page: Page):
    """The blocks of a page, one after the other, in one namespace."""
    scope: dict[str, Any] = {}
    for block in page.blocks("python"):
        exec(compile(block, page.name, "exec"), scope)


# YAML -------------------------------------------------------------------------------------------


def names_of(mapping: Mapping[str, Any]) -> bool:
    """Does it list keys without values, as in ``{a, b}``?"""
    return any(
        value is None or (isinstance(value, Mapping) and names_of(value))
        for key, value in mapping.items()
        if key != "benchmark"
    )


def check_fragment(fragment: Mapping[str, Any]) -> bool:
    """Check what stands in a task of a workflow; False where no key of a task is in it."""
    task, known = BASE["task"], False
    data = {key: fragment[key] for key in fragment if key in SETTINGS}
    model = {key: fragment[key] for key in fragment if key in MODEL}
    if data:
        PortfolioDataset.check_settings(merged({**DATA, **task["dataset"]["kwargs"]}, data))
        known = True
    if model:
        PortfolioModel.check_settings(merged(task["model"]["kwargs"], model))
        known = True
    if "record" in fragment:
        check_records(written_out({**task, "record": fragment["record"]}))
        known = True
    return known


@pytest.mark.parametrize("page", of("yaml"))
def test_yaml_is_a_workflow(page: Page, tmp_path: Path):
    """A whole one is read beside the page's own Python files, a part is checked as a task's, and of
    a comparison the workflow of every method."""
    for source in page.blocks("py"):
        (tmp_path / source.split()[1]).write_text(source)
    for block in page.blocks("yaml"):
        config = yaml.safe_load(block)
        if "methods" in config:
            path = tmp_path / "comparison.yaml"
            path.write_text(block.replace("../workflows", str(ROOT / "workflows")))
            for run in plan(*read_comparison(path), seeds=1):
                check_task(run.config["task"])
        elif "BASE_CONFIG_PATH" in config:
            path = tmp_path / "flow.yaml"
            path.write_text(block.replace("../configs", str(ROOT / "configs")))
            task = written_out(read_workflow(path)["task"])
            task["dataset"]["kwargs"] = {**DATA, **task["dataset"]["kwargs"]}
            check_task(task)
        else:
            assert check_fragment(config), f"no key of a task: {list(config)}"


@pytest.mark.parametrize("page", TODAY)
def test_yaml_in_a_sentence_is_a_workflow_s(page: Page):
    """``key: value`` in backticks, where key is one of a task."""
    for span in page.code:
        if ": " not in span or "…" in span:
            continue
        try:
            fragment = yaml.safe_load(span)
        except yaml.YAMLError:
            continue
        if isinstance(fragment, Mapping) and not names_of(fragment):
            check_fragment(fragment)


def test_a_fragment_that_no_workflow_takes_is_found():
    with pytest.raises(Exception, match="kapa"):
        check_fragment({"problem": {"kapa": 0.001}})
    assert not check_fragment({"nothing": 1})
    assert names_of({"costs": {"buy": None}})


# Commands ---------------------------------------------------------------------------------------


def check_command(words: list[str], own: Collection[str] = ()) -> None:
    """The program has the command, and that its options; named files of ours exist, but for those
    that the page itself shows (``own``)."""
    program, *rest = words
    for word in rest:
        if word.startswith(("workflows/", "configs/", "notebooks/")) and Path(word).name not in own:
            assert (ROOT / word).is_file(), f"no file {word}"
    if program == "make":
        targets = [word for word in rest if "=" not in word and not word.startswith("-")]
        makefile = (ROOT / "Makefile").read_text()
        assert all(f"\n{target}:" in makefile for target in targets), f"no target in {words}"
    elif program == "bpqp":
        check_parsed(typer.main.get_command(app), rest, "bpqp")


def check_parsed(command: Any, rest: list[str], name: str) -> None:
    """``rest`` is what ``command`` takes: subcommand, options, and no argument is missing."""
    context = command.context_class(command, info_name=name)
    if hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        below = command.get_command(context, rest[0])
        assert below is not None, f"{name} has no command {rest[0]!r}"
        check_parsed(below, rest[1:], f"{name} {rest[0]}")
    elif rest:
        given, left, _ = command.make_parser(context).parse_args(args=list(rest))
        assert not left, f"{name}: {left} is too much"
        missing = {p.name for p in command.params if p.required and given.get(p.name) is None}
        assert not missing, f"{name} {' '.join(rest)}: {missing} missing"


@pytest.mark.parametrize("page", TODAY)
def test_commands_exist(page: Page):
    for words in page.commands():
        check_command(words, page.own_files)


def test_commands_are_taken_out_of_a_line():
    line = '30 18 * * 1-5 cd /srv && bpqp data csi300 && bpqp weights --out "$(date +\\%F).csv" > o'
    assert [words[:2] for words in commands_in(line)] == [["bpqp", "data"], ["bpqp", "weights"]]
    for wrong, why in (
        ("bpqp weigths", "no command"),
        ("bpqp weights --rum RUN", "--rum"),
        ("bpqp weights --run RUN", "missing"),
        ("bpqp report RUN RUN", "too much"),
        ("qrun workflows/none.yaml", "no file"),
        ("make demos", "no target"),
    ):
        with pytest.raises(Exception, match=why):
            check_command(wrong.split())


# Links ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_links_lead_somewhere(page: Page):
    """To a file of the repository and, with ``#``, to one of its headings."""
    for target in page.links:
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        if file.suffix == ".ipynb":  # copied below docs/tutorials when the pages are built
            file = ROOT / "notebooks" / file.name
        assert file.exists(), f"{page.name}: no file {target}"
        if anchor:
            assert anchor in Page(file).anchors, f"{page.name}: no heading {target}"
