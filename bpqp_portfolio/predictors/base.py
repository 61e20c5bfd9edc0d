"""The signature that every predictor keeps to."""

from __future__ import annotations

from typing import ClassVar

import torch

from ..config import check_number
from ..errors import ConfigError, DataError


class Predictor(torch.nn.Module):
    """Scores (R,) from features (R, L, F): R name-days, each with L days of F features.

    The last of the L days is the day of the score. Rows are independent of one another, except
    through batch norm in training. Input and parameters share dtype and device.

    Attributes
    ----------
    window : the history L that the class is meant for, 1 where only the day itself counts.
    features : F.
    """

    window: ClassVar[int]

    def __init__(self, features: int) -> None:
        super().__init__()
        check_number(features, "features", low=1, integer=True)
        self.features = int(features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scores (R,) of ``features`` (R, L, F).

        Raises
        ------
        DataError
            The features have another shape.
        """
        if features.ndim != 3 or features.shape[1] < 1 or features.shape[2] != self.features:
            raise DataError(
                f"{type(self).__name__}: features must be (R, L, {self.features}) with L >= 1, "
                f"got {tuple(features.shape)}."
            )
        return self.score(features)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """What a predictor implements: :meth:`forward` on features of the right shape."""
        raise NotImplementedError


def check_probability(value: float, name: str) -> None:
    """Raise ConfigError unless ``value`` is in [0, 1)."""
    check_number(value, name, low=0, high=1)
    if value == 1:
        raise ConfigError(f"{name}: must be below 1, got {value!r}.")
