"""A gated recurrent network over the last days' features."""

from __future__ import annotations

import torch
from torch import nn

from .base import SequencePredictor


class GRU(SequencePredictor):
    """Stacked GRU (Cho et al., 2014); the score is linear in its last state.

    Parameters
    ----------
    features : [features] F of a name and day.
    hidden : [units] width of the state.
    layers : [layers] number of GRUs that are stacked.
    dropout : [share] part of the states dropped between the layers and before the score, in
        training, in [0, 1).

    Examples
    --------
    >>> GRU(3, hidden=8)(torch.zeros(5, 20, 3)).shape
    torch.Size([5])
    """

    def __init__(
        self, features: int, hidden: int = 64, layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__(features, hidden, layers, dropout)
        self.rnn = nn.GRU(
            self.features, self.hidden, self.layers, batch_first=True, dropout=self.between
        )
        self.width = self.hidden
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.hidden, 1))

    def represent(self, features: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(features)
        return states[:, -1]
