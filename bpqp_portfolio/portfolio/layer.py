"""The portfolio layer: expected returns and a factor-model covariance in, optimal weights out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..config import check_number
from ..errors import ProblemError, SolverError
from ..layers.factor import factor_qp
from ..layers.qp import QPLayer
from ..layers.transforms import eager
from ..problems.solution import SolveStatus
from ..solvers.factor.problem import FactorSolution

STRUCTURED = "structured"
# General solvers iterate to a tolerance; beyond this they rarely get.
GENERAL_TOLERANCE = 1e-10


def refuse_unknown(values: Tensor, mask: Tensor, what: str = "mu") -> None:
    """Raise :class:`ProblemError` for the first of ``values`` (T, n) in ``mask`` not finite."""
    wrong = torch.nonzero(~torch.isfinite(values) & mask)
    if len(wrong):
        day, item = wrong[0].tolist()
        raise ProblemError(
            f"{what}: {float(values[day, item])} for name {item} of day {day} ({len(wrong)} such "
            "values); mask such names out, or look for what made the forecast fail."
        )


class PortfolioLayer(nn.Module):
    """Long-only mean-variance weights of a batch of days.

        max  μᵀw − (γ/2) wᵀΣw − turnover_cost ‖w − previous‖₁
        s.t. 1ᵀw = 1,  0 ≤ w ≤ max_weight,    Σ = B Bᵀ + diag(d)

    and further rows A w = b, G w ≤ h where :meth:`solve` is given them.

    Parameters
    ----------
    risk_aversion : γ > 0, in 1/(return per day).
    max_weight : largest weight of a name, in (0, 1].
    turnover_cost : cost of a trade as a fraction of its value; the call then wants ``previous``.
    solver : ``structured`` for the batched factor-model solver, or a general solver by name (see
        :func:`bpqp_portfolio.available_solvers`), which forms Σ and takes the days one by one.
    tolerance : scaled KKT residual at which a day counts as solved.
    throw : raise where a day fails; otherwise its weights are NaN and its gradient is zero.

    Raises
    ------
    ConfigError
        A parameter outside its range.

    References
    ----------
    The gradient is the backward QP of arXiv:2411.19285, Theorem 1.
    """

    def __init__(
        self,
        risk_aversion: float = 1.0,
        max_weight: float = 1.0,
        *,
        turnover_cost: float = 0.0,
        solver: str = STRUCTURED,
        tolerance: float = 1e-10,
        throw: bool = True,
    ) -> None:
        super().__init__()
        check_number(risk_aversion, "risk_aversion", low=0, open_low=True)
        check_number(max_weight, "max_weight", low=0, high=1, open_low=True)
        check_number(turnover_cost, "turnover_cost", low=0)
        check_number(tolerance, "tolerance", low=0, open_low=True)
        self.turnover_cost = float(turnover_cost)
        self.risk_aversion, self.max_weight = float(risk_aversion), float(max_weight)
        self.solver, self.tolerance, self.throw = solver, tolerance, throw
        eps = max(tolerance, GENERAL_TOLERANCE)
        if solver == STRUCTURED:
            self._general = QPLayer(tolerance=eps, on_failure="nan")
        else:
            self._general = QPLayer(solver, tolerance=eps, on_failure="nan")

    def extra_repr(self) -> str:
        return (
            f"risk_aversion={self.risk_aversion:g}, max_weight={self.max_weight:g}, "
            f"solver={self.solver!r}"
        )

    def forward(
        self,
        mu: Tensor,
        loadings: Tensor | None = None,
        specific: Tensor | None = None,
        mask: Tensor | None = None,
        previous: Tensor | None = None,
        *,
        covariance: Tensor | None = None,
    ) -> Tensor:
        """Weights (T, n), each day's summing to 1; see :meth:`solve`."""
        return self.solve(mu, loadings, specific, mask, previous, covariance=covariance).w

    @eager
    def solve(
        self,
        mu: Tensor,
        loadings: Tensor | None = None,
        specific: Tensor | None = None,
        mask: Tensor | None = None,
        previous: Tensor | None = None,
        *,
        covariance: Tensor | None = None,
        equalities: tuple[Tensor, Tensor] | None = None,
        inequalities: tuple[Tensor, Tensor] | None = None,
        warm_start: FactorSolution | Tensor | None = None,
    ) -> FactorSolution:
        """Weights with duals, status and KKT norm of every day.

        Parameters
        ----------
        mu : (T, n) expected daily returns, as fractions.
        loadings : (T, n, k); specific : (T, n), per day²: Σ = B Bᵀ + diag(d).
        mask : (T, n) bool, names in the day's problem; the others get exactly zero.
        previous : (T, n) weights held before the trade, for ``turnover_cost``; a day that is NaN
            throughout trades for free.
        covariance : Σ (T, n, n) per day² instead of loadings and specific; goes to the general
            layer.
        equalities, inequalities : (A, b) and (G, h), (T, p, n), (T, p) and (T, m, n), (T, m).
        warm_start : an earlier solution of similar problems, for the structured solver.

        Raises
        ------
        ProblemError
            Wrong shapes or missing arguments; with ``throw`` also bad values, and a day with too
            few names for ``max_weight``.
        SolverError
            A day that was not solved, where ``throw`` is set.
        """
        if covariance is None and (loadings is None or specific is None):
            raise ProblemError("loadings and specific: missing; give both, or covariance instead.")
        if covariance is not None and (loadings is not None or specific is not None):
            raise ProblemError("covariance: give either this or loadings and specific, not both.")
        if self.turnover_cost and previous is None:
            raise ProblemError("previous: missing; turnover_cost needs the weights held before.")
        if previous is not None and previous.shape != mu.shape:
            raise ProblemError(
                f"previous must be (T, n) = {tuple(mu.shape)}; got {tuple(previous.shape)}."
            )
        if covariance is not None and covariance.shape != (*mu.shape, mu.shape[-1]):
            raise ProblemError(
                f"covariance must be (T, n, n) = {(*mu.shape, mu.shape[-1])}; "
                f"got {tuple(covariance.shape)}."
            )
        if mask is None:
            mask = torch.ones_like(mu, dtype=torch.bool)
        if mu.ndim != 2 or mask.shape != mu.shape:
            raise ProblemError(
                f"mu and mask must be (T, n); got {tuple(mu.shape)} and {tuple(mask.shape)}."
            )
        if self.throw:
            refuse_unknown(mu, mask)
        names = mask.sum(-1)
        short = (names > 0) & (names.double() * self.max_weight < 1 - 1e-12)
        if self.throw and bool(short.any()):
            day = int(torch.where(short, names, mask.shape[1] + 1).argmin())
            fewest = int(names[day])
            raise ProblemError(
                f"max_weight {self.max_weight:g} cannot reach a sum of 1 on day {day}, which has "
                f"{fewest} names ({int(short.sum())} such days): set it to at least "
                f"{math.ceil(1e4 / fewest) / 1e4:g}."
            )
        cost = None
        if self.turnover_cost and previous is not None:
            entry = previous.isnan().all(-1, keepdim=True)
            previous = torch.where(entry, 0.0, previous)
            cost = torch.where(entry, 0.0, previous.new_full((), self.turnover_cost))
            cost = cost.expand(mu.shape)
        rows = equalities, inequalities
        if not mu.numel():
            loadings = mu.new_zeros(*mu.shape, 0) if loadings is None else loadings
            specific = mu if specific is None else specific
            how: dict[str, Any] = {"equalities": equalities, "inequalities": inequalities}
            return factor_qp(-mu, loadings, specific, mask=mask, throw=self.throw, **how)
        if covariance is not None:
            quadratic = self.risk_aversion * covariance
            solution = self._solve_general(-mu, quadratic, None, mask, cost, previous, *rows)
        else:
            assert loadings is not None and specific is not None
            loadings = loadings * math.sqrt(self.risk_aversion)
            specific = specific * self.risk_aversion
            if self.solver != STRUCTURED:
                inside = torch.where(mask.unsqueeze(-1), loadings, 0.0).double()
                quadratic = inside @ inside.mT + torch.diag_embed(
                    torch.where(mask, specific, 1.0).double()
                )
                solution = self._solve_general(-mu, quadratic, inside, mask, cost, previous, *rows)
            else:
                solution = factor_qp(
                    -mu,
                    loadings,
                    specific,
                    upper=self.max_weight,
                    cost=cost,
                    reference=previous,
                    mask=mask,
                    tolerance=self.tolerance,
                    warm_start=warm_start,
                    throw=self.throw,
                    equalities=equalities,
                    inequalities=inequalities,
                )
        unsolved = solution.status != SolveStatus.SOLVED.code
        if self.throw and bool(unsolved.any()):
            failed = torch.nonzero(unsolved).squeeze(-1)
            shown = ", ".join(
                f"day {int(t)}: {SolveStatus.from_code(solution.status[t]).label}, "
                f"KKT norm {float(solution.kkt_norm[t]):.1e}"
                for t in failed[:5]
            )
            raise SolverError(f"{len(failed)} of {len(mu)} days were not solved ({shown}).")
        return solution

    def _solve_general(
        self,
        q: Tensor,
        quadratic: Tensor,
        loadings: Tensor | None,
        mask: Tensor,
        cost: Tensor | None,
        previous: Tensor | None,
        equalities: tuple[Tensor, Tensor] | None,
        inequalities: tuple[Tensor, Tensor] | None,
    ) -> FactorSolution:
        """One dense QP a day; a turnover cost c|w − w⁰| is lifted to variables t ≥ |w − w⁰|."""
        assert self._general is not None
        T, n = q.shape
        pair = (mask.unsqueeze(-1) & mask.unsqueeze(-2)).double()
        empty = torch.diag_embed((~mask).double())
        P = torch.where(pair > 0, quadratic.double(), 0.0) + empty
        q = torch.where(mask, q, 0.0).double()
        inside = mask.to(P)
        upper = self.max_weight * inside
        lower = torch.zeros_like(upper)
        A, b = inside.unsqueeze(-2), inside.new_ones(T, 1)
        if equalities is not None:
            rows = equalities[0].double().expand(T, -1, n)
            A = torch.cat([A, torch.where(mask.unsqueeze(-2), rows, 0.0)], -2)
            b = torch.cat([b, equalities[1].double().expand(T, A.shape[-2] - 1)], -1)
        G = h = None
        m = 0
        if inequalities is not None:
            rows = inequalities[0].double().expand(T, -1, n)
            G = torch.where(mask.unsqueeze(-2), rows, 0.0)
            m = G.shape[-2]
            h = inequalities[1].double().expand(T, m)
        if cost is not None and previous is not None:
            held = torch.where(mask, previous, 0.0).double()
            one = torch.eye(n, dtype=P.dtype, device=P.device).expand(T, n, n)
            traded = torch.cat([torch.cat([one, -one], -1), torch.cat([-one, -one], -1)], -2)
            pad = torch.nn.functional.pad
            G = traded if G is None else torch.cat([pad(G, (0, n)), traded], -2)
            limit = torch.cat([held, -held], -1)
            h = limit if h is None else torch.cat([h, limit], -1)
            P, A = pad(P, (0, n, 0, n)), pad(A, (0, n))
            q = torch.cat([q, cost * inside], -1)
            # |w − w⁰| is never above this; masked names are held at zero.
            reach = (self.max_weight + held.abs()) * inside
            lower, upper = (
                torch.cat([lower, torch.zeros_like(lower)], -1),
                torch.cat([upper, reach], -1),
            )
        found = self._general.solve(P, q, A, b, G, h, lb=lower, ub=upper)
        for day, said in enumerate(found.message if self.throw else ()):
            if said:
                bad = found.status[day] is SolveStatus.BAD_DATA
                raise (ProblemError if bad else SolverError)(f"day {day}: {said}")
        # A masked name is zero exactly, whatever the solver's tolerance left of it.
        w = torch.where(mask, found.z[:, :n], 0.0)
        free = mask & (w > 0) & (w < self.max_weight)
        if cost is not None and previous is not None:
            free &= (w != previous) | (cost == 0)
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
            status=torch.tensor([status.code for status in found.status], dtype=torch.int64),
            nu_rows=nu[:, 1:],
            lam=found.lam.detach()[:, :m],
            lam_lb=found.lam_lb.detach()[:, :n],
            lam_ub=found.lam_ub.detach()[:, :n],
        )
