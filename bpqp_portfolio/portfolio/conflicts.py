"""Why a day of a mandate was not solved, in the constraints' own words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..solvers.structured import BAD_DATA, INFEASIBLE
from .draft_qp import Setup
from .layer import STATUS_NAMES
from .multipliers import Point

# Duals below this share of the largest of a conflict have no part in it.
_NOISE = 1e-4


def reason(setup: Setup, point: Point, status: Tensor, day: int, broken: Sequence[str]) -> str:
    """Why ``day`` was not solved, in the constraints' words; ``broken`` are those it misses."""
    d, code = setup.draft, int(status[day])
    inside = setup.mask[day]
    if not bool(inside.any()):
        return "no name in the problem"
    crossed = (d.lower[day] > d.upper[day]) & inside
    if bool(crossed.any()):
        names = setup.draft.market.names
        first = int(torch.nonzero(crossed)[0])
        who = first if names is None else names[first]
        return f"{d.lower_words} cannot meet {d.upper_words} for name {who}"
    if code == BAD_DATA:
        fields = {"mu": setup.q, "loadings": setup.loadings, "specific": setup.specific}
        bad = [k for k, v in fields.items() if not bool(v[day].isfinite().all())]
        bad += [] if bool((setup.specific[day] >= 0).all()) else ["specific (below zero)"]
        return "bad data in " + (", ".join(bad) or "bounds or previous weights")
    if code != INFEASIBLE:
        return STATUS_NAMES[code] + (f", missing {' and '.join(broken)}" if broken else "")
    words = [
        (float(point.tracking[day]), d.tracking_words),
        (float(point.turnover[day]), d.turnover_words),
        *((float(v), w) for v, w in zip(point.rows[day], setup.words, strict=True)),
    ]
    fixed = torch.zeros_like(inside)
    if d.market.pinned is not None:
        fixed = d.market.pinned[day] & inside
    for dual, text in ((point.lower[day], d.lower_words), (point.upper[day], d.upper_words)):
        words.append((float(torch.where(fixed | ~inside, 0.0, dual).abs().max()), text))
    both = point.lower[day] + point.upper[day]
    words.append((float(torch.where(fixed, both, 0.0).abs().max()), "names that cannot trade"))
    words.append((abs(float(point.budget[day])), d.budget_words))
    largest = max(value for value, _ in words)
    found = [text for value, text in words if value > _NOISE * largest]
    if not found:
        # No certificate: what the last point misses, or all that was asked.
        asked = broken or [text for _, text in words if text]
        return "no weights were found that meet " + " and ".join(asked)
    if len(found) < 2:
        return " and ".join(found) + " cannot be met"
    return f"{found[0]} cannot meet {' and '.join(found[1:])}"
