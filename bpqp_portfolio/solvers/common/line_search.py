"""The length of a step along which a concave function rises: a root of its slope, in a bracket.

Along a step the slope s(t) = d/dt D(θ + t·step) of a concave dual function D falls with t; where D
is piecewise quadratic it is linear between kinks. A :class:`Bracket` keeps low and high with
s(low) > 0 ≥ s(high), and proposes the next t by Newton's method or by the secant through both
ends, safeguarded by bisection (R. P. Brent, Algorithms for Minimization without Derivatives, 1973,
chapter 4). Numpy arrays and torch tensors alike, one entry for each of T lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

_TINY = np.finfo(float).tiny
# While no end of the step is known, it grows by this factor.
_GROWTH = 4.0


def _library(values: Any) -> Any:
    """The module, torch or numpy, that works on ``values``."""
    return torch if isinstance(values, torch.Tensor) else np


def _where(mask: Any, yes: Any, no: Any) -> Any:
    return _library(mask).where(mask, yes, no)


@dataclass
class Bracket:
    """Step lengths between which the slopes of T lines are zero, and the slopes there.

    Parameters
    ----------
    low, high : (T,) or (T, 1), ``high`` infinite while no end is known.
    at_low, at_high : the slopes at both, of the same shape.
    """

    low: Any
    high: Any
    at_low: Any
    at_high: Any

    @classmethod
    def of(cls, first: Any) -> Bracket:
        """From t = 0, where the slope is ``first`` (T,) > 0, to infinity."""
        zero = _library(first).zeros_like(first)
        return cls(zero, _library(first).full_like(first, np.inf), first, zero)

    def narrow(self, t: Any, slope: Any) -> None:
        """Take in the ``slope`` found at ``t``."""
        below = slope > 0
        self.low, self.at_low = _where(below, t, self.low), _where(below, slope, self.at_low)
        self.high, self.at_high = _where(below, self.high, t), _where(below, self.at_high, slope)

    def middle(self) -> Any:
        """Halfway between the ends; infinite while no end is known."""
        return 0.5 * (self.low + self.high)

    def newton(self, t: Any, slope: Any, curvature: Any) -> tuple[Any, Any]:
        """Newton's step from ``t``, where the slope falls by ``curvature`` ≥ 0 for each unit of t.

        Returns the new t, and whether it lies strictly inside the bracket.
        """
        with np.errstate(over="ignore"):  # a step that long is not inside
            new = t + slope / curvature.clip(_TINY)
        return new, (new > self.low) & (new < self.high)

    def secant(self, t: Any) -> Any:
        """The zero of the line through both ends, or the middle where that is none.

        Four times ``t`` while no end is known.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self.at_low / (self.at_low - self.at_high)
            new = self.low + (self.high - self.low) * share
        return self._grown(t, _where(abs(new) < np.inf, new, self.middle()))

    def bisect(self, t: Any) -> Any:
        """The middle, or four times ``t`` while no end is known."""
        return self._grown(t, self.middle())

    def take(self, lines: Any) -> Bracket:
        """Some of the lines."""
        return Bracket(*(getattr(self, f.name)[lines] for f in fields(self)))

    def _grown(self, t: Any, new: Any) -> Any:
        return _where(self.high == np.inf, _GROWTH * t, new)


def secant_search(
    slope_at: Callable[[Any], Any], first: Any, slope: Any, goal: Any, open_: Any, *, steps: int
) -> Any:
    """Step lengths (T,) at which |slope| ≤ ``goal``, 1 for lines that are not ``open_``.

    Secant steps within a bracket, every third a bisection. A line that is not settled after
    ``steps`` of them gets the last t at which its slope was still positive, if there was one.

    Parameters
    ----------
    slope_at : t (T,) → the slopes there (T,); last called at the t that is returned.
    first, slope : the slopes (T,) at t = 0 and t = 1.
    goal : (T,) ≥ 0; open_ : (T,) mask of the lines to search.
    """
    t, bracket = _library(first).ones_like(first), Bracket.of(first)
    for number in range(steps):
        bracket.narrow(t, slope)
        new = bracket.bisect(t) if number % 3 == 2 else bracket.secant(t)
        t = _where(open_, new, t)
        slope = slope_at(t)
        open_ = open_ & ~(abs(slope) <= goal)
        if not bool(open_.any()):
            return t
    bracket.narrow(t, slope)
    t = _where(open_ & (bracket.low > 0), bracket.low, t)
    slope_at(t)
    return t
