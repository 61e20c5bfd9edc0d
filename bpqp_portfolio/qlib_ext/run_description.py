"""What a tracked run is called, tagged and described with, so that a person finds and reads it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from qlib.config import C

from ..config import title
from ..report.headline import headline
from ..report.metrics import book_rows
from ..report.tracked_metrics import described
from ..runs.results import RunResults

PACKAGE = Path(__file__).parents[1]
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""


def method_of(task: Mapping[str, Any]) -> str:
    """What learns in a task: its predictor and the losses it learns by, or its model's class.

    >>> network = {"predictor": {"name": "mlp"}, "members": 3, "loss": "net_utility"}
    >>> method_of({"model": {"class": "PortfolioModel", "kwargs": network}})
    'mlp x3, net_utility'
    >>> method_of({"model": {"class": "LGBModel"}})
    'LGBModel'
    """
    model = task.get("model") or {}
    kwargs = model.get("kwargs") or {}
    losses = [
        title(part["loss"])
        for part in (kwargs.get("pretrain"), kwargs)
        if isinstance(part, Mapping) and part.get("loss")
    ]
    if not kwargs.get("predictor") or not losses:
        return str(model.get("class", "no model"))
    members = int(kwargs.get("members") or 1)
    several = f" x{members}" if members > 1 else ""
    return f"{title(kwargs['predictor'])}{several}, {' then '.join(losses)}"


def run_name(workflow: Path, task: Mapping[str, Any]) -> str:
    """A run's name: its workflow's file and its method, without spaces, so that a shell takes it.

    >>> network = {"predictor": "mlp", "pretrain": {"loss": "mse"}, "loss": "regret"}
    >>> run_name(Path("flows/desk.yaml"), {"model": {"kwargs": network}})
    'desk-mlp-mse-then-regret'
    """
    words = method_of(task).replace(",", "").split()
    return "-".join([workflow.stem, *words])


def code_tags() -> dict[str, str]:
    """``bpqp.version``, and ``bpqp.commit`` where the package runs from a checkout of git.

    A commit ends with ``-dirty`` where files differ from it.
    """
    commit = _commit()
    tags = {"bpqp.version": version("bpqp-portfolio")}
    return tags if commit is None else {**tags, "bpqp.commit": commit}


@cache
def _commit() -> str | None:
    """The checkout's commit; None of an installed wheel, and where git cannot say."""
    # A hook's variables would point git at another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PACKAGE), *arguments],
                env=environment, capture_output=True, text=True, timeout=10, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # A wheel may lie in the environment of somebody else's repository.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def data_tags(dataset: Any) -> dict[str, str]:
    """Market, universe, days and data of a :class:`~.dataset.PortfolioDataset`."""
    manifest, spans = dataset.manifest, dataset.span_names
    return {
        "bpqp.region": str(C.region),
        "bpqp.market": str(dataset.market),
        "bpqp.universe": f"{len(dataset.market_data.names)} names in all",
        "bpqp.benchmark": str(dataset.benchmark or "none"),
        "bpqp.test": " to ".join(str(day) for day in spans["test"]),
        "bpqp.data": str(manifest.get("source") or manifest.get("kind") or "not stated"),
        "bpqp.data_digest": data_digest(manifest, dataset.data_key["provider"]),
    }


def data_digest(manifest: Mapping[str, Any], fingerprint: str) -> str:
    """The digest of the provider's source that its manifest states, or else that of its files.

    >>> data_digest({"sha256": "ab12"}, "cd34"), data_digest({}, "cd34")
    ('sha256:ab12', 'files:cd34')
    """
    stated = manifest.get("sha256")
    if not stated:
        return f"files:{fingerprint}"
    if isinstance(stated, str):
        return f"sha256:{stated}"
    text = json.dumps(stated, sort_keys=True)
    return f"sha256 of {len(stated)} digests:{hashlib.sha256(text.encode()).hexdigest()}"


def note(results: RunResults, summary: pd.DataFrame, metrics: Mapping[str, float]) -> str:
    """A run's description in Markdown: what happened, the books, and the unit of each metric."""
    first, *others = headline(results)
    books = book_rows(summary, results.benchmark)
    table = [
        f"| a year of {results.days_per_year:g} days | return | volatility | ratio | drawdown |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join([label, *cells])} |" for label, cells in books),
    ]
    units = ["| metric | unit | what |", "|---|---|---|"]
    units += [f"| `{m.name}` | {m.unit} | {m.text} |" for m in described(metrics)]
    parts = [f"**{first}**", *others, "\n".join(table), "Metrics of this run:", "\n".join(units)]
    return "\n\n".join(parts) + "\n"
