"""Two-stage learning on the information coefficient: the order and spread of scores alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .prediction import information_coefficient
from .terms import LossTerms, score_error


@dataclass(frozen=True)
class InformationCoefficient:
    """1 − the day's Pearson correlation of scores and labels, in [0, 2].

    Level and scale of the scores are left open, so a portfolio needs a problem that standardises
    them. A day whose scores or labels do not vary counts 1 and has no gradient; one with a score
    or label that is not finite is NaN.
    """

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        ic = information_coefficient(scores, batch.label, batch.known)
        error = score_error(scores, batch)
        loss = 1 - torch.nan_to_num(ic, nan=0.0)
        return LossTerms(torch.where(error.isfinite(), loss, torch.nan), error, None)
