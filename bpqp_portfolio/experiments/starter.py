"""Starter projects: a market's workflows, their base, notebooks and a README in a folder."""

from __future__ import annotations

import math
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from ..config import lookup
from ..data.provider.provider import FIELDS, Provider
from ..errors import ConfigError
from ..files.atomic import make_folder, scratch_folder, writing

DATA = Path("data/us")
"""Where a project of one's own prices has them, unless another folder is named."""
WARM_UP = 240  # days before the first training day: the risk model's window
LEAST_DAYS = 500  # of a history, of which half remains to train, choose and test on
GITIGNORE = "data/\nmlflow.db*\n.mlflow.db*\nmlruns/\n*.html\n__pycache__/\n.ipynb_checkpoints/\n"
README = """# {title}

Made by `bpqp init --market {market}`. Run everything from this folder.

{steps}

| Workflow | |
|---|---|
{workflows}

What the workflows share, each setting with its meaning, is in `configs/portfolio.yaml`. Runs are
tracked in `mlflow.db` and `mlruns/`; the notebooks in `notebooks/` look there by themselves.
"""


@dataclass(frozen=True)
class StarterKind:
    """A kind of project: its ``title``, and the ``suffix`` of its workflows' names."""

    title: str
    suffix: str

    @property
    def main(self) -> str:
        """The workflow that the next commands run."""
        return f"bpqp_{self.suffix}.yaml"

    def files(self, source: Path) -> list[Path]:
        """What is copied, relative to ``source``."""
        found = [source / "configs" / "portfolio.yaml"]
        for pattern in (
            f"workflows/*_{self.suffix}*",
            f"configs/*_{self.suffix}.yaml",
            "notebooks/*.ipynb",
        ):
            found += sorted(source.glob(pattern))
        return [path.relative_to(source) for path in found]


STARTERS = {
    "demo": StarterKind("Portfolio demonstration", "demo"),
    "cn": StarterKind("Portfolios on CSI 300", "csi300"),
    "us": StarterKind("Portfolios on US prices of my own", "us"),
}
"""By the name that ``bpqp init --market`` takes."""


