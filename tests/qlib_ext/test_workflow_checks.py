"""A workflow is checked whole before any work: whatever is wrong in it is named with its place."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from pathlib import Path

import pytest
from qlib_markets import MODEL, SETTINGS, lists, mandate, rewrite

from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.errors import BPQPError, ConfigError, DataError, StorageError
from bpqp_portfolio.qlib_ext import workflow_checks
from bpqp_portfolio.qlib_ext.components import RECORDS
from bpqp_portfolio.qlib_ext.workflow_checks import check_file, check_workflow

OURS = "bpqp_portfolio.qlib_ext"
VALUES = (None, "", "xyz", -1, 1e300, float("nan"), ["a"], {}, {1: 2}, "02.01.2015", {"name": 3})
# Any value is valid in these, or Qlib alone knows which is.
FREE = {"default_exp_name", "kernels"}


@pytest.fixture(scope="module")
def working(market, tmp_path_factory):
    """A workflow in which nothing is wrong, and the folder that it is run in."""
    folder = tmp_path_factory.mktemp("workflow")
    return {
        "experiment_name": "trial",
        "qlib_init": {
            "provider_uri": str(market.root),
            "region": "us",
            "exp_manager": {
                "class": "TrackingManager",
                "module_path": f"{OURS}.tracking",
                "kwargs": {"uri": f"sqlite:///{folder}/runs.db", "default_exp_name": "bpqp"},
            },
        },
        "task": {
            "dataset": {
                "class": "PortfolioDataset",
                "module_path": f"{OURS}.dataset",
                "kwargs": {
                    **SETTINGS,
                    "exclusions": "none",
                    "handler": {"kwargs": {"fields": ["close"], "horizon": 2}},
                    "problem": {"normalisation": "standardise", "kappa": 0.001},
                    "mandate": mandate(
                        on_failure=[{"relax": ["max_turnover"], "penalty": 1.0}, "hold"],
                        constraints={"max_weights": 0.25, "max_turnover": 0.1, "groups": 0.3},
                        sectors={"count": 4},
                    ),
                },
            },
            "model": {
                "class": "PortfolioModel",
                "module_path": f"{OURS}.model",
                "kwargs": {
                    **MODEL,
                    "pretrain": {"loss": {"name": "mse"}, "trainer": {"epochs": 1}},
                },
            },
            "record": [
                RECORDS["signal"],
                {**RECORDS["signal_analysis"], "kwargs": {"ana_long_short": False}},
                RECORDS["mandate"],
                {**RECORDS["report"], "kwargs": {"out": f"{folder}/page.html"}},
            ],
        },
    }


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def places(config, place=()):
    """The place of every block and leaf."""
    if place:
        yield place
    if isinstance(config, dict | list):
        inner = config.items() if isinstance(config, dict) else enumerate(config)
        for key, value in inner:
            yield from places(value, (*place, key))


def changed(config, place, value):
    """A copy with ``value`` at ``place``."""
    out = copy.deepcopy(config)
    node = out
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return out


def misspelt(config, place):
    """A copy with the last letter of the key at ``place`` doubled."""
    out = copy.deepcopy(config)
    node = out
    for key in place[:-1]:
        node = node[key]
    node[place[-1] + place[-1][-1]] = node.pop(place[-1])
    return out


def test_the_working_one_is_accepted_and_writes_nothing(working, tmp_path):
    check_workflow(working)
    assert not list(tmp_path.iterdir())
    assert not list(
        Path(working["qlib_init"]["exp_manager"]["kwargs"]["uri"][10:]).parent.iterdir()
    )


def test_whatever_stands_anywhere_is_accepted_or_refused_by_name(working, monkeypatch):
    """A wrong type, an empty block, a number out of any range: never another error than ours."""
    monkeypatch.setattr(workflow_checks, "check_outputs", lambda config: None)  # tried below
    monkeypatch.setattr(
        Provider, "spells", functools.cache(Provider.spells)
    )  # read once, for speed
    refused = 0
    for place in places(working):
        names = [key for key in place if isinstance(key, str) and key != "kwargs"][-2:]
        names += ["tracking address"] * (place[-1] == "uri")
        for value in VALUES:
            try:
                check_workflow(changed(working, place, value))
            except BPQPError as error:
                refused += 1
                said = str(error)
                assert any(name in said.lower() for name in names), (place, value, said)
                assert "\n" not in said, (place, value, said)
    assert refused > 800


def test_a_misspelt_key_anywhere_names_the_right_one(working):
    for place in places(working):
        if isinstance(place[-1], int) or place[-1] in FREE or place[-2:-1] == ("segments",):
            continue
        with pytest.raises(ConfigError) as caught:
            check_workflow(misspelt(working, place))
        assert place[-1] in str(caught.value), place


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("task", "record", 0, "kwargs", "model"), "<MODLE>", "SignalRecord.model .* <MODEL>"),
        (("task", "record", 1, "kwargs", "ana_long_short"), "yes", "ana_long_short: expected true"),
        (("task", "dataset", "kwargs", "market"), "csi300", "no universe 'csi300' .* all, sim"),
        (("task", "dataset", "kwargs", "benchmark"), "SH000300", "In no list of names .* SIMIDX"),
        (("task", "dataset", "kwargs", "benchmark"), "SIMIDXX", "nearest codes: SIMIDX"),
        (("task", "dataset", "kwargs", "exclusions"), "chekc", "exclusions: no file 'chekc'"),
        (
            ("task", "dataset", "kwargs", "mandate", "index_weights"), "eqaul",
            r"mandate.index_weights: no file .*eqaul; .* It is one of equal, traded_value",
        ),
        (
            ("task", "dataset", "kwargs", "handler", "kwargs", "fields"), ["close", "vwap"],
            r"handler.fields: no name of 'sim' .* has vwap; they have change, close",
        ),
        (("qlib_init", "region"), "uss", "region: unknown region 'uss'. Did you mean 'us'"),
        (("qlib_init", "exp_manager"), {"kwargs": {"uri": "x"}}, "exp_manager.class: missing"),
    ],
)  # fmt: skip
def test_names_that_are_not_there(working, place, value, message):
    with pytest.raises(BPQPError, match=message):
        check_workflow(changed(working, place, value))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("task", "record", 3, "kwargs", "out"), "folder", "folder: it is a folder, .*ReportRec"),
        (("task", "record", 3, "kwargs", "out"), "file/page.html", "file is a file, so name anoth"),
        (("qlib_init", "exp_manager", "kwargs", "uri"), "sqlite:///folder", "cannot read .*folder"),
        (("qlib_init", "exp_manager", "kwargs", "uri"), "sqlite:///file", "no SQLite database"),
        (("qlib_init", "exp_manager", "kwargs", "uri"), "sqlite:///file/x.db", "cannot .*file"),
        (("qlib_init", "exp_manager", "kwargs", "uri"), "sqlite:/runs.db", "names no file: write"),
        (("qlib_init", "exp_manager", "kwargs", "uri"), "mlruns", "is none that MLflow takes"),
        (
            ("qlib_init", "exp_manager", "kwargs", "uri"), "http://127.0.0.1:9",
            "'http://127.0.0.1:9' does not answer",
        ),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_written(working, tmp_path, place, value, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("some text")
    with pytest.raises((StorageError, DataError, ConfigError), match=message):
        check_workflow(changed(working, place, value))


def test_the_truth_of_a_market_that_has_none(working, market, tmp_path):
    judged = changed(working, ("task", "record", 3), RECORDS["truth"])
    check_workflow(judged)
    shutil.copytree(market.root, tmp_path / "real")
    (tmp_path / "real" / "truth.npz").unlink()
    with pytest.raises(DataError, match=r"no truth\.npz in .*real: only `bpqp data simulate`"):
        check_workflow(changed(judged, ("qlib_init", "provider_uri"), str(tmp_path / "real")))


def test_a_cache_that_cannot_be_written(working, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"file: it is a file, so point BPQP_CACHE at another"):
        check_workflow(working)
    (tmp_path / "file").unlink()
    (tmp_path / "mlruns").touch()
    with pytest.raises(StorageError, match=r"mlruns: it is a file, so run the workflow in another"):
        check_workflow(working)


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"flow\.yaml: it is empty"),
        ("- a\n", r"flow\.yaml: expected a mapping, got \['a'\]"),
        ("task:\n\tmodel: x\n", r"line 2, column 1: found character '\\t' .*by spaces, not tabs"),
        ("task: [a, b\nmodel: c\n", r"line 2, column 6: expected ',' or ']'.*line 1\)"),
        ("task: {a: 1}\ntask: {b: 1}\n", "line 2, column 1: found duplicate key"),
        ("BASE_CONFIG_PATH: base.yaml\n", "BASE_CONFIG_PATH 'base.yaml' is no file, neither"),
        ("BASE_CONFIG_PATH: [a]\n", r"BASE_CONFIG_PATH: expected the path .*, got \['a'\]"),
        ("market: sim\n", "the workflow: 'qlib_init' is missing"),
        ("qlib_init: {}\ntsk: {}\n", "unknown key 'tsk'. Did you mean 'task'"),
    ],
)
def test_a_file_that_is_no_workflow(tmp_path, text, message):
    path = tmp_path / "flow.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        check_file(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "flow.yaml").touch()
    with pytest.raises(ConfigError, match=r"no file .*flwo.yaml. Did you mean .*flow.yaml"):
        check_file(tmp_path / "flwo.yaml")
    with pytest.raises(ConfigError, match=r"It is a folder"):
        check_file(tmp_path)


def written(working, path, **dataset):
    """``working`` with changes to its dataset, as a file."""
    config = copy.deepcopy(working)
    config["task"]["dataset"]["kwargs"] |= dataset
    path.write_text(json.dumps(config))  # which is YAML
    return path


def test_a_good_file_and_its_prices(working, tmp_path):
    said = check_file(written(working, tmp_path / "flow.yaml"))
    assert "names of 'sim'" in said and "test 2015-11-02 to 2016-03-15" in said


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_weights": 0.01}, "max_weights 0.01 cannot reach a sum of 1 with the"),
        ({"min_weights": 0.2}, r"min_weights: 0.2 for each of \d+ names is more than the whole"),
        ({"max_weights": 0.5, "groups": 0.1}, "groups: 0.1 for each of 4 groups cannot .* 0.25"),
        (
            {"max_weights": {"SIM001": 0.1, "default": 0.3}},
            "max_weights: 'SIM001' is no code",
        ),
    ],
)
def test_limits_that_cannot_be_met(working, tmp_path, limits, message):
    rules = mandate(constraints=limits, sectors={"count": 4})
    with pytest.raises(ConfigError, match=message):
        check_file(written(working, tmp_path / "flow.yaml", mandate=rules))


def test_a_provider_of_another_region(market, working, tmp_path, capsys):
    """Chinese codes by another market's lots are refused; others by China's are noted."""
    codes = {name: f"SH60{i:04d}" for i, name in enumerate(sorted(market.spells()["instrument"]))}
    universes = {
        name: spells.assign(instrument=spells["instrument"].map(codes))
        for name, spells in lists(market).items()
    }
    provider = rewrite(market, tmp_path / "china", universes=universes)
    for name, code in codes.items():
        folder = provider.root / "features"
        (folder / name.lower()).rename(folder / code.lower())
    config = changed(working, ("qlib_init", "provider_uri"), str(provider.root))
    path = tmp_path / "flow.yaml"
    with pytest.raises(ConfigError, match=r"region: is us, but \d+ of the \d+ codes .*region: cn"):
        check_file(written(config, path))
    check_file(written(config, path, market_rules={"lot": 100, "price_limits": None}))
    capsys.readouterr()
    check_file(written(changed(working, ("qlib_init", "region"), "cn"), path))
    assert "are of no Chinese board" in capsys.readouterr().out
