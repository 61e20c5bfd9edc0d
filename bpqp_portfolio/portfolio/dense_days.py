"""The portfolio layer's problem by a general QP solver: one dense QP a day.

A turnover cost c|w − w⁰| becomes variables t ≥ |w − w⁰|, which cost c t.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import ProblemError, SolverError
from ..layers.qp import QPLayer
from ..problems.solution import Solution, SolveStatus
from ..solvers.factor.problem import FactorSolution

# Σ (T, n, n) scaled by γ; or None, with loadings (T, n, k) and specific variances (T, n) so scaled.
Quadratic = tuple[Tensor | None, Tensor | None, Tensor | None]


def solve_dense(
    layer: QPLayer,
    q: Tensor,
    quadratic: Quadratic,
    mask: Tensor,
    max_weight: float,
    raises: bool,
    *,
    A: Tensor | None,
    b: Tensor | None,
    G: Tensor | None,
    h: Tensor | None,
    cost: Tensor | None,
    reference: Tensor | None,
) -> FactorSolution:
    """min ½ wᵀPw + qᵀw + cᵀ|w − w⁰| over 1ᵀw = 1, 0 ≤ w ≤ max_weight and the rows, by ``layer``.

    Parameters
    ----------
    q, mask, cost, reference : (T, n); the other arguments as in
        :meth:`~.layer.PortfolioLayer.solve`.

    Raises
    ------
    ProblemError, SolverError
        With ``raises``, where the layer has a message for a day: bad data, or what the solver's
        package raised.
    """
    T, n = q.shape
    P, loadings = _quadratic(quadratic, mask)
    q = torch.where(mask, q, 0.0).double()
    inside = mask.to(P)
    upper = max_weight * inside
    lower = torch.zeros_like(upper)
    rows_A, values_A = inside.unsqueeze(-2), inside.new_ones(T, 1)
    if A is not None and b is not None:
        rows_A = torch.cat([rows_A, _inside(A, mask)], -2)
        values_A = torch.cat([values_A, b.double().expand(T, rows_A.shape[-2] - 1)], -1)
    m = 0
    if G is not None and h is not None:
        G = _inside(G, mask)
        m = G.shape[-2]
        h = h.double().expand(T, m)
    if cost is not None and reference is not None:
        held = torch.where(mask, reference, 0.0).double()
        one = torch.eye(n, dtype=P.dtype, device=P.device).expand(T, n, n)
        traded = torch.cat([torch.cat([one, -one], -1), torch.cat([-one, -one], -1)], -2)
        G = traded if G is None else torch.cat([pad(G, (0, n)), traded], -2)
        limit = torch.cat([held, -held], -1)
        h = limit if h is None else torch.cat([h, limit], -1)
        P, rows_A = pad(P, (0, n, 0, n)), pad(rows_A, (0, n))
        q = torch.cat([q, cost * inside], -1)
        # |w − w⁰| is never above this; masked names are held at zero.
        reach = (max_weight + held.abs()) * inside
        lower = torch.cat([lower, torch.zeros_like(lower)], -1)
        upper = torch.cat([upper, reach], -1)
    found = layer.solve(P, q, rows_A, values_A, G, h, lb=lower, ub=upper)
    for day, message in enumerate(found.message if raises else ()):
        if message:
            bad = found.status[day] is SolveStatus.BAD_DATA
            raise (ProblemError if bad else SolverError)(f"day {day}: {message}")
    return _as_factor_solution(found, loadings, mask, max_weight, m, cost, reference)


def _quadratic(quadratic: Quadratic, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """P (T, n, n) float64, the identity at masked names; and the loadings without these."""
    P, loadings, specific = quadratic
    B = None
    if P is None:
        assert loadings is not None and specific is not None
        B = torch.where(mask.unsqueeze(-1), loadings, 0.0).double()
        P = B @ B.mT + torch.diag_embed(torch.where(mask, specific, 1.0).double())
    both = mask.unsqueeze(-1) & mask.unsqueeze(-2)
    return torch.where(both, P.double(), 0.0) + torch.diag_embed((~mask).double()), B


def _inside(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows (T, r, n) float64, zero at masked names."""
    rows = rows.double().expand(len(mask), -1, mask.shape[-1])
    return torch.where(mask.unsqueeze(-2), rows, 0.0)


def _as_factor_solution(
    found: Solution,
    loadings: Tensor | None,
    mask: Tensor,
    max_weight: float,
    m: int,
    cost: Tensor | None,
    reference: Tensor | None,
) -> FactorSolution:
    """The layer's solution as that of the structured solver, without the variables of a cost."""
    T, n = mask.shape
    # A masked name is zero exactly, whatever the solver's tolerance left of it.
    w = torch.where(mask, found.z[:, :n], 0.0)
    free = mask & (w > 0) & (w < max_weight)
    if cost is not None and reference is not None:
        free &= (w != reference) | (cost == 0)
    exposure = w.detach().new_zeros(T, 0)
    if loadings is not None:
        exposure = (w.detach().unsqueeze(-2) @ loadings).squeeze(-2).detach()
    nu = found.nu.detach()
    return FactorSolution(
        w=w,
        nu=nu[:, 0],
        x=exposure,
        free=free,
        kkt_norm=torch.as_tensor(found.kkt_norm),
        iterations=torch.as_tensor(found.iterations),
        codes=torch.tensor([status.code for status in found.status], dtype=torch.int64),
        nu_rows=nu[:, 1:],
        lam=found.lam.detach()[:, :m],
        lam_lb=found.lam_lb.detach()[:, :n],
        lam_ub=found.lam_ub.detach()[:, :n],
        solver=found.solver,
        message=found.message,
    )
