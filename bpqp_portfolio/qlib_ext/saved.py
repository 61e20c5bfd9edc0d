"""What a run saves for the days after it: network, columns, processors and problem, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch

from ..data.atomic import replacing_file
from ..data.exclusions import Exclusions, read_exclusions, write_exclusions
from ..errors import ConfigError, DataError
from ..portfolio.costs import TradingCosts
from ..portfolio.problem import PortfolioProblem
from ..predictors import Ensemble, Outlook, Predictor, build_network
from ..risk.config import RiskConfig
from ..trading_year import QLIB
from .beliefs import problem_of
from .mandate_settings import MandateSettings
from .rebalance import BookRules

if TYPE_CHECKING:
    from .dataset import PortfolioDataset

SCHEMA = 2
FACTS, WEIGHTS, EXCLUSIONS = "model.json", "state_dict.pt", "exclusions.csv"
BOOSTER = "lightgbm.txt"
GROUPS = "groups.npz"
ARTIFACTS = "bpqp/model"
"""Folder among a run's artifacts that holds what :func:`save_run` wrote."""


def save_run(
    folder: Path, model: Any, dataset: PortfolioDataset, backtest: Mapping[str, Any]
) -> bool:
    """Write what later days need into ``folder``; False for a model that keeps nothing.

    That is a model with a ``save(folder, dataset)`` of its own, or Qlib's ``LGBModel``, whose
    trees are kept in LightGBM's text format. ``backtest`` holds the fields of
    :class:`~.records.BacktestConfig`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    if hasattr(model, "history") and hasattr(model, "save"):
        model.save(folder, dataset)
        facts = json.loads((folder / FACTS).read_text())
    elif hasattr(getattr(model, "model", None), "save_model"):
        with replacing_file(folder / BOOSTER) as scratch:
            model.model.save_model(str(scratch))
        facts = {"features": dataset.handler.feature_names, "score_scale": dataset.problem.scale}
    else:
        return False
    from qlib.config import C

    handler, market = dataset.handler, dataset.market_data
    first = dataset.span_names["train"][0]
    days = [f"{d:%Y-%m-%d}" for d in market.dates[market.dates >= first]]
    facts |= {
        "schema": SCHEMA,
        "market": dataset.market,
        "benchmark": dataset.benchmark,
        "days_per_year": dataset.days_per_year,
        "expressions": list(handler.get_feature_config()[0]),
        "loader": handler.loader,
        "processors": handler.processors,
        "segments": dataset.span_names,
        "risk": asdict(dataset.risk),
        "problem": asdict(problem_of(model, dataset).config),
        "backtest": dict(backtest),
        "exclusions": dataset.exclusions,
        "mandate": None if dataset.mandate is None else dataset.mandate.to_config(),
        "data": {
            "folder": str(Path(C.dpm.get_data_uri("day")).absolute()),
            "manifest": {k: dataset.manifest.get(k) for k in ("source", "sha256", "kind")},
            "days": " ".join(days),
            "names": list(market.names),
        },
    }
    if dataset.mandate is not None:
        costs = dataset.mandate.build().costs
        facts["backtest"] |= {
            "open_cost": costs.buy, "close_cost": costs.sell, "min_cost": costs.minimum
        }  # fmt: skip
        _save_groups(folder, dataset, len(market.dates) - len(days))
    with replacing_file(folder / FACTS) as scratch:
        scratch.write_text(json.dumps(facts, indent=1) + "\n")
    write_exclusions(folder / EXCLUSIONS, dataset.excluded)
    return True


def _save_groups(folder: Path, dataset: PortfolioDataset, first: int) -> None:
    """Write the groups of past returns from day ``first`` on, where the mandate has such."""
    from .mandate_days import sectors_of

    settings: MandateSettings = dataset.mandate
    if isinstance(settings.sectors, str):
        return
    codes = sectors_of(settings, dataset.market_data, dataset.data_key).codes[first:]
    start = np.flatnonzero(np.append(True, (codes[1:] != codes[:-1]).any(1)))
    with replacing_file(folder / GROUPS) as scratch, scratch.open("wb") as file:
        np.savez(file, start=start, codes=codes[start])


@dataclass(frozen=True)
class SavedRun:
    """A run as :func:`save_run` left it: ``facts``, ``scorer`` and what it did not believe.

    ``groups`` of a mandate that found its sectors itself: the positions in ``days`` (P,) on which
    they changed, and the codes (P, N) of the run's names from then on.
    """

    run_id: str
    facts: dict[str, Any]
    scorer: Predictor | Any
    excluded: Exclusions
    groups: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def window(self) -> int:
        """Days of history that a score needs."""
        return self.scorer.window if isinstance(self.scorer, Predictor) else 1

    @property
    def days(self) -> list[str]:
        """Trading days of the run's data from its first training day on, YYYY-MM-DD."""
        return self.facts["data"]["days"].split()

    @property
    def days_per_year(self) -> float:
        """Trading days that annual figures count; Qlib's for a run saved before this was kept."""
        return self.facts.get("days_per_year", QLIB)

    @property
    def risk(self) -> RiskConfig:
        """Settings of the risk model."""
        return RiskConfig(**self.facts["risk"])

    @property
    def problem(self) -> PortfolioProblem:
        """The decision problem with the run's score scale."""
        return PortfolioProblem(self.facts["problem"], self.facts["score_scale"])

    @property
    def rules(self) -> BookRules:
        """Lots, costs and invested part of the run's backtest; ConfigError where it had none."""
        backtest = self.facts["backtest"]
        if not backtest:
            raise ConfigError(
                f"run {self.run_id!r} had no BacktestRecord, whose costs, lots and risk_degree "
                "size the trades: leave out holdings and cash to get weights alone."
            )
        costs = TradingCosts(backtest["open_cost"], backtest["close_cost"], backtest["min_cost"])
        return BookRules(backtest["risk_degree"], backtest["trade_unit"], costs, self.pin_limits)

    @property
    def mandate(self) -> MandateSettings | None:
        """The mandate that the run was backtested under, where there was one."""
        block = self.facts["mandate"]
        return MandateSettings.from_config(block) if block else None

    @property
    def pin_limits(self) -> bool:
        """Are names that closed at a price limit kept from trading against it?"""
        return bool(self.facts["mandate"] and self.facts["mandate"]["pin_limits"])

    @torch.no_grad()
    def outlook(self, features: np.ndarray) -> Outlook:
        """What the model says in float64 of one day's names, with ``features`` (n, L, F) float32.

        Its κ is in :attr:`problem` already.
        """
        if isinstance(self.scorer, Predictor):
            rows = torch.from_numpy(features).double()
            return self.scorer.outlook(rows, torch.tensor([len(rows)]))
        scores = np.asarray(self.scorer.predict(features[:, -1]), dtype=np.float64)
        return Outlook(torch.from_numpy(scores))


