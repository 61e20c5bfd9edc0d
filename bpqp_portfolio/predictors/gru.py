"""A gated recurrent network over the last days' features."""

from __future__ import annotations

import torch
from torch import nn

from ..config import check_number
from .base import Predictor, check_probability


class GRU(Predictor):
    """Stacked GRU (Cho et al., 2014); the score is linear in its last state.

    Parameters
    ----------
    features : F.
    hidden : width of the state.
    layers : how many GRUs are stacked.
    dropout : share of the states dropped between the layers and before the score, in training.

    Raises
    ------
    ConfigError
        A setting outside its range, at construction.
    """

    window = 20

    def __init__(
        self, features: int, hidden: int = 64, layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__(features)
        check_number(hidden, "hidden", low=1, integer=True)
        check_number(layers, "layers", low=1, integer=True)
        check_probability(dropout, "dropout")
        between = dropout if layers > 1 else 0.0
        self.rnn = nn.GRU(
            self.features, int(hidden), int(layers), batch_first=True, dropout=between
        )
        self.width = int(hidden)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(int(hidden), 1))

    def represent(self, features: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(features)
        return states[:, -1]
