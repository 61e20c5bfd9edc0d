"""Multipliers of dependent active rows in a batch of structured QPs, on the days that have any.

The choice among them is that of :mod:`..common.redundant_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..common.redundant_rows import SUSPECT, redundancy
from .standard_form import StandardForm


def dependent_days(form: StandardForm, free: Tensor) -> Tensor:
    """The days (L,) whose active rows may depend on each other or on names that are not free."""
    n, k = form.names, form.factors
    rows = form.columns[:, :n, k:] * free[:, :n, None]
    r = rows.shape[-1]
    if not r:
        return torch.zeros(0, dtype=torch.int64, device=free.device)
    length = rows.square().sum(-2)
    binding = torch.ones_like(length, dtype=torch.bool)
    if form.slacks:
        binding[:, -form.slacks :] = ~free[:, n:]
    lost = (binding & (length <= SUSPECT)).any(-1)
    if r == 1:
        return torch.nonzero(lost).squeeze(-1)
    rows = rows * torch.where(binding & (length > 0), length.rsqrt(), 0.0).unsqueeze(-2)
    gram = rows.mT @ rows
    gram.diagonal(dim1=-2, dim2=-1)[:] = 1.0
    factor, failed = torch.linalg.cholesky_ex(gram)
    pivots = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
    return torch.nonzero(lost | (failed > 0) | ~(pivots > SUSPECT)).squeeze(-1)


def settle_multipliers(
    form: StandardForm,
    w: Tensor,
    day: int,
    duals: Tensor,
    pull: Tensor,
    points: Sequence[tuple[Tensor, Tensor]],
) -> list[tuple[Tensor, Tensor]]:
    """Some multipliers y (r,) of a day's rows, with the slope (n,) that bounds offset, anew.

    All in the batch's units. ``w`` (T, N) are its weights, ``duals`` (r,) and ``pull`` (n,), λ_lb −
    λ_ub, the day's own multipliers, ``points`` pairs (y, slope); a slope is zero at free names.
    """
    box, n = form.box.take(torch.tensor([day])), form.names
    p = form.first_slack_row - form.factors
    at, free = w[day, :n], box.free(w[[day]])[0].cpu().numpy()
    rows = form.columns[day, :n, form.factors :].mT.cpu().numpy()
    index = np.flatnonzero(np.concatenate([np.ones(p, dtype=bool), ~free[n:]]))
    rows, free = rows[index], free[:n]
    lower, upper = at <= box.lower[0, :n], at >= box.upper[0, :n]
    # A name at its reference is held from both sides.
    sides = (lower.long() - upper.long()).cpu().numpy()
    own = duals.cpu().numpy()[index]
    spare = redundancy(rows, free, index < p, sides, own, pull.cpu().numpy())
    if spare is None:
        return list(points)
    out = []
    for y, slope in points:
        before = y.cpu().numpy()[index]
        change = spare.settle(before, slope.cpu().numpy()) - before
        new = y.clone()
        new[index] += torch.from_numpy(change).to(y)
        move = torch.from_numpy(np.where(free, 0.0, change @ rows)).to(slope)
        out.append((new, slope + move))
    return out