def load_run(folder: Path, run_id: str) -> SavedRun:
    """Read what :func:`save_run` wrote.

    The network is read as tensors alone (``weights_only``); nothing is unpickled.

    Raises
    ------
    DataError
        A file is missing, damaged, or of a run of another version.
    """
    folder = Path(folder)
    where = f"run {run_id!r}"
    try:
        facts = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: cannot read its saved model ({error}); run it again.") from error
    if facts.get("schema") != SCHEMA:
        raise DataError(
            f"{where} was saved by another version of this package (schema "
            f"{facts.get('schema')}, needed {SCHEMA}), without what new days need: run its "
            "workflow again."
        )
    if facts["loader"] != "market":
        raise DataError(
            f"{where}: its handler has filters or processors of single names, whose features "
            "cannot be computed for one day; leave out filter_pipe and inst_processors."
        )
    if facts["mandate"] is True:
        raise DataError(
            f"{where} was saved when a mandate's constraints were not kept with its run: run its "
            "workflow again."
        )
    excluded = read_exclusions(folder / EXCLUSIONS)
    return SavedRun(run_id, facts, _scorer(folder, facts, where), excluded, _groups(folder, where))


def _groups(folder: Path, where: str) -> tuple[np.ndarray, np.ndarray] | None:
    if not (folder / GROUPS).is_file():
        return None
    try:
        with np.load(folder / GROUPS, allow_pickle=False) as arrays:
            return arrays["start"], arrays["codes"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(
            f"{where}: its groups of names ({GROUPS}) are damaged ({error}); run its workflow "
            "again."
        ) from error


def _scorer(folder: Path, facts: Mapping[str, Any], where: str) -> Any:
    if len(facts["features"]) != len(facts["expressions"]):
        raise DataError(f"{where}: {FACTS} is damaged: its columns and expressions do not match.")
    if (folder / BOOSTER).is_file():
        from lightgbm import Booster

        booster = Booster(model_file=str(folder / BOOSTER))
        if booster.num_feature() != len(facts["features"]):
            raise DataError(
                f"{where}: its trees were trained on {booster.num_feature()} columns, but "
                f"{FACTS} lists {len(facts['features'])}: run its workflow again."
            )
        return booster
    model, features = facts["model"], len(facts["features"])
    heads = {key: model[key] for key in ("risk_head", "learn_kappa") if model.get(key) is not None}
    try:
        members = int(model.get("members", 1))
        networks = [
            build_network(model["predictor"], features, factors=facts.get("factors", 1), **heads)
            for _ in range(members)
        ]
        network = networks[0] if members == 1 else Ensemble(networks)
        network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True, map_location="cpu"))
    except (OSError, RuntimeError, ValueError, UnpicklingError) as error:
        what = " ".join(str(error).split())[:400]
        raise DataError(
            f"{where}: its network does not fit the {len(facts['features'])} columns that it lists "
            f"({what}): the model is stale or damaged; run its workflow again."
        ) from error
    return network.double().eval()
