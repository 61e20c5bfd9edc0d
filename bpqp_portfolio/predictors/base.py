"""The protocol of a predictor: features in, scores and what is learned of the decision out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from ..config import check_number
from ..errors import ConfigError, DataError


class PredictorOutput(NamedTuple):
    """What a network predicts for T days with R rows in all.

    ``scores`` (R,); ``log_specific`` (R,) and ``log_factors`` (T, k) are added to the log of
    specific variances and of factor scales, ``log_kappa`` () to that of κ; None where that is not
    learned.
    """

    scores: torch.Tensor
    log_specific: torch.Tensor | None = None
    log_factors: torch.Tensor | None = None
    log_kappa: torch.Tensor | None = None


class Predictor(torch.nn.Module):
    """Scores (R,) from features (R, L, F): R name-days, each with L days of F features.

    The last of the L days is the day of the score. Rows are independent of one another, except
    through batch norm in training. Input and parameters share dtype and device. A score is read
    from a representation of its row, which other heads may read too.

    Attributes
    ----------
    window : the history L that the class is meant for, 1 where only the day itself counts.
    features : F.
    width : H of the representation (R, H).
    """

    window: int
    width: int
    head: nn.Module

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
        return self.score(self.checked(features))

    def predictor_output(self, features: torch.Tensor, counts: torch.Tensor) -> PredictorOutput:
        """Predictions for days with ``counts`` (T,) of the rows ``features`` (R, L, F)."""
        return PredictorOutput(self(features))

    def checked(self, features: torch.Tensor) -> torch.Tensor:
        """``features`` (R, L, F), where their shape is right.

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
        return features

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """:meth:`forward` on features of the right shape."""
        return self.readout(self.represent(features))

    def represent(self, features: torch.Tensor) -> torch.Tensor:
        """What a predictor implements: its representation (R, H) of features of the right shape."""
        raise NotImplementedError

    def readout(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores (R,) of the representation ``hidden`` (R, H)."""
        return self.head(hidden).squeeze(-1)


class SequencePredictor(Predictor):
    """A predictor that reads the last days in order; what its classes share.

    ``hidden`` and ``layers`` as whole numbers; ``between`` share dropped between layers, none where
    there is one layer only.

    Raises
    ------
    ConfigError
        A setting outside its range, at construction.
    """

    window = 20

    def __init__(
        self, features: int, hidden: int, layers: int, dropout: float, *, narrowest: int = 1
    ) -> None:
        super().__init__(features)
        check_number(hidden, "hidden", low=narrowest, integer=True)
        check_number(layers, "layers", low=1, integer=True)
        check_probability(dropout, "dropout")
        self.hidden, self.layers = int(hidden), int(layers)
        self.between = dropout if self.layers > 1 else 0.0


def check_probability(value: float, name: str) -> None:
    """Check that ``value`` is in [0, 1).

    Raises
    ------
    ConfigError
        It is not; the message begins with ``name``.
    """
    check_number(value, name, low=0, high=1)
    if value == 1:
        raise ConfigError(f"{name}: must be below 1, got {value!r}.")
