"""What a model decides with besides its scores: its κ, and the risk that it learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..errors import ConfigError
from ..portfolio.problem import PortfolioProblem


@dataclass(frozen=True, eq=False)
class LearnedRisk:
    """What decides on the days of a segment.

    ``problem`` has the model's κ. ``log_specific`` by (datetime, instrument) and ``log_factors`` by
    day, a column for each factor, are added to the logs of specific variances and of factor scales;
    None where the risk is the statistical one.
    """

    problem: PortfolioProblem
    log_specific: pd.Series | None = None
    log_factors: pd.DataFrame | None = None

    def figures(self, given: PortfolioProblem) -> dict[str, float]:
        """How far they are from ``given`` and its risk: κ, and the mean sizes of the logs."""
        changed = self.problem is not given
        out = {"learned.kappa": float(self.problem.unit)} if changed else {}
        for name, table in self.tables().items():
            out[f"learned.{name.removeprefix('log_')}"] = float(np.abs(table.to_numpy()).mean())
        return out

    def tables(self) -> dict[str, pd.Series | pd.DataFrame]:
        """The tables of what was learned, by name."""
        given = {"log_specific": self.log_specific, "log_factors": self.log_factors}
        return {name: table for name, table in given.items() if table is not None}


def problem_of(model: Any, dataset: Any) -> PortfolioProblem:
    """The dataset's problem with the κ of ``model``, where that learned one."""
    return model.problem(dataset) if hasattr(model, "learned_risk") else dataset.problem


def learned_risk_of(
    model: Any, dataset: Any, segment: str = "test", recorder: Any = None
) -> LearnedRisk:
    """What ``model`` decides with on ``segment``; the dataset's problem where it learned no risk.

    Raises
    ------
    ConfigError
        There is no model, though the task of ``recorder`` has one that learned its risk or κ.
    """
    if hasattr(model, "learned_risk"):
        return model.learned_risk(dataset, segment)
    if model is None and recorder is not None and "task" in recorder.list_artifacts():
        given = (recorder.load_object("task").get("model") or {}).get("kwargs") or {}
        if given.get("risk_head") is not None or given.get("learn_kappa"):
            raise ConfigError(
                "a record got scores without the model that made them, which learned its risk or "
                "kappa besides: give the record `model: <MODEL>`."
            )
    return LearnedRisk(dataset.problem)


def with_learned_risk(
    loadings: np.ndarray,
    specific: np.ndarray,
    log_specific: np.ndarray | None,
    log_factors: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """B (N, k) and d (N,) of a day with what is added to their logs, (N,) and (k,).

    A name without an adjustment (NaN), such as a suspended one, keeps its specific variance; the
    scales are those of the day's factors, and so of all its names.
    """
    if log_factors is not None:
        loadings = loadings * np.exp(log_factors)
    if log_specific is not None:
        specific = specific * np.exp(np.nan_to_num(log_specific))
    return loadings, specific
