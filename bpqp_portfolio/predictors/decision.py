"""A predictor that learns more of the decision than its scores: risk, and the signal's scale κ.

The decision is made with Σ' = B diag(s)² Bᵀ + diag(d eᵃ) in place of the statistical covariance
Σ = B Bᵀ + diag(d): a of each name and log s of each factor are the network's, bounded, and zero
before training, so that learning begins at the statistical model. Both factors of Σ' are positive
for any output of the network, so Σ' is positive definite where d > 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..config import check_number
from ..errors import ConfigError
from .base import Predictor, PredictorOutput

# A step of Adam moves any parameter by about the learning rate, and κ may be wrong by a factor of
# ten: log κ is its parameter times this, or it would need thousands of steps more than the weights.
KAPPA_SPEED = 10.0


@dataclass(frozen=True)
class RiskHeadConfig:
    """What the network may change of a day's covariance.

    Parameters
    ----------
    specific : the variance of each name, from the name's representation.
    factors : the scale of each factor, from the mean of the day's representations.
    limit : [no unit] largest change of the log of either: at 1 a variance or a scale is at most e
        times that of the statistical model, and at least 1/e of it.

    Raises
    ------
    ConfigError
        A setting outside its range, or nothing that may change.
    """

    specific: bool = True
    factors: bool = True
    limit: float = 1.0

    def __post_init__(self) -> None:
        for name in ("specific", "factors"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}: expected true or false, got {getattr(self, name)!r}.")
        if not (self.specific or self.factors):
            raise ConfigError("specific: or factors must be true; leave the block out otherwise.")
        check_number(self.limit, "limit", low=0, open_low=True)


class DecisionNetwork(Predictor):
    """``predictor`` with a head for the risk, a learned κ, or both.

    Parameters
    ----------
    predictor : gives the scores, and the representation that the heads read.
    risk : :class:`RiskHeadConfig`, None for the statistical covariance.
    factors : k of the risk model.
    learn_kappa : whether κ, the daily return that a normalised score of 1 stands for, is a
        parameter: κ times e to the power of it.
    """

    def __init__(
        self,
        predictor: Predictor,
        risk: RiskHeadConfig | None = None,
        factors: int = 0,
        learn_kappa: bool = False,
    ) -> None:
        super().__init__(predictor.features)
        self.predictor = predictor
        self.window, self.width = predictor.window, predictor.width
        self.limit = 0.0 if risk is None else float(risk.limit)
        self.specific = _zero(self.width, 1) if risk is not None and risk.specific else None
        self.factors = _zero(self.width, factors) if risk is not None and risk.factors else None
        self.kappa = nn.Parameter(torch.zeros(())) if learn_kappa else None

    def represent(self, features: torch.Tensor) -> torch.Tensor:
        return self.predictor.represent(features)

    def readout(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.predictor.readout(hidden)

    def predictor_output(self, features: torch.Tensor, counts: torch.Tensor) -> PredictorOutput:
        """As :meth:`Predictor.predictor_output`, with what is learned of the risk and of κ.

        The order of a day's names does not matter, nor do the other days in evaluation mode.
        """
        hidden = self.represent(self.checked(features))
        specific = factors = None
        if self.specific is not None:
            specific = self._bounded(self.specific(hidden).squeeze(-1))
        if self.factors is not None:
            counts = counts.to(hidden.device)
            day = torch.arange(len(counts), device=hidden.device).repeat_interleave(counts)
            total = hidden.new_zeros(len(counts), self.width).index_add(0, day, hidden)
            factors = self._bounded(self.factors(total / counts.unsqueeze(-1).clamp_min(1)))
        return PredictorOutput(self.readout(hidden), specific, factors, self.log_kappa)

    @property
    def log_kappa(self) -> torch.Tensor | None:
        """What is added to log κ, () float64; None where κ is not learned."""
        return None if self.kappa is None else KAPPA_SPEED * self.kappa.double()

    def _bounded(self, raw: torch.Tensor) -> torch.Tensor:
        """Values in [−limit, limit], with slope 1 at zero."""
        return self.limit * torch.tanh(raw / self.limit)


def _zero(width: int, outputs: int) -> nn.Linear:
    """A linear map that is zero until it is trained."""
    layer = nn.Linear(width, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
