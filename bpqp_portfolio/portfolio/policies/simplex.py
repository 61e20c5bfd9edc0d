"""The nearest weights that sum to one within their limits."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ProblemError


def project(v: Tensor, mask: Tensor, cap: float) -> Tensor:
    """argmin ‖w − v‖ over 1ᵀw = 1, 0 ≤ w ≤ cap, (T, n), zero outside of ``mask``.

    w = clip(v − τ, 0, cap), where Σ clip(v − τ, 0, cap) falls from n·cap to 0 as τ rises, linear
    between the 2n points v and v − cap: sorting them finds the piece that holds 1, and on it τ is
    a mean. Exact in n log n, and differentiable: a change of v moves the free names by what it
    differs from their mean.

    Raises
    ------
    ProblemError
        A day has too few names for ``cap``.
    """
    count = mask.sum(-1).to(v)
    if bool((count * cap < 1 - 1e-12).any()):
        day = int(torch.nonzero(count * cap < 1 - 1e-12)[0])
        raise ProblemError(
            f"max_weight {cap:g} cannot reach a sum of 1 on day {day}, which has "
            f"{int(count[day])} names: set it to at least {1 / max(int(count[day]), 1):g}."
        )
    with torch.no_grad():
        # Names outside have no point: theirs are put last, with no change of slope.
        top = torch.where(mask, v, torch.inf)
        points, order = torch.cat([top - cap, top], -1).sort(-1)
        inside = mask.to(v)
        slope = torch.cat([-inside, inside], -1).gather(-1, order).cumsum(-1)
        gaps = points.diff(dim=-1).nan_to_num(0.0, 0.0, 0.0)
        sums = (count * cap).unsqueeze(-1) + torch.cumsum(slope[:, :-1] * gaps, -1)
        # The last point at which the sum is still 1 or more.
        sums = torch.cat([(count * cap).unsqueeze(-1), sums], -1)
        at = ((sums >= 1) & points.isfinite()).sum(-1, keepdim=True).sub(1).clamp_min(0)
        low = points.gather(-1, at)
        tau = low + (sums.gather(-1, at) - 1) / (-slope.gather(-1, at)).clamp_min(1)
        shifted = v - tau
        full, free = mask & (shifted >= cap), mask & (shifted > 0) & (shifted < cap)
    # The same τ once more from the names that it leaves free, free of the sums' rounding.
    left = 1 - cap * full.to(v).sum(-1, keepdim=True)
    some = free.sum(-1, keepdim=True)
    tau = (torch.where(free, v, 0.0).sum(-1, keepdim=True) - left) / some.clamp_min(1)
    return torch.where(free, (v - tau).clamp(0.0, cap), cap * full.to(v))
