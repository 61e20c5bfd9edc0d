"""What a training loss returns, and the prediction term that a decision loss may carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

from ..config import check_number
from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .prediction import mean_squared_error


class LossTerms(NamedTuple):
    """Values for each day, (T,): what is minimised, and two figures that all losses share.

    ``prediction`` is the mean squared error, in squared units of the label; ``decision`` is the
    regret in units of the score (the daily regret divided by the problem's scale), None where the
    loss does not solve the portfolio problem.
    """

    total: Tensor
    prediction: Tensor
    decision: Tensor | None


# What the risk of a decision is judged by: the batch's covariance, or the squares of what came.
RISKS: dict[str, Callable[[PortfolioProblem, Tensor, DayBatch], Tensor]] = {
    "model": PortfolioProblem.value,
    "realised": PortfolioProblem.realised_value,
}

# What of a decision, besides its scores, a loss can have a gradient in.
RISK, KAPPA = "risk", "kappa"


class Loss(Protocol):
    """A training loss: scores (T, n) and the batch in, :class:`LossTerms` out.

    A loss over consecutive days has the smallest number of them as ``least_days``; one that sees
    the decision has in ``learns`` what else it trains in a network: :data:`RISK` where it is
    differentiated through the weights, :data:`KAPPA` where it depends on the forecasts' scale.
    """

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms: ...


def decision_loss(scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
    """Regret of the weights that ``scores`` (T, n) lead to, in units of the score, (T,)."""
    weights = problem.solve(scores, batch).w
    return problem.regret(weights, batch) / problem.scale


def score_error(scores: Tensor, batch: DayBatch) -> Tensor:
    """Mean squared error of the scores against the labels, (T,)."""
    return mean_squared_error(scores, batch.label, batch.known)


@dataclass(frozen=True)
class DecisionLoss:
    """A decision loss, with a prediction term where that is wanted.

    Parameters
    ----------
    prediction_weight : [no unit] weight of the mean squared error of the scores, which is added to
        the loss.
    """

    prediction_weight: float = 0.0
    learns: ClassVar[frozenset[str]] = frozenset({RISK, KAPPA})

    def __post_init__(self) -> None:
        check_number(self.prediction_weight, "prediction_weight", low=0)

    def terms(self, loss: Tensor, regret: Tensor, scores: Tensor, batch: DayBatch) -> LossTerms:
        """The decision's ``loss`` (T,) with the prediction term added."""
        prediction = score_error(scores, batch)
        return LossTerms(loss + self.prediction_weight * prediction, prediction, regret)