def starter_files() -> Path:
    """The folder of ``workflows``, ``configs`` and ``notebooks``: the wheel's, or the checkout's.

    Raises
    ------
    ConfigError
        The installation has neither.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "starter", package.parent):
        if (folder / "workflows" / "bpqp_demo.yaml").is_file():
            return folder
    raise ConfigError(
        f"the installation at {package} is without its workflows: run "
        "`pip install --force-reinstall bpqp-portfolio`."
    )


def write_starter(folder: Path, market: str = "demo", provider: Path | None = None) -> list[str]:
    """Write a project that qrun runs at once into ``folder``; the next commands, in order.

    Parameters
    ----------
    market : ``demo`` (no other data), ``cn`` (CSI 300) or ``us`` (prices of one's own).
    provider : of ``us``, where the prices were imported; ``folder/data/us`` by default. Segments,
        fields, benchmark and limits of the workflow are those that it can carry.

    Raises
    ------
    ConfigError
        An unknown market, a file that would be overwritten, or no prices for ``us``.
    StorageError
        The folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     print(write_starter(Path(parent) / "mine", "cn")[-1])
    qrun workflows/bpqp_csi300.yaml
    """
    kind = lookup(STARTERS, market, "market")
    folder, source = Path(folder).expanduser(), starter_files()
    if provider is not None and market != "us":
        raise ConfigError(
            "--provider goes with --market us; the others' data have a place of their own, which "
            "BPQP_PROVIDER_URI changes."
        )
    files = kind.files(source)
    _refuse_overwriting(folder, [*files, Path("README.md"), Path(".gitignore")])
    prices = _OwnPrices.read(folder, provider) if market == "us" else None
    commands = _commands(source / "workflows" / kind.main)
    if prices is not None:
        commands = commands[-1:]  # the prices are there already
    # In a scratch folder first: a project is whole or not there.
    make_folder(folder)
    with writing(folder), scratch_folder(folder / "README.md") as scratch:
        for relative in files:
            make_folder((scratch / relative).parent)
            shutil.copyfile(source / relative, scratch / relative)
        if prices is not None:
            prices.write_into(scratch / "workflows" / kind.main)
        (scratch / "README.md").write_text(_readme(market, kind, source, files, commands))
        (scratch / ".gitignore").write_text(GITIGNORE)
        shutil.copytree(scratch, folder, dirs_exist_ok=True)
    return commands


def _refuse_overwriting(folder: Path, files: list[Path]) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder.")
    there = [str(name) for name in files if (folder / name).exists()]
    if there:
        listed = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise ConfigError(
            f"{folder} has files that would be overwritten: {listed}. Name a new folder, or remove "
            "them first."
        )


def workflow_header(path: Path) -> tuple[str, str]:
    """What a workflow is, and its commands: the first two lines of its file."""
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    return first.removeprefix("# "), second.removeprefix("# ")


def _commands(path: Path) -> list[str]:
    return workflow_header(path)[1].split(" && ")


def _readme(
    market: str, kind: StarterKind, source: Path, files: list[Path], commands: list[str]
) -> str:
    run = kind.main.removesuffix(".yaml")
    steps = [*commands, f"bpqp weights --run {run} --out weights.csv"]
    rows = [
        f"| `{path}` | {workflow_header(source / path)[0]} |"
        for path in files
        if _is_workflow(path)
    ]
    return README.format(
        title=kind.title,
        market=market,
        steps="\n".join(f"    {step}" for step in steps),
        workflows="\n".join(rows),
    )


def _is_workflow(path: Path) -> bool:
    return path.parts[0] == "workflows" and path.suffix == ".yaml"


@dataclass(frozen=True)
class _OwnPrices:
    """What a workflow says of the prices in a provider, and where they are."""

    place: str
    benchmark: str | None
    fields: list[str]
    factors: int
    max_weights: float
    segments: dict[str, tuple[str, str]]

    @classmethod
    def read(cls, folder: Path, provider: Path | None) -> _OwnPrices:
        """Of the provider, relative to the project's ``folder`` where it lies inside.

        Raises
        ------
        ConfigError
            There are no prices, or too few days or names of them.
        """
        root = (folder / DATA if provider is None else provider).expanduser().absolute()
        if not (root / "calendars" / "day.txt").is_file():
            place, project = shlex.quote(str(root)), shlex.quote(str(folder))
            again = "" if provider is None else f" --provider {place}"
            raise ConfigError(
                f"no prices at {root}: import them first, `bpqp data import PRICES --to {place}`, "
                f"then run `bpqp init {project} --market us{again}` again."
            )
        data = Provider(root).require()
        days = data.calendar
        if len(days) < LEAST_DAYS:
            raise ConfigError(
                f"{root} has {len(days)} days ({days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}): a "
                f"starter project needs {LEAST_DAYS}, {WARM_UP} of them before the training."
            )
        member = data.membership("all", days, data.names)
        fewest = int(member[WARM_UP:].sum(axis=1).min())
        if fewest < 5:
            raise ConfigError(
                f"{root} has a day with {fewest} names after {days[WARM_UP]:%Y-%m-%d}; a portfolio "
                "needs five. Import prices of more names, or of the same ones for longer."
            )
        held = [name for name, n in zip(data.names, member.sum(axis=0), strict=True) if n]
        base = folder.absolute()
        return cls(
            place=(root.relative_to(base) if root.is_relative_to(base) else root).as_posix(),
            benchmark=data.manifest.get("benchmark"),
            fields=[f for f in FIELDS[:5] if all(data.has(name, f) for name in held)],
            factors=min(10, fewest // 4),
            max_weights=max(0.02, math.ceil(200 / fewest) / 100),
            segments=_segments(days),
        )

    def write_into(self, workflow: Path) -> None:
        """Change the workflow's file to these, comments kept."""
        yaml = YAML()
        yaml.preserve_quotes, yaml.width = True, 100
        config = yaml.load(workflow)
        settings = config["task"]["dataset"]["kwargs"]
        settings["benchmark"] = self.benchmark
        settings["handler"]["kwargs"]["fields"][:] = self.fields
        settings["risk"]["factors"] = self.factors
        settings["mandate"]["constraints"]["max_weights"] = self.max_weights
        for name, span in self.segments.items():
            settings["segments"][name][:] = [DoubleQuotedScalarString(day) for day in span]
        config["qlib_init"]["provider_uri"] = DoubleQuotedScalarString(
            f"{{{{ BPQP_PROVIDER_URI | default('{self.place}', true) }}}}"
        )
        yaml.dump(config, workflow)


def _segments(days: pd.DatetimeIndex) -> dict[str, tuple[str, str]]:
    """Three fifths of the days after the warm-up to train, a fifth to choose, a fifth to test."""
    known = [f"{day:%Y-%m-%d}" for day in days[WARM_UP:]]
    edges = [0, len(known) * 3 // 5, len(known) * 4 // 5, len(known) - 1]
    return {
        name: (known[first], known[end - 1])
        for name, first, end in zip(("train", "valid", "test"), edges, edges[1:], strict=False)
    }
