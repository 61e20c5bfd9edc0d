"""What a network is trained on: prediction loss, decision loss, or both, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..config import check_number, from_mapping, lookup
from ..data.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .prediction import mean_squared_error


class LossTerms(NamedTuple):
    """Values for each day, (T,): what is minimised, and its parts.

    ``prediction`` in squared units of the score; ``decision`` is the regret in units of the score
    (the daily regret divided by the problem's scale), None where it was not needed.
    """

    total: Tensor
    prediction: Tensor
    decision: Tensor | None


class Objective(Protocol):
    """A training loss: scores (T, n) and the batch in, :class:`LossTerms` out."""

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms: ...


def decision_loss(scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
    """Regret of the weights that ``scores`` (T, n) lead to, in units of the score, (T,)."""
    weights = problem.solve(scores.double(), batch).w
    return problem.regret(weights, batch) / problem.scale


@dataclass(frozen=True)
class MeanSquaredError:
    """Two-stage learning: E‖y − ŷ‖², blind to the decision."""

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        prediction = mean_squared_error(scores, batch.label, batch.known)
        return LossTerms(prediction, prediction, None)


@dataclass(frozen=True)
class SquaredRegret:
    """β · regret² + E‖y − ŷ‖², the loss of arXiv:2411.19285 (β = 0.1)."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_number(self.beta, "beta", low=0)

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        prediction = mean_squared_error(scores, batch.label, batch.known)
        regret = decision_loss(scores, batch, problem)
        return LossTerms(self.beta * regret.square() + prediction, prediction, regret)


@dataclass(frozen=True)
class Regret:
    """Regret, plus a prediction term of weight ``prediction_weight`` (none by default)."""

    prediction_weight: float = 0.0

    def __post_init__(self) -> None:
        check_number(self.prediction_weight, "prediction_weight", low=0)

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        prediction = mean_squared_error(scores, batch.label, batch.known)
        regret = decision_loss(scores, batch, problem)
        return LossTerms(regret + self.prediction_weight * prediction, prediction, regret)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "mse": MeanSquaredError,
    "squared_regret": SquaredRegret,
    "regret": Regret,
}


def build_objective(name: str, options: Mapping[str, Any] | None = None) -> Objective:
    """The training loss ``name`` with ``options``; a :class:`ConfigError` names the nearest."""
    return from_mapping(lookup(OBJECTIVES, name, "loss"), options or {}, f"loss {name!r}")  # type: ignore[arg-type]
