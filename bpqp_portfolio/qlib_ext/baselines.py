"""Qlib models that learn nothing: what a trained one has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qlib.model.base import Model

from ..config import check_keys, check_number
from .dataset import PortfolioDataset


class ConstantScores(Model):
    """The same score for every name and day, for decisions that need none."""

    def __init__(self, **unknown: Any) -> None:
        check_keys(unknown, (), "model")

    def fit(self, dataset: PortfolioDataset, reweighter: Any = None) -> None:
        """There is nothing to learn."""

    def predict(self, dataset: PortfolioDataset, segment: str = "test") -> pd.Series:
        """Zeros, indexed by (datetime, instrument)."""
        index = dataset.prepared_panel().index(dataset.days(segment))
        return pd.Series(0.0, index=index, name="score")


class RandomScores(ConstantScores):
    """Independent standard normal scores, a new draw for each name and day.

    Parameters
    ----------
    seed : [no unit] seed of the draws.
    """

    def __init__(self, seed: int = 0, **unknown: Any) -> None:
        check_keys(unknown, ("seed",), "model")
        check_number(seed, "model.seed", low=0, integer=True)
        self.seed = int(seed)

    def predict(self, dataset: PortfolioDataset, segment: str = "test") -> pd.Series:
        """Scores of ``segment``, indexed by (datetime, instrument)."""
        index = super().predict(dataset, segment).index
        draws = np.random.default_rng([self.seed, *segment.encode()]).standard_normal(len(index))
        return pd.Series(draws, index=index, name="score")
