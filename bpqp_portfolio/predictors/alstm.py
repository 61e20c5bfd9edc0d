"""An LSTM over the last days' features with attention over the days."""

from __future__ import annotations

import torch
from torch import nn

from .base import SequencePredictor


class ALSTM(SequencePredictor):
    r"""Attentive LSTM: the score sees the last state and an attention-weighted mean of all states.

    With the inputs embedded, :math:`e_s = \tanh(W_e x_s + b_e)`, and :math:`h_s` the LSTM's states,

    .. math:: a_s = \mathrm{softmax}_s\, u^\top \tanh(W h_s + b), \qquad
              \text{score} = v^\top [h_L,\ \sum_s a_s h_s] + c

    After the temporal attention of Qin et al. (2017), "A dual-stage attention-based recurrent
    neural network for time series prediction", in the form of Feng et al. (2019), "Enhancing stock
    movement prediction with adversarial training".

    Parameters
    ----------
    features : [features] F of a name and day.
    hidden : [units] width of the embedding and of the state; the attention has half of it.
    layers : [layers] number of LSTMs that are stacked.
    dropout : [share] part dropped between the layers and before the score, in training, in [0, 1).
    """

    def __init__(
        self, features: int, hidden: int = 64, layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__(features, hidden, layers, dropout, narrowest=2)
        hidden = self.hidden
        self.embed = nn.Sequential(nn.Linear(self.features, hidden), nn.Tanh())
        self.rnn = nn.LSTM(hidden, hidden, self.layers, batch_first=True, dropout=self.between)
        self.attention = nn.Sequential(
            nn.Linear(hidden, hidden // 2), nn.Tanh(), nn.Linear(hidden // 2, 1, bias=False)
        )
        self.width = 2 * hidden
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * hidden, 1))

    def represent(self, features: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(self.embed(features))
        weights = torch.softmax(self.attention(states), dim=1)
        context = (weights * states).sum(dim=1)
        return torch.cat([states[:, -1], context], dim=-1)
