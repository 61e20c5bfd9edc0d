"""Workflows run as a user runs them: console scripts in a process and a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Workspace:
    """A folder with copies of the workflows and their fragments, and what is run in it.

    ``scripts`` is where the console scripts lie: this environment's, or one with the wheel in it.
    """

    folder: Path
    scripts: Path = SCRIPTS

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
        if self.scripts != SCRIPTS:
            environment.pop("PYTHONPATH", None)
        environment |= {
            "BPQP_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            **variables,
        }
        return subprocess.run(
            [str(self.scripts / command[0]), *command[1:]],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def shorten(self, file: str, train: str, valid: str, test: str, epochs: int) -> None:
        """``file`` with few epochs on spans ``2010-01-04 to 2013-12-31``."""
        for segment, span in (("train", train), ("valid", valid), ("test", test)):
            first, last = span.split(" to ")
            self.edit(file, rf"{segment}: \[.*\]", f'{segment}: ["{first}", "{last}"]')
        self.edit(file, r"epochs: \d+", f"epochs: {epochs}")

    def build(self, *command: str) -> None:
        """Make data by ``bpqp data`` and its arguments."""
        built = self.run("bpqp", "data", *command)
        assert built.returncode == 0, built.stdout

    def execute(self, notebook: str) -> list:
        """Outputs of the notebook after it ran where it lies, by this environment's Python."""
        (self.folder / "notebooks").mkdir(exist_ok=True)
        path = self.folder / "notebooks" / notebook
        if not path.exists():
            shutil.copy(ROOT / "notebooks" / notebook, path)
        command = ("-m", "nbconvert", "--execute", "--to", "notebook", "--inplace", str(path))
        done = self.run("python", *command)
        assert done.returncode == 0, done.stdout[-4000:]
        cells = nbformat.read(path, as_version=4).cells
        return [output for cell in cells for output in cell.get("outputs", [])]

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


SOURCES = ("bpqp_portfolio", "workflows", "configs", "notebooks")


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this checkout, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    copy = folder / "checkout"  # so that nothing is left in the real one
    copy.mkdir()
    for part in SOURCES:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    _build(copy, "sdist", folder)
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder, filter="data")
    _build(folder / sdist.name.removesuffix(".tar.gz"), "wheel", folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def _build(source: Path, kind: str, to: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(to)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="session")
def wheel_scripts(distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Console scripts of a new environment that has the wheel, and not the checkout.

    The dependencies are those of this environment, seen through a .pth file: to install torch
    again would take minutes.
    """
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    scripts = place / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / Path(sys.executable).name
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    (inside / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", str(distributions[1])]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), *install],
        check=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    qrun = scripts / "qrun"  # as pip writes it
    qrun.write_text(f"#!{python}\nfrom qlib.cli.run import run\nrun()\n")
    qrun.chmod(0o755)
    return scripts


@pytest.fixture(scope="session")
def wheel_project(wheel_scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demonstration's starter project, by the installed wheel."""
    parent = tmp_path_factory.mktemp("desk")
    made = Workspace(parent, wheel_scripts).run("bpqp", "init", "demo")
    assert made.returncode == 0, made.stdout
    return Workspace(parent / "demo", wheel_scripts)
