"""Prediction losses and figures, one value for each day."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_squared_error(scores: Tensor, label: Tensor, known: Tensor) -> Tensor:
    """Mean over the day's known names of (score − label)², (T,).

    ``scores``, ``label`` (T, n) in units of the day's cross-sectional standard deviation;
    ``known`` (T, n) bool. Zero on a day without a known label.
    """
    error = torch.where(known, scores - label, 0.0)
    return (error * error).sum(-1) / known.sum(-1).clamp_min(1)


def huber_error(scores: Tensor, label: Tensor, known: Tensor, delta: float) -> Tensor:
    """Mean over the day's known names of Huber's function of score − label, (T,).

    Arguments as for :func:`mean_squared_error`; ``delta`` where the square becomes linear.
    """
    error = torch.where(known, scores - label, 0.0).abs()
    near = error.clamp_max(delta)
    return (near * (error - 0.5 * near)).sum(-1) / known.sum(-1).clamp_min(1)


def information_coefficient(scores: Tensor, returns: Tensor, known: Tensor) -> Tensor:
    """Pearson correlation of scores and returns over the day's known names, (T,).

    NaN on a day with fewer than two known names or without variation.

    >>> scores, known = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool)
    >>> information_coefficient(scores, 2 * scores + 1, known).round(decimals=6).tolist()
    [1.0]
    """
    count = known.sum(-1, keepdim=True).clamp_min(1)

    def centred(values: Tensor) -> Tensor:
        values = torch.where(known, values.double(), 0.0)
        return torch.where(known, values - values.sum(-1, keepdim=True) / count, 0.0)

    def varies(values: Tensor) -> Tensor:
        # A constant less its mean is rounding noise rather than zero, so its norm is no test.
        largest = torch.where(known, values, -torch.inf).amax(-1)
        return largest > torch.where(known, values, torch.inf).amin(-1)

    x, y = centred(scores), centred(returns)
    known_ic = varies(scores) & varies(returns)
    # What is divided by is positive on every day, so that no gradient is NaN.
    norms = [torch.where(known_ic, (v * v).sum(-1), 1.0).sqrt() for v in (x, y)]
    return torch.where(known_ic, (x * y).sum(-1) / (norms[0] * norms[1]), torch.nan)
