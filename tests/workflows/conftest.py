"""Workflows run as a user runs them: console scripts in a process and a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Workspace:
    """A folder with copies of the workflows and their fragments, and what is run in it."""

    folder: Path

    def edit(self, file: str, pattern: str, new: str) -> None:
        """Replace the only match of ``pattern`` in a copied file."""
        path = self.folder / file
        text, count = re.subn(pattern, new, path.read_text())
        assert count == 1, f"{count} matches of {pattern!r} in {file}"
        path.write_text(text)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a console script in the folder, on one thread, with a cache of its own."""
        ours = ("BPQP_", "MLFLOW_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        environment |= {
            "BPQP_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            **variables,
        }
        script = Path(sys.executable).with_name(command[0])
        return subprocess.run(
            [str(script), *command[1:]],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def shorten(self, file: str, train: str, valid: str, test: str, epochs: int) -> None:
        """The demo's data, and ``file`` with few epochs on spans ``2010-01-04 to 2013-12-31``."""
        for segment, span in (("train", train), ("valid", valid), ("test", test)):
            first, last = span.split(" to ")
            self.edit(file, rf"{segment}: \[.*\]", f'{segment}: ["{first}", "{last}"]')
        self.edit(file, r"epochs: \d+", f"epochs: {epochs}")
        built = self.run("bpqp", "data", "demo", "--to", "data/demo")
        assert built.returncode == 0, built.stdout

    @property
    def client(self) -> MlflowClient:
        """The tracker of the folder."""
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self, experiment: str) -> list:
        """Tracked runs of an experiment, the last first."""
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None, f"no experiment {experiment!r}"
        return list(self.client.search_runs([found.experiment_id], max_results=10))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One folder for the tests of a file."""
    folder = tmp_path_factory.mktemp("work")
    for part in ("workflows", "configs"):
        shutil.copytree(ROOT / part, folder / part)
    return Workspace(folder)
