"""Several networks of one kind that score as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..errors import ConfigError
from .base import Predictor, PredictorOutput


class Ensemble(Predictor):
    """The mean of the members' scores at equal spread: s̄ Σᵢ (sᵢ / σᵢ) / K.

    σᵢ is the spread of member i's scores (``spread``, K), such as the mean of their cross-sectional
    standard deviations over the training days, and s̄ = Σᵢ σᵢ / K keeps the unit of a score. Without
    it a network with scores far apart would dominate the others. What they predict of risk and κ is
    averaged in logs.

    Parameters
    ----------
    members : predictors of the same features and window.
    spread : σ > 0 of each; by default all are alike.

    Raises
    ------
    ConfigError
        No members, members that do not match, or a spread that is not positive.
    """

    window = 1

    def __init__(self, members: Sequence[Predictor], spread: torch.Tensor | None = None) -> None:
        if not members:
            raise ConfigError("an ensemble needs members.")
        first = members[0]
        if any((m.features, m.window) != (first.features, first.window) for m in members):
            raise ConfigError("the members of an ensemble must have the same features and window.")
        super().__init__(first.features)
        self.members = nn.ModuleList(members)
        sigma = torch.ones(len(members)) if spread is None else spread
        if sigma.shape != (len(members),) or not bool((sigma > 0).all() & sigma.isfinite().all()):
            raise ConfigError(
                f"an ensemble's spread must be {len(members)} positive numbers, got "
                f"{sigma.tolist()}: a member whose scores do not vary has learned nothing."
            )
        self.spread: torch.Tensor
        self.register_buffer("spread", sigma.to(torch.float64))
        self.window = first.window

    def score(self, features: torch.Tensor) -> torch.Tensor:
        return self._mean([member(features) for member in self.members])

    def predictor_output(self, features: torch.Tensor, counts: torch.Tensor) -> PredictorOutput:
        networks = [member for member in self.members if isinstance(member, Predictor)]
        outputs = [member.predictor_output(features, counts) for member in networks]
        first, *rest = zip(*outputs, strict=True)
        return PredictorOutput(self._mean(first), *(_mean_log(values) for values in rest))

    @property
    def log_kappa(self) -> torch.Tensor | None:
        """Mean of what the members add to log κ, () float64; None where none is learned."""
        return _mean_log([getattr(member, "log_kappa", None) for member in self.members])

    def _mean(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        share = self.spread.mean() / self.spread / len(self.members)
        return torch.stack([share[i].to(own) * own for i, own in enumerate(scores)]).sum(0)


def _mean_log(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    given = [value for value in values if value is not None]
    return torch.stack(given).mean(0) if given else None
