"""`bpqp init`: every market's project is read and checked as it is, and overwrites nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider.provider import write_provider
from bpqp_portfolio.data.provider.simulate import simulate_market
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.experiments.starter import STARTERS, starter_files, write_starter
from bpqp_portfolio.files.workflow import read_workflow
from bpqp_portfolio.qlib_ext.preflight import check_task
from bpqp_portfolio.qlib_ext.segments import check_segments

MAIN = {"demo": "bpqp_demo", "cn": "bpqp_csi300", "us": "bpqp_us"}


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """A provider of 24 names over three years, with an index that the manifest names."""
    return simulate_market(tmp_path_factory.mktemp("own") / "prices", names=24, years=3, seed=1)


@pytest.fixture(scope="module", params=STARTERS)
def project(request, tmp_path_factory, prices):
    """A market's project, and its name."""
    folder = tmp_path_factory.mktemp("project") / "mine"
    write_starter(folder, request.param, prices.root if request.param == "us" else None)
    return folder, request.param


def test_every_workflow_of_a_project_can_run(project, monkeypatch):
    folder, market = project
    monkeypatch.chdir(folder)
    files = sorted((folder / "workflows").glob("*.yaml"))
    assert MAIN[market] in {file.stem for file in files}
    for file in files:
        config = read_workflow(file)
        check_task(config["task"])
        assert config["qlib_init"]["region"] == ("cn" if market == "cn" else "us")
        assert config["qlib_init"]["exp_manager"]["kwargs"]["uri"] == "sqlite:///mlflow.db"
        for named in re.findall(r"\S+\.csv", file.read_text()):
            assert (folder / named).is_file() or market == "cn"


def test_the_commands_that_a_project_names_are_those_of_bpqp(project):
    folder, _ = project
    texts = [(folder / "README.md").read_text()]
    texts += [file.read_text() for file in (folder / "workflows").glob("*.yaml")]
    lines = re.findall(r"^(?:    |# )(bpqp .*)$", "\n".join(texts), flags=re.MULTILINE)
    assert lines
    for line in " && ".join(lines).split(" && "):
        name, *rest = shlex.split(line)
        command = get_command(app)
        while name == "bpqp" and hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        if name == "bpqp":
            command.make_context(line, rest)  # an unknown or missing option ends it


def test_what_a_project_is_made_of(project):
    folder, market = project
    text = (folder / "README.md").read_text()
    assert f"    qrun workflows/{MAIN[market]}.yaml\n" in text
    for file in (folder / "workflows").glob("*.yaml"):
        assert f"`workflows/{file.name}`" in text
    assert len(list((folder / "notebooks").glob("*.ipynb"))) == 3
    assert "mlflow.db" in (folder / ".gitignore").read_text()
    copies = [p for p in folder.rglob("*") if p.is_file() and p.parent != folder]
    changed = {
        p.name
        for p in copies
        if p.read_bytes() != (starter_files() / p.relative_to(folder)).read_bytes()
    }
    assert changed == ({"bpqp_us.yaml"} if market == "us" else set())


def test_a_project_of_ones_own_prices_is_what_these_can_carry(tmp_path, prices):
    commands = write_starter(tmp_path, "us", prices.root)
    assert commands == ["qrun workflows/bpqp_us.yaml"]
    file = tmp_path / "workflows" / "bpqp_us.yaml"
    config = read_workflow(file)
    assert config["qlib_init"]["provider_uri"] == str(prices.root)
    settings = config["task"]["dataset"]["kwargs"]
    assert settings["benchmark"] == "SIMIDX" and settings["risk"]["factors"] == 6
    assert settings["mandate"]["constraints"] == {"max_weights": 0.09}  # of 24 names
    spans = check_segments(settings["segments"], prices.calendar, 10)
    assert prices.calendar.get_loc(spans["train"][0]) == 240
    assert spans["test"][1] == prices.calendar[-2]
    head = (starter_files() / "workflows" / file.name).read_text().splitlines()[:3]
    assert file.read_text().splitlines()[:3] == head


def test_prices_inside_the_project_and_closes_alone(tmp_path):
    days = pd.bdate_range("2020-01-01", periods=600)
    closes = {f"N{i}": pd.DataFrame({"close": 1.0, "change": 0.0}, days) for i in range(6)}
    spells = pd.DataFrame({"instrument": list(closes), "start": days[0], "end": days[-1]})
    (tmp_path / "data" / "us").mkdir(parents=True)
    write_provider(tmp_path / "data" / "us", days, closes, {"all": spells})
    write_starter(tmp_path, "us")
    config = read_workflow(tmp_path / "workflows" / "bpqp_us.yaml")
    assert config["qlib_init"]["provider_uri"] == "data/us"
    settings = config["task"]["dataset"]["kwargs"]
    assert settings["handler"]["kwargs"]["fields"] == ["close"]
    assert settings["benchmark"] is None
    check_task(config["task"])


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"would be overwritten: README\.md\. Name a new folder"):
        write_starter(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(ConfigError, match="is a file"):
        write_starter(tmp_path / "README.md")
    again = CliRunner().invoke(app, ["init", str(tmp_path / "new")])
    assert again.exit_code == 0 and "qrun workflows/bpqp_demo.yaml" in again.output
    again = CliRunner().invoke(app, ["init", str(tmp_path / "new")])
    assert isinstance(again.exception, ConfigError) and "portfolio.yaml" in str(again.exception)


def test_a_folder_with_a_blank_is_quoted_in_the_commands(tmp_path):
    folder = tmp_path / "my desk"
    said = CliRunner().invoke(app, ["init", str(folder)])
    (entered,) = re.findall(r"^    (cd .*)$", said.output, flags=re.MULTILINE)
    assert shlex.split(entered) == ["cd", str(folder)]
    with pytest.raises(ConfigError) as caught:
        write_starter(tmp_path / "a b", "us", tmp_path / "no prices")
    imported, again = (shlex.split(line) for line in re.findall("`(.*?)`", str(caught.value)))
    assert imported == ["bpqp", "data", "import", "PRICES", "--to", str(tmp_path / "no prices")]
    assert again[2] == str(tmp_path / "a b") and again[-1] == str(tmp_path / "no prices")


@pytest.mark.parametrize(
    ("market", "days", "names", "message"),
    [
        ("us", None, 0, r"no prices at .*: import them first, `bpqp data import PRICES --to"),
        ("us", 300, 6, r"has 300 days .* needs 500"),
        ("us", 600, 4, r"a day with 4 names"),
        ("cn", 600, 6, r"--provider goes with --market us"),
        ("uk", None, 0, r"unknown market 'uk'. Known: cn, demo, us"),
    ],
)
def test_refusals_leave_nothing(tmp_path, market, days, names, message):
    if days is not None:
        calendar = pd.bdate_range("2020-01-01", periods=days)
        closes = {f"N{i}": pd.DataFrame({"close": 1.0}, calendar) for i in range(names)}
        spells = pd.DataFrame(
            {"instrument": list(closes), "start": calendar[0], "end": calendar[-1]}
        )
        write_provider(tmp_path / "p", calendar, closes, {"all": spells})
    with pytest.raises(ConfigError, match=message):
        write_starter(tmp_path / "mine", market, None if days is None else tmp_path / "p")
    assert not Path(tmp_path / "mine").exists()
