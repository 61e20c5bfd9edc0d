"""A transformer encoder over the last days' features."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..config import check_number
from ..errors import ConfigError
from .base import SequencePredictor


class Transformer(SequencePredictor):
    """Encoder of Vaswani et al. (2017), "Attention is all you need", read out at the last day.

    The layer norm comes before each block, as training is then stable without a warm-up (Xiong et
    al., 2020). No mask: all L days are known on the last of them. Positions count back from the
    last day, so that a longer history does not renumber the days.

    Parameters
    ----------
    features : [features] F of a name and day.
    hidden : [units] width of the model, even and a multiple of ``heads``; the feed-forward blocks
        have four times it.
    heads : [heads] number of attention heads.
    layers : [layers] number of encoder layers.
    dropout : [share] part dropped inside the layers in training, in [0, 1).

    Raises
    ------
    ConfigError
        A setting outside its range, or a ``hidden`` that does not go with ``heads``.
    """

    def __init__(
        self, features: int, hidden: int = 64, heads: int = 4, layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__(features, hidden, layers, dropout)
        check_number(heads, "heads", low=1, integer=True)
        self.width = self.hidden
        if self.hidden % 2 or self.hidden % heads:
            raise ConfigError(
                f"hidden: must be even and a multiple of heads ({heads}), got {hidden}."
            )
        self.embed = nn.Linear(self.features, self.hidden)
        layer = nn.TransformerEncoderLayer(
            self.hidden,
            int(heads),
            dim_feedforward=4 * self.hidden,
            dropout=dropout,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, self.layers, norm=nn.LayerNorm(self.hidden), enable_nested_tensor=False
        )
        # The copies that TransformerEncoder makes all start with the same weights.
        for copy in self.encoder.layers[1:]:
            copy.apply(_reset)
        self.head = nn.Linear(self.hidden, 1)

    def represent(self, features: torch.Tensor) -> torch.Tensor:
        embedded = self.embed(features) + positions(features.shape[1], self.hidden, features)
        return self.encoder(embedded)[:, -1]


def positions(length: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Sinusoidal encoding (length, width) of the days before the last, in ``like``'s dtype.

    Vaswani et al. (2017), section 3.5, with sines in the first half of the columns.
    """
    lag = torch.arange(length - 1, -1, -1, dtype=like.dtype, device=like.device)
    rate = torch.arange(width // 2, dtype=like.dtype, device=like.device) * (-2 / width)
    angle = lag[:, None] * torch.exp(math.log(10_000.0) * rate)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _reset(module: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention):
        module._reset_parameters()
    elif isinstance(module, nn.Linear):
        module.reset_parameters()
