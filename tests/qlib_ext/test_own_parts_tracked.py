"""A run with classes of the user's own: trained, decided on later days, and safe from its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from own_parts import RISK_AND_SCORES
from qlib_markets import FEW, SETTINGS, run_task

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.files.digests import seal
from bpqp_portfolio.live.target_weights import target_weights
from bpqp_portfolio.qlib_ext.kept_tables import kept_targets
from bpqp_portfolio.runs.artifact import PARTS, load_run
from bpqp_portfolio.runs.tracked import download_artifacts

SOURCE = (
    """
import dataclasses
import numpy as np
from torch import nn
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.portfolio.policies.softmax import Softmax
from bpqp_portfolio.predictors import Predictor


class Linear(Predictor):
    window = 1

    def __init__(self, features, scale=1.0):
        super().__init__(features)
        self.scale, self.width = scale, features
        self.head = nn.Linear(features, 1)

    def represent(self, features):
        return self.scale * features[:, -1]


@dataclasses.dataclass(frozen=True)
class Doubled:
    def __call__(self, scores, batch, problem):
        terms = build_loss("mse")(scores, batch, problem)
        return terms._replace(total=2 * terms.total)


class Soft(Softmax):
    pass
"""
    + RISK_AND_SCORES
)
OURS = "bpqp_portfolio.qlib_ext"
BACKTEST = {
    "class": "BacktestRecord",
    "module_path": f"{OURS}.records",
}


class Run:
    """A tracked run of own classes and where its files are."""

    def __init__(self, folder: Path, recorder) -> None:
        self.folder, self.id = folder, recorder.id
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.file = folder / "desk.py"
        self.weights = kept_targets(recorder)
        self.tag = MlflowClient(self.uri).get_run(self.id).data.tags[PARTS]


@pytest.fixture(scope="module")
def run(market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BPQP_CACHE", str(folder / "cache"))
        (folder / "desk.py").write_text(SOURCE)

        def own(name: str, **kwargs):
            return {"class": name, "module_path": "desk.py", "kwargs": kwargs}

        model = {
            "class": "PortfolioModel",
            "module_path": f"{OURS}.model",
            "kwargs": {
                "predictor": own("Linear", scale=0.5),
                "loss": own("Doubled"),
                "trainer": {"epochs": 2, "learning_rate": 1e-2, "batch_days": 20},
            },
        }
        problem = {
            "decision": own("Soft"),
            "normalisation": own("halved", by=0.5),
        }
        risk = {**SETTINGS["risk"], "model": own("Diagonal", floor=1e-5)}
        changes = {"handler": FEW, "problem": problem, "risk": risk}
        recorder = run_task(market, folder / "mlflow.db", "own", model, BACKTEST, **changes)
        yield Run(folder, recorder)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of what the run saved, to be changed."""
    with download_artifacts(run.id, "bpqp/model", run.uri, missing="{where}") as folder:
        return Path(shutil.copytree(folder, tmp_path / "model"))


def rewrite(folder: Path, change) -> None:
    facts = json.loads((folder / "model.json").read_text())
    change(facts)
    (folder / "model.json").write_text(json.dumps(facts))
    seal(folder)


def test_later_days_are_decided_by_the_runs_own_classes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the file is found from anywhere
    day = run.weights.index.get_level_values("datetime").unique()[-2]
    found = target_weights(run.id, f"{day:%Y-%m-%d}", tracking_uri=run.uri)
    table = found.table.set_index("instrument")["weight"]
    backtest = run.weights.xs(day, level="datetime")
    assert backtest.nunique() > 3
    assert np.allclose(table[backtest.index], backtest, atol=1e-9)


def test_the_tag_lists_what_the_workflow_named(run):
    listed = json.loads(run.tag)
    assert {one["class"] for one in listed} == {"Linear", "Doubled", "Diagonal", "Soft", "halved"}
    assert {one["module_path"] for one in listed} == {str(run.file)}
    assert all(len(one["sha256"]) == 64 for one in listed)


@pytest.mark.parametrize(
    ("name", "module"), [("system", "os"), ("Linear", "evil.py"), ("Other", "desk.py")]
)
def test_a_class_that_the_workflow_did_not_name_is_refused(run, copied, tmp_path, name, module):
    (tmp_path / "evil.py").write_text("raise SystemExit('was run')\n")
    place = {"evil.py": str(tmp_path / "evil.py"), "desk.py": str(run.file)}.get(module, module)
    evil = {"class": name, "module_path": place}
    rewrite(copied, lambda facts: facts["model"].update(predictor=evil))
    with pytest.raises(ConfigError, match=f"names the class {name} of .*{module}, which the run's"):
        load_run(copied, run.id, run.tag)


def test_without_its_tag_a_run_imports_nothing(run, copied):
    with pytest.raises(ConfigError, match="which the run's own configuration did not list"):
        load_run(copied, run.id)


def test_a_file_that_has_changed_or_gone_is_named(run, copied):
    whole = run.file.read_text()
    try:
        run.file.write_text(whole + "\nraise SystemExit('was run')\n")
        with pytest.raises(ConfigError, match=r"desk\.py, where its class Linear lives, has chan"):
            load_run(copied, run.id, run.tag)
        run.file.unlink()
        with pytest.raises(ConfigError, match=r"no file .*desk\.py"):
            load_run(copied, run.id, run.tag)
    finally:
        run.file.write_text(whole)


def test_a_damaged_tag_is_named(run, copied):
    with pytest.raises(DataError, match=r"bpqp\.own_parts is damaged"):
        load_run(copied, run.id, '[{"class": "Linear"}]')
