"""What a run saved for the days after it, read back: network, columns, processors and problem."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backtest.mandate_settings import MandateSettings
from ..backtest.rebalance import BookRules
from ..config import load_own_parts
from ..data.quality.exclusions import Exclusions, read_exclusions
from ..errors import ConfigError, DataError
from ..files.digests import verify
from ..markets.rules import BOARDS, MARKET_RULES, QLIB_DAYS_PER_YEAR, MarketRules
from ..portfolio.mandate.config import by_name
from ..portfolio.problem import PortfolioProblem
from ..predictors import Ensemble, Predictor, PredictorOutput, build_network
from ..risk.config import RiskConfig

logger = logging.getLogger(__name__)

SCHEMA = 5
EARLIER = (2, 3, 4)
"""Schemas that are read too: of 4, market rules had no currency; of 3, a record stated costs,
account and lots, and the problem its own limits, besides; of 2, files had no digests either."""
UNSEALED, BY_RECORDS = 2, (2, 3)
FACTS, WEIGHTS, EXCLUSIONS = "model.json", "state_dict.pt", "exclusions.csv"
BOOSTER = "lightgbm.txt"
GROUPS = "groups.npz"
ARTIFACTS = "bpqp/model"
"""Folder among a run's artifacts in which :mod:`bpqp_portfolio.qlib_ext.save_run` writes."""
PARTS = "bpqp.own_parts"
"""Tag of a run that lists the classes of its user's own; see :func:`load_run`."""
REMEDY = "restore the run's artifacts from a copy, or run its workflow again."


@dataclass(frozen=True)
class RunArtifact:
    """A run as :mod:`bpqp_portfolio.qlib_ext.save_run` left it.

    ``facts`` of its settings, its ``scorer``, and the moves that were ``excluded``.

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
    def market_rules(self) -> MarketRules:
        """Days a year, lot, price limits and currency of the run's market."""
        return MarketRules(**self.facts["market_rules"])

    @property
    def days_per_year(self) -> float:
        """Trading days that annual figures count."""
        return self.market_rules.days_per_year

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
        """Lots, costs and invested part of the run's backtest.

        Raises
        ------
        ConfigError
            The run was not backtested.
        """
        if self._settings.account is None or self._settings.costs is None:
            raise ConfigError(
                f"run {self.run_id!r} was not backtested, so it states no costs and no account to "
                "size trades by: leave out holdings and cash to get weights alone."
            )
        rules = self._settings.book_rules(self.market_rules)
        by_mandate = self.facts["by_mandate"]
        return replace(rules, pin_limits=self.pin_limits, from_holdings=by_mandate)

    @property
    def mandate(self) -> MandateSettings | None:
        """The mandate that the run was backtested under; None where it traded the weights of the
        training problem."""
        return self._settings if self.facts["by_mandate"] else None

    @property
    def pin_limits(self) -> bool:
        """Are names that closed at a price limit kept from trading against it?"""
        return self.facts["by_mandate"] and self._settings.pin_limits

    @property
    def _settings(self) -> MandateSettings:
        # A run whose workflow did not state it, as it may not now, was solved with γ = 1.
        block = {"risk_aversion": 1.0, **self.facts["mandate"]}
        return MandateSettings.from_config(block, self.days_per_year)

    @torch.no_grad()
    def predictor_output(self, features: np.ndarray) -> PredictorOutput:
        """What the model says in float64 of one day's names, with ``features`` (n, L, F) float32.

        Its κ is in :attr:`problem` already.
        """
        if isinstance(self.scorer, Predictor):
            rows = torch.from_numpy(features).double()
            return self.scorer.predictor_output(rows, torch.tensor([len(rows)]))
        scores = np.asarray(self.scorer.predict(features[:, -1]), dtype=np.float64)
        return PredictorOutput(torch.from_numpy(scores))


