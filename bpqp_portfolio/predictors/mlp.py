"""A multilayer perceptron on the features of the day."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..config import check_number, lookup
from ..errors import ConfigError, DataError
from .base import Predictor, check_probability

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(Predictor):
    """Hidden layers of linear map, batch norm, activation and dropout; a linear score.

    Parameters
    ----------
    features : [features] F of a name and day.
    hidden : [units] width of each hidden layer; empty for a linear score.
    dropout : [share] part of the hidden units dropped in training, in [0, 1).
    batch_norm : normalise each hidden unit over the rows of the batch.
    activation : between the linear maps, a name of ``ACTIVATIONS``.

    Raises
    ------
    ConfigError
        A setting outside its range, at construction.
    DataError
        From ``forward`` in training, with batch norm and fewer than two rows.
    """

    window = 1

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        batch_norm: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__(features)
        if isinstance(hidden, str) or not isinstance(hidden, Sequence):
            raise ConfigError(f"hidden: expected a list of widths, got {hidden!r}.")
        for width in hidden:
            check_number(width, "hidden", low=1, integer=True)
        check_probability(dropout, "dropout")
        if not isinstance(batch_norm, bool):
            raise ConfigError(f"batch_norm: expected true or false, got {batch_norm!r}.")
        act = lookup(ACTIVATIONS, activation, "activation")
        self.batch_norm = batch_norm and len(hidden) > 0
        layers: list[nn.Module] = []
        fan_in = self.features
        for width in map(int, hidden):
            # Batch norm subtracts the mean, and a bias with it.
            layers.append(nn.Linear(fan_in, width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(act())
            if dropout:
                layers.append(nn.Dropout(dropout))
            fan_in = width
        self.width = fan_in
        self.layers = nn.Sequential(*layers, nn.Linear(fan_in, 1))

    def represent(self, features: torch.Tensor) -> torch.Tensor:
        """The last hidden layer (R, H) of the day's own features.

        Raises
        ------
        DataError
            In training, with batch norm and fewer than two rows.
        """
        if self.training and self.batch_norm and len(features) < 2:
            raise DataError(
                f"MLP: batch norm cannot train on a batch of {len(features)} row(s); give it more "
                "rows, set `batch_norm` to false, or call eval() to predict."
            )
        return self.layers[:-1](features[:, -1])

    def readout(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.layers[-1](hidden).squeeze(-1)
