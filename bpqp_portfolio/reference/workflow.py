"""The tree of a workflow's blocks and of a comparison's: where each stands and what reads it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..backtest.account_rules import AccountRules
from ..backtest.mandate_settings import LEARNING, OWN, MandateSettings
from ..config import ClassSpec, keys_of
from ..errors import ConfigError
from ..experiments.common_facts import FACTS
from ..experiments.plan import Comparison, Method
from ..files.workflow import QlibInit, Segments, Task, Workflow
from ..losses.net_sharpe import BENCHMARKS
from ..losses.registry import LOSSES
from ..losses.terms import RISKS
from ..markets.rules import MARKET_RULES, MarketRules
from ..portfolio.costs import TradingCosts
from ..portfolio.mandate.config import SETTINGS, YEAR
from ..portfolio.mandate.fallbacks import FALLBACKS, Relaxation
from ..portfolio.mandate.mandate import Mandate
from ..portfolio.mandate.objective import OBJECTIVES
from ..portfolio.mandate.terms import CONSTRAINTS, COSTS, Term
from ..portfolio.policies import POLICIES
from ..portfolio.problem import ProblemConfig
from ..portfolio.scores import NORMALISATIONS
from ..predictors.decision import RiskHeadConfig
from ..predictors.mlp import ACTIVATIONS
from ..predictors.registry import PREDICTORS
from ..qlib_ext.baselines import ConstantScores, RandomScores
from ..qlib_ext.components import RECORDS
from ..qlib_ext.dataset import FILLED, PortfolioDataset
from ..qlib_ext.handlers import PASSED_ON, CachedAlpha158
from ..qlib_ext.model import ModelConfig, Pretraining
from ..qlib_ext.segments import SEGMENTS
from ..qlib_ext.tracking import TrackingManager
from ..risk.clusters import ClusterConfig
from ..risk.config import RiskConfig
from ..risk.registry import RISK_MODELS
from ..training.trainer import MONITORS, TrainerConfig
from .keys import REQUIRED, Block, Key, accepted, block

DATASET, MODEL, RECORD = "task.dataset.kwargs", "task.model.kwargs", "task.record"
MANDATE = f"{DATASET}.mandate"
SHOWN = 8
"""Places that a message names."""
UNSAID = ("market", "cache_key", *FILLED)
"""Of a handler's constructor what the dataset fills in."""


@dataclass(frozen=True)
class Family:
    """The parts that a key names: the place of the key, what one is called, and the registry.

    ``filled`` are the parameters of a part that do not stand in a workflow; the days of a year,
    which a mandate has from its market, do not either.
    """

    place: str
    title: str
    parts: Mapping[str, Any]
    filled: tuple[str, ...] = ()


FAMILIES = (
    Family(f"{DATASET}.risk.model", "risk model", RISK_MODELS, ("factors",)),
    Family(f"{DATASET}.problem.normalisation", "normalisation", NORMALISATIONS, ("scores", "mask")),
    Family(f"{DATASET}.problem.decision", "policy", POLICIES),
    Family(f"{MANDATE}.constraints", "constraint", CONSTRAINTS),
    Family(f"{MANDATE}.costs", "cost", COSTS),
    Family(f"{MODEL}.predictor", "predictor", PREDICTORS, ("features",)),
    Family(f"{MODEL}.loss", "loss", LOSSES),
)
"""Registries that a workflow names parts of."""
OPTIONS: dict[str, Collection[str]] = {
    "activation": ACTIVATIONS,
    "benchmark": BENCHMARKS,
    "risk": RISKS,
}
"""Names that an option of such a part takes."""


def workflow() -> Iterator[Block]:
    """Every block of a workflow, from the top down."""
    yield block("", Workflow)
    yield block("qlib_init", QlibInit, choices={"region": MARKET_RULES})
    yield block("qlib_init.exp_manager.kwargs", TrackingManager)
    yield block("task", Task)
    yield block("task.dataset", ClassSpec)
    yield from _dataset()
    yield block("task.model", ClassSpec)
    yield from _model()
    yield from _records()
    yield block("own_part", ClassSpec)


def comparison() -> Iterator[Block]:
    """The blocks of a comparison's file."""
    yield block("comparison", Comparison, choices={"compare": FACTS})
    yield block("comparison.methods.NAME", Method)


@cache
def blocks() -> dict[str, Block]:
    """Every block of :func:`workflow` and :func:`comparison` by its place."""
    return {one.place: one for one in (*workflow(), *comparison())}