def load_run(folder: Path, run_id: str, parts: str | None = None) -> RunArtifact:
    """Read what :mod:`bpqp_portfolio.qlib_ext.save_run` wrote, after its digests were checked.

    The network is read as tensors alone (``weights_only``); nothing is unpickled. A run made before
    runs had digests is read with a warning that it cannot be verified.

    A class of the user's own is imported only where ``parts`` lists it, the run's tag
    :data:`PARTS`: class, module and the digest of its file, which the workflow itself wrote into
    the tracking database. The files in ``folder`` can be put there by whoever can write artifacts,
    and choose nothing: a class that they name besides is refused before its module is imported, as
    is a file whose content is not what the workflow ran. Who can write the tracking database can
    list any class that is on this machine already, so open only a database that you trust.

    Raises
    ------
    ConfigError
        A class that is not listed, or whose file is missing or has changed; it is named.
    DataError
        A file is missing, damaged, or of a run of another version; a tensor is not finite.
    """
    folder = Path(folder)
    where = f"run {run_id!r}, artifacts {ARTIFACTS}"
    sealed = verify(folder, where, REMEDY)
    facts = _facts(folder, where)
    load_own_parts(facts, _listed(parts, where), where)
    if not sealed and facts["schema"] != UNSEALED:
        raise DataError(f"{where}: digests.json is missing; {REMEDY}")
    if not sealed:
        logger.warning(
            "%s has no digests: it was made by an earlier version and cannot be verified; run its "
            "workflow again to have them",
            where,
        )
    with _reading(where, EXCLUSIONS):
        excluded = read_exclusions(folder / EXCLUSIONS)
    run = RunArtifact(
        run_id, facts, _scorer(folder, facts, where), excluded, _groups(folder, where)
    )
    with _reading(where, FACTS):
        _ = run.days[0], run.risk, run.problem, run.mandate, run._settings.account and run.rules
        _ = facts["data"]["folder"], facts["data"]["names"][0], facts["market"]
        _ = facts["segments"]["valid"][1], facts["exclusions"], list(facts["processors"])
    return run


def _listed(parts: str | None, where: str) -> list[dict[str, str]]:
    with _reading(where, f"the run's tag {PARTS}"):
        listed = json.loads(parts or "[]")
        return [{k: one[k] for k in ("class", "module_path", "sha256")} for one in listed]


@contextlib.contextmanager
def _reading(where: str, file: str) -> Iterator[None]:
    """Say which file of which run is damaged, whatever its reader makes of it."""
    try:
        yield
    except Exception as error:  # readers of torch, numpy, JSON raise anything on damaged bytes
        what = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise DataError(f"{where}: {file} is damaged ({what}); {REMEDY}") from error


def _facts(folder: Path, where: str) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{where}: cannot read its saved model, {FACTS} ({error}); {REMEDY}"
        ) from error
    schema = facts.get("schema") if isinstance(facts, dict) else None
    if schema not in (SCHEMA, *EARLIER):
        raise DataError(
            f"{where}: {FACTS} was saved by another version of this package (schema {schema}, "
            f"needed {SCHEMA}), without what new days need: run its workflow again."
        )
    with _reading(where, FACTS):
        loader, mandate = facts["loader"], facts["mandate"]
    if loader == "handler":
        raise DataError(
            f"{where}: features of its handler {facts.get('handler')} cannot be computed for one "
            "day; take CachedAlpha158, or a subclass of it with your own get_feature_config."
        )
    if loader != "market":
        raise DataError(
            f"{where}: its handler has filters or processors of single names, whose features "
            "cannot be computed for one day; leave out filter_pipe and inst_processors."
        )
    if mandate is True:
        raise DataError(
            f"{where} was saved when a mandate's constraints were not kept with its run: run its "
            "workflow again."
        )
    if schema in EARLIER:
        with _reading(where, FACTS):
            if schema in BY_RECORDS:
                facts, currency = _stated_by_records(facts), None
            else:
                currency = _currency(facts["market_rules"])
            facts["market_rules"] = {**facts["market_rules"], "currency": currency}
    return facts


