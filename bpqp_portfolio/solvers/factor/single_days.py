"""The days that no other method has solved, one by one as dense QPs: degenerate ones, mostly.

Where the constraints leave no interior, or more of them meet than there are names to fix, duals are
not unique and their signs do not tell the active set. A conic solver copes with that, proves what
is infeasible, and its point is polished as any QP's. A cost c|w − w⁰| becomes a variable t with c t
in the objective and t ≥ ±(w − w⁰).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...problems.matrices import Array, FactorMatrix
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from ..common.native import Guarded
from ..common.protocol import SolverOptions
from .active_set import polish
from .problem import Points
from .residuals import kkt_norm, proves_infeasible
from .standard_form import StandardForm, transposed

_EPS = 1e-9
# Share of a cost's two multipliers above which both of its sides hold a name.
_ON = 1e-9
_CORRECTIONS = 10


def solve_single_days(form: StandardForm, points: Points, days: Tensor, tolerance: float) -> None:
    """Put better points of ``days``, or proofs that they have none, into ``points``."""
    # Imported where it is needed: few batches are.
    from ..qp.clarabel import ClarabelSolver

    solver, k = Guarded(ClarabelSolver()), form.factors
    for day in days.tolist():
        index = torch.tensor([day], device=days.device)
        one = form.take(index)
        problem, traded = _as_qp(one)
        found = solver.solve(problem, options=SolverOptions(tolerance=_EPS))
        y = torch.as_tensor(_duals(found, one.slacks), dtype=form.q.dtype, device=days.device)
        if found.status is SolveStatus.PRIMAL_INFEASIBLE:
            if bool(proves_infeasible(one, y)):
                points.infeasible[day], points.theta[day, k:] = True, y[0]
            continue
        if not np.isfinite(found.z).all():
            continue
        w = _weights(one, found, traded)
        theta = torch.cat([transposed(one.columns[..., :k], w), y], -1)
        bare = torch.nn.functional.pad(theta[:, :k], (0, y.shape[-1]))
        for start in (None, theta, bare):
            if start is None:
                trial = w, theta, kkt_norm(one, w, y)
            else:
                trial = polish(one, w, start, _CORRECTIONS)
            if not bool(trial[2] >= points.norm[day]):
                points.put(index, *trial)
            if bool(points.norm[day] <= tolerance):
                break


def _as_qp(one: StandardForm) -> tuple[QP, Array]:
    """The only day as a QP in names' weights and t ≥ |w − w⁰| of the names ``traded``."""
    m, k = one.slacks, one.factors
    n = one.names
    columns, q, d, lower, upper, target = (
        value[0].numpy(force=True)
        for value in (one.columns, one.q, one.d, one.box.lower, one.box.upper, one.target)
    )
    rows, r = columns[:n, k:].T, len(target)
    cost = reference = np.zeros(n)
    if one.box.cost is not None and one.box.reference is not None:
        cost, reference = (v[0, :n].numpy(force=True) for v in (one.box.cost, one.box.reference))
    traded = np.flatnonzero(cost > 0)
    c = len(traded)
    up, t = np.eye(n)[traded], np.eye(c)
    far = np.full(c, np.inf)
    problem = QP(
        FactorMatrix(np.pad(columns[:n, :k], ((0, c), (0, 0))), np.pad(d[:n], (0, c))),
        np.concatenate([q[:n], cost[traded]]),
        np.pad(rows[: r - m], ((0, 0), (0, c))),
        target[: r - m],
        np.block([[rows[r - m :], np.zeros((m, c))], [up, -t], [-up, -t]]),
        np.concatenate([target[r - m :], reference[traded], -reference[traded]]),
        np.concatenate([lower[:n], -far]),
        np.concatenate([upper[:n], far]),
    )
    return problem, traded


def _duals(found: Solution, slacks: int) -> Array:
    return np.concatenate([found.nu, found.lam[:slacks]])[None]


def _weights(one: StandardForm, found: Solution, traded: Array) -> Tensor:
    """w (1, N): at its reference where both sides of the cost say so, slacks as they are left."""
    m, n = one.slacks, one.names
    w = found.z[:n].copy()
    bought, sold = np.split(found.lam[m:], 2)
    if len(traded) and one.box.reference is not None:
        reference = one.box.reference[0, :n].numpy(force=True)[traded]
        still = np.minimum(bought, sold) > _ON * (bought + sold)
        w[traded] = np.where(still, reference, w[traded])
    weights = torch.as_tensor(w, dtype=one.q.dtype, device=one.q.device)[None]
    weights = torch.minimum(torch.maximum(weights, one.box.lower[:, :n]), one.box.upper[:, :n])
    if not m:
        return weights
    left = (one.target[:, -m:] - transposed(one.columns[:, :n, -m:], weights)).clamp_min(0)
    binds = torch.as_tensor(found.lam[:m] > 0, device=left.device)
    return torch.cat([weights, torch.where(binds, 0.0, left)], -1)
