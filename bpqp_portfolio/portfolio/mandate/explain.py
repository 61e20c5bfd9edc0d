"""A solved program as a solution: what bound on each day, and why a day was not solved."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .infeasibility import reason
from .program import MandateProgram
from .solution import MandateSolution
from .solve import Solved


def explain(program: MandateProgram, solved: Solved, bad: Mapping[int, str]) -> MandateSolution:
    """The solution of every day; a failed day has a reason, and values and duals that are NaN.

    ``bad`` data by day.
    """
    point, failed, table = solved.point, solved.failed, solved.table
    reasons: list[str | None] = [None] * len(failed)
    for day in torch.nonzero(failed).flatten().tolist():
        missed = zip(table.constraints, table.missed[day].tolist(), strict=True)
        broken = [one.label for one, is_missed in missed if is_missed]
        reasons[day] = bad.get(day) or reason(program, solved, day, broken)
    unknown = torch.zeros_like(failed)
    unknown[list(bad)] = True
    blank = failed.unsqueeze(-1)
    return MandateSolution(
        w=torch.where(program.mask, point.w, 0.0),
        codes=point.status,
        kkt_norm=point.kkt_norm,
        iterations=point.iterations,
        objective=torch.full_like(point.kkt_norm, torch.nan),
        constraints=table.constraints,
        value=table.value.masked_fill(blank, torch.nan),
        limit=table.limit.masked_fill(unknown.unsqueeze(-1), torch.nan),
        dual=table.dual.masked_fill(blank, torch.nan),
        solver=tuple("cones" if one else "structured" for one in solved.by_cones.tolist()),
        fallback=(None,) * len(failed),
        reason=tuple(reasons),
    )
