"""What the solvers of factor-model portfolio QPs take and return."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from ...problems.solution import SolveStatus


@dataclass(frozen=True)
class Rows:
    """Linear rows of a batch: A w = b (T, p, n), (T, p) or G w ≤ h (T, m, n), (T, m)."""

    matrix: Tensor
    value: Tensor


@dataclass(frozen=True)
class FactorSolution:
    """Primal-dual points of a batch of T factor QPs.

    The Lagrangian is f + ν(1ᵀw − budget) + ν_Aᵀ(Aw − b) + λᵀ(Gw − h) + λ_lbᵀ(l − w) + λ_ubᵀ(w − u).

    ``w`` (T, n); ``nu`` (T,) dual of the budget; ``x`` (T, k) Bᵀw; ``free`` (T, n) names strictly
    between their bounds that trade; ``kkt_norm`` (T,) scaled KKT residual; ``iterations`` (T,);
    ``status`` (T,) codes of :class:`~bpqp_portfolio.problems.solution.SolveStatus`: ``SOLVED``,
    ``INACCURATE`` (the iteration limit came first), ``PRIMAL_INFEASIBLE`` and ``BAD_DATA`` (both
    NaN weights); ``nu_rows`` (T, p); ``lam`` (T, m); ``lam_lb``, ``lam_ub`` (T, n).

    Of a layer's solution only ``w`` carries gradients; the rest are figures.

    On an infeasible day the duals hold the certificate, largest entry 1 (in units of each row's
    largest entry): ν1 + Aᵀν_A + Gᵀλ − λ_lb + λ_ub = 0 and ν budget + bᵀν_A + hᵀλ − lᵀλ_lb + uᵀλ_ub
    is negative.
    """

    w: Tensor
    nu: Tensor
    x: Tensor
    free: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    status: Tensor
    nu_rows: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor

    @property
    def usable(self) -> Tensor:
        """Days (T,) whose weights may be used: solved, or nearly so."""
        return self.status <= SolveStatus.INACCURATE.code

    def days(self, index: Tensor) -> FactorSolution:
        """The solution of some days, such as a warm start for them."""
        return FactorSolution(*(getattr(self, f.name)[index] for f in fields(self)))
