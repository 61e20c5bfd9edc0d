"""How a network's scores become forecasts: normalisations by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import build, check_keys, resolve, title


def as_they_are(scores: Tensor, mask: Tensor) -> Tensor:
    """The scores (T, n) themselves."""
    return scores


def standardised(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (T, n) less their day's mean, over their day's standard deviation.

    Both over the names of ``mask`` (T, n), the deviation with the divisor n; zero elsewhere, and
    on a day whose scores do not vary (where the gradient is zero too); NaN on a day with a score
    that is not finite. Blind to the level and the
    spread of a day's scores: the factor that multiplies them decides how bold the portfolio is.
    """
    count = mask.sum(-1, keepdim=True).clamp_min(1)
    inside = torch.where(mask, scores, 0.0)
    centred = torch.where(mask, inside - inside.sum(-1, keepdim=True) / count, 0.0)
    variance = (centred * centred).sum(-1, keepdim=True) / count
    # A constant less its mean is rounding noise rather than zero.
    largest = inside.detach().abs().amax(-1, keepdim=True)
    noise = (64 * torch.finfo(scores.dtype).eps * largest).square()
    # Of scores that are not finite NaN, not the zero of scores that are all alike.
    alike = variance <= noise
    return torch.where(alike, 0.0, centred / torch.where(alike, 1.0, variance).sqrt())


def mean_spread(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over days of the cross-sectional standard deviation of values (T, n), ().

    Over the names of ``mask`` (T, n), with the divisor n.
    """
    count = mask.sum(-1, keepdim=True).clamp_min(1)
    mean = torch.where(mask, values, 0.0).sum(-1, keepdim=True) / count
    centred = torch.where(mask, values - mean, 0.0)
    return (centred.square().sum(-1, keepdim=True) / count).sqrt().mean()


NORMALISATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": as_they_are,
    "standardise": standardised,
}


def build_normalisation(spec: Mapping[str, Any] | str) -> Callable[[Tensor, Tensor], Tensor]:
    """The normalisation that ``spec`` names: scores (T, n) and mask (T, n) in, scores (T, n) out.

    ``spec`` is what :func:`~bpqp_portfolio.config.resolve` takes: a name of ``NORMALISATIONS``, or
    ``class`` and ``module_path`` of a function of those two arguments (its ``kwargs`` are given
    besides) or of a class whose objects are such.

    Raises
    ------
    ConfigError
        An unknown name (the nearest is named), or an option that it does not take.
    """
    found, options = resolve(spec, NORMALISATIONS, "normalisation")
    if isinstance(found, type):
        return build(spec, NORMALISATIONS, "normalisation")
    known = list(inspect.signature(found).parameters)[2:]
    check_keys(options, known, f"normalisation {title(spec)!r}")
    return functools.partial(found, **options) if options else found
