"""What a run saves for the days after it: network, columns, processors and problem, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from qlib.config import C

from ..backtest.learned_risk import problem_of
from ..backtest.mandate_settings import MandateSettings
from ..backtest.segment import sectors_of
from ..config import own_parts
from ..data.quality.exclusions import write_exclusions
from ..files.atomic import replacing_file
from ..files.digests import seal
from ..files.workflow import locate
from ..runs.artifact import BOOSTER, EXCLUSIONS, FACTS, GROUPS, PARTS, SCHEMA
from .dataset import PortfolioDataset


def save_run(folder: Path, model: Any, dataset: PortfolioDataset, by_mandate: bool) -> bool:
    """Write what later days need into ``folder``; False for a model that keeps nothing.

    That is a model with a ``save(folder, dataset)`` of its own, or Qlib's ``LGBModel``, whose
    trees are kept in LightGBM's text format. ``by_mandate`` says whether the backtest solved each
    day by the mandate, or traded the weights of the training problem.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    if hasattr(model, "history") and hasattr(model, "save"):
        model.save(folder, dataset)
        facts = json.loads((folder / FACTS).read_text())
    elif hasattr(getattr(model, "model", None), "save_model"):
        with replacing_file(folder / BOOSTER) as scratch:
            scratch.write_text(model.model.model_to_string())
        facts = {"features": dataset.features.feature_names, "score_scale": dataset.problem.scale}
    else:
        return False
    handler, market = dataset.features, dataset.market_data
    first = dataset.span_names["train"][0]
    days = [f"{d:%Y-%m-%d}" for d in market.dates[market.dates >= first]]
    facts |= {
        "schema": SCHEMA,
        "market": dataset.market,
        "benchmark": dataset.benchmark,
        "market_rules": asdict(dataset.market_rules),
        "expressions": list(handler.get_feature_config()[0]),
        "loader": handler.loader,
        "handler": type(dataset.handler).__name__,
        "processors": handler.processors,
        "segments": dataset.span_names,
        "risk": asdict(dataset.risk),
        "problem": asdict(problem_of(model, dataset).config),
        "exclusions": dataset.exclusions,
        "mandate": dataset.mandate.to_config(),
        "by_mandate": by_mandate,
        "data": {
            "folder": str(Path(C.dpm.get_data_uri("day")).absolute()),
            "manifest": {k: dataset.manifest.get(k) for k in ("source", "sha256", "kind")},
            "days": " ".join(days),
            "names": list(market.names),
        },
    }
    if by_mandate:
        _save_groups(folder, dataset, len(market.dates) - len(days))
    locate(facts, Path.cwd())
    with replacing_file(folder / FACTS) as scratch:
        scratch.write_text(json.dumps(facts, indent=1) + "\n")
    write_exclusions(folder / EXCLUSIONS, dataset.excluded)
    seal(folder)
    return True


def parts_tag(folder: Path) -> dict[str, str]:
    """The tag of the run whose model :func:`save_run` wrote into ``folder``, where it needs one."""
    parts = own_parts(json.loads((Path(folder) / FACTS).read_text()))
    return {PARTS: json.dumps(parts)} if parts else {}


def _save_groups(folder: Path, dataset: PortfolioDataset, first: int) -> None:
    """Write the groups of past returns from day ``first`` on, where the mandate has such."""
    settings: MandateSettings = dataset.mandate
    if isinstance(settings.sectors, str):
        return
    codes = sectors_of(settings, dataset.market_data, dataset.data_key).codes[first:]
    start = np.flatnonzero(np.append(True, (codes[1:] != codes[:-1]).any(1)))
    with replacing_file(folder / GROUPS) as scratch, scratch.open("wb") as file:
        np.savez(file, start=start, codes=codes[start])