def find(place: str) -> Block | Key:
    """The block or the key at ``place``, such as ``task.model.kwargs.trainer.epochs``.

    The end of a place is enough where one alone ends so.

    Raises
    ------
    ConfigError
        There is none, the nearest is named; or there are several, which are.

    Examples
    --------
    >>> find("trainer.epochs").default
    '30'
    """
    found: dict[str, Block | Key] = dict(blocks())
    for one in tuple(found.values()):
        assert isinstance(one, Block)
        for key in one.keys:
            found.setdefault(f"{one.place}.{key.name}".lstrip("."), key)
    if place in found:
        return found[place]
    ends = [name for name in found if f".{name}".endswith(f".{place}")]
    if len(ends) == 1:
        return found[ends[0]]
    if ends:
        some = ", ".join(ends[:SHOWN]) + (", …" if len(ends) > SHOWN else "")
        raise ConfigError(f"{place!r} is the end of {len(ends)} places: {some}; write more of one.")
    length = place.count(".") + 1
    tails = {".".join(name.split(".")[-length:]) for name in found}
    close = difflib.get_close_matches(place, sorted(tails), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "`bpqp keys` lists the blocks."
    raise ConfigError(f"there is no block or key {place!r}. {hint}")


def _dataset() -> Iterator[Block]:
    usual = {name: {"default": "{}"} for name in ("risk", "problem", "market_rules")}
    usual["handler"] = {"default": "CachedAlpha158"}
    yield block(DATASET, PortfolioDataset, instead=usual)
    dates = {"type": "list of two dates, YYYY-MM-DD"}
    yield block(f"{DATASET}.segments", Segments, instead=dict.fromkeys(SEGMENTS, dates))
    yield block(f"{DATASET}.handler", ClassSpec)
    passed_on = [name for name in PASSED_ON if name not in FILLED]
    place = f"{DATASET}.handler.kwargs"
    untyped = {"type": "list of mappings or null"}
    yield block(
        place,
        CachedAlpha158,
        without=UNSAID,
        passed_on=passed_on,
        instead={
            "filter_pipe": untyped,
            "inst_processors": untyped,
            "shared_processors": {"type": "list of mappings"},
        },
    )
    yield block(f"{DATASET}.risk", RiskConfig, choices={"model": RISK_MODELS})
    yield from _parts(f"{DATASET}.risk.model")
    choices = {"normalisation": NORMALISATIONS, "decision": POLICIES}
    yield block(f"{DATASET}.problem", ProblemConfig, only=LEARNING, choices=choices)
    yield from _parts(f"{DATASET}.problem.normalisation")
    yield from _parts(f"{DATASET}.problem.decision")
    yield from _mandate()
    region = {"default": "the region's"}
    yield block(
        f"{DATASET}.market_rules", MarketRules, instead=dict.fromkeys(keys_of(MarketRules), region)
    )


def _mandate() -> Iterator[Block]:
    choices = {"objective": OBJECTIVES, "on_failure": FALLBACKS}
    own = block(MANDATE, MandateSettings, only=OWN, instead={"sectors": {"default": "{}"}})
    by_name = {"type": "mapping or list", "default": "{}"}
    instead = {"risk_aversion": {"default": REQUIRED}, "constraints": by_name, "costs": by_name}
    of = (*SETTINGS, "constraints", "costs")
    both = block(MANDATE, Mandate, only=of, choices=choices, instead=instead)
    yield Block(MANDATE, MandateSettings, (*both.keys, *own.keys), own.text)
    yield from _parts(f"{MANDATE}.constraints")
    yield block(f"{MANDATE}.costs", TradingCosts)
    yield from _parts(f"{MANDATE}.costs")
    yield block(f"{MANDATE}.on_failure", Relaxation)
    yield block(f"{MANDATE}.sectors", ClusterConfig)
    yield block(f"{MANDATE}.account", AccountRules)


def _model() -> Iterator[Block]:
    yield block(MODEL, ModelConfig, choices={"predictor": PREDICTORS, "loss": LOSSES})
    yield from _parts(f"{MODEL}.predictor")
    yield from _parts(f"{MODEL}.loss")
    yield block(f"{MODEL}.trainer", TrainerConfig, choices={"monitor": MONITORS})
    yield block(f"{MODEL}.pretrain", Pretraining, choices={"loss": LOSSES})
    yield block(f"{MODEL}.risk_head", RiskHeadConfig)
    for cls in (RandomScores, ConstantScores):
        yield block(f"task.model.{cls.__name__}.kwargs", cls)


def _records() -> Iterator[Block]:
    """A block for each short name of ``RECORDS``: what may stand beside ``name``, or in kwargs."""
    for name, record in RECORDS.items():
        cls = getattr(importlib.import_module(record["module_path"]), record["class"])
        own = block(f"{RECORD}.{name}", cls, without=("recorder", "dataset", "model"))
        if (settings := getattr(cls, "config_class", None)) is not None:
            more = block(own.place, settings)
            own = Block(own.place, cls, (*more.keys, *own.keys), own.text)
        yield own


def _parts(place: str) -> Iterator[Block]:
    """A block for each part of the family at ``place``, with the part's options."""
    family = next(one for one in FAMILIES if one.place == place)
    for name, source in family.parts.items():
        unit = source.unit if isinstance(source, type) and issubclass(source, Term) else None
        choices = {key: OPTIONS[key] for key in accepted(source) if key in OPTIONS}
        at = f"{place}.{name}"
        without = (*family.filled, YEAR)
        yield block(at, source, without=without, choices=choices, unit=unit)