def _currency(rules: Mapping[str, Any]) -> str | None:
    """The currency of the region that has these other rules, None where none has."""
    same = (m for m in MARKET_RULES.values() if {**asdict(m), **rules} == asdict(m))
    return next((m.currency for m in same), None)


def _stated_by_records(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run of schema 2 or 3, each in the place where they are stated now."""
    backtest, problem = facts.pop("backtest"), dict(facts["problem"])
    year = facts.pop("days_per_year", QLIB_DAYS_PER_YEAR)
    problem.pop("turnover_cost", None)  # of the training; a single day trades nothing before it
    limits = {"max_weights": problem["max_weight"]}
    mandate = {"risk_aversion": problem["risk_aversion"], "constraints": limits}
    given = facts["mandate"]
    block = dict(given or mandate)
    year = block.pop("days_per_year", year)
    if backtest:
        keys = {"buy": "open_cost", "sell": "close_cost", "minimum": "min_cost"}
        own = {*keys, "linear_cost"}  # whose rates are those of the backtest
        block = {key: value for key, value in block.items() if key not in own}
        others = {k: v for k, v in by_name(block.get("costs"), "costs").items() if k not in own}
        block["costs"] = {**others, **{key: backtest[old] for key, old in keys.items()}}
        block["account"] = {
            "value": backtest.get("account", 1e8), "risk_degree": backtest["risk_degree"]
        }  # fmt: skip
    boards = BOARDS if backtest.get("board_limits", True) else None
    rules = {"days_per_year": year, "lot": backtest.get("trade_unit"), "price_limits": boards}
    return {
        **facts,
        "problem": problem,
        "market_rules": rules,
        "mandate": block,
        "by_mandate": given is not None,
    }


def _groups(folder: Path, where: str) -> tuple[np.ndarray, np.ndarray] | None:
    if not (folder / GROUPS).is_file():
        return None
    with _reading(where, GROUPS), np.load(folder / GROUPS, allow_pickle=False) as arrays:
        return arrays["start"], arrays["codes"]


def _scorer(folder: Path, facts: Mapping[str, Any], where: str) -> Any:
    with _reading(where, FACTS):
        count, expressions = len(facts["features"]), len(facts["expressions"])
    if count != expressions:
        raise DataError(
            f"{where}: {FACTS} is damaged, its columns and expressions do not match; {REMEDY}"
        )
    if (folder / BOOSTER).is_file():
        from lightgbm import Booster

        with _reading(where, BOOSTER):
            booster = Booster(model_file=str(folder / BOOSTER))
        if booster.num_feature() != count:
            raise DataError(
                f"{where}: the trees of {BOOSTER} were trained on {booster.num_feature()} columns, "
                f"but {FACTS} lists {count}: run its workflow again."
            )
        return booster
    with _reading(where, FACTS):
        model = facts["model"]
        heads = {k: model[k] for k in ("risk_head", "learn_kappa") if model.get(k) is not None}
        members, factors = int(model.get("members", 1)), facts.get("factors", 1)
        networks = [
            build_network(model["predictor"], count, factors=factors, **heads)
            for _ in range(members)
        ]
        network = networks[0] if members == 1 else Ensemble(networks)
    with _reading(where, WEIGHTS):
        state = torch.load(folder / WEIGHTS, weights_only=True, map_location="cpu")
        state = {str(name): torch.as_tensor(value) for name, value in state.items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise DataError(
                f"{where}: {name} in {WEIGHTS} has a value that is not finite; {REMEDY}"
            )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:400]
        raise DataError(
            f"{where}: its network ({WEIGHTS}) does not fit the {count} columns that it lists "
            f"({what}): the model is stale or damaged; {REMEDY}"
        ) from error
    return network.double().eval()
