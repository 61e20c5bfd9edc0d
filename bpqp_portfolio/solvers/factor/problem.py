"""Factor-model portfolio QPs and their solutions: what the solvers take and return."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...problems.solution import SolveStatus, statuses

STRUCTURED = "structured"
"""The name of this package's solvers of factor QPs, as a forward solver and as who answered."""

# The fields of a FactorQP that its solution is differentiable in.
PARAMETERS = (
    *("q", "loadings", "d", "lb", "ub", "budget"),
    *("A", "b", "G", "h", "cost", "reference"),
)


@dataclass(frozen=True)
class FactorQP:
    """T portfolio QPs, for n names each (masked where padded), over a model of k factors.

        min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|
        s.t.  1ᵀw = budget,  A w = b,  G w ≤ h,  lb ≤ w ≤ ub

    All float64. Whoever makes one vouches for shapes and finite values (``layers.factor`` checks
    them).

    Parameters
    ----------
    q, d, lb, ub : (T, n); d ≥ 0, bounds finite where it is 0.
    loadings : B, (T, n, k).
    mask : (T, n) bool; a masked-out name is exactly zero.
    budget : (T,), or None for no row 1ᵀw = budget.
    A, b : (T, p, n), (T, p), both or neither; G, h : (T, m, n), (T, m), both or neither.
    cost, reference : c ≥ 0 and w⁰ (T, n), both or neither.
    """

    q: Tensor
    loadings: Tensor
    d: Tensor
    lb: Tensor
    ub: Tensor
    mask: Tensor
    budget: Tensor | None = None
    A: Tensor | None = None
    b: Tensor | None = None
    G: Tensor | None = None
    h: Tensor | None = None
    cost: Tensor | None = None
    reference: Tensor | None = None

    @property
    def parameters(self) -> dict[str, Tensor | None]:
        """The fields in ``PARAMETERS`` by name."""
        return {name: getattr(self, name) for name in PARAMETERS}


@dataclass(frozen=True)
class FactorSolution:
    """Primal-dual points of a batch of T factor QPs.

    The Lagrangian is f + ν(1ᵀw − budget) + ν_Aᵀ(Aw − b) + λᵀ(Gw − h) + λ_lbᵀ(lb − w) + λ_ubᵀ(w −
    ub).

    Of a layer's solution only ``w`` carries gradients; the rest are figures.

    On an infeasible day the duals hold the certificate, largest entry 1 (in units of each row's
    largest entry): ν1 + Aᵀν_A + Gᵀλ − λ_lb + λ_ub = 0 and ν budget + bᵀν_A + hᵀλ − lbᵀλ_lb +
    ubᵀλ_ub is negative.

    Parameters
    ----------
    w : (T, n) weights.
    nu : (T,) dual of the budget; nu_rows : (T, p) of A w = b; lam : (T, m) of G w ≤ h.
    x : (T, k) exposures Bᵀw.
    free : (T, n) names strictly between their bounds that trade.
    kkt_norm : (T,) scaled KKT residual; iterations : (T,).
    codes : (T,) int, of :class:`~bpqp_portfolio.problems.solution.SolveStatus`: ``SOLVED``,
        ``INACCURATE`` (the iteration limit came first), ``PRIMAL_INFEASIBLE`` and ``BAD_DATA``
        (both NaN weights).
    lam_lb, lam_ub : (T, n) duals of the bounds.
    solver : who answered, ``structured`` unless it is a general solver's solution (T,).
    message : as :class:`~bpqp_portfolio.problems.solution.Solution` has it; (T,), or "" for all.
    """

    w: Tensor
    nu: Tensor
    x: Tensor
    free: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    codes: Tensor
    nu_rows: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor
    solver: Any = STRUCTURED
    message: Any = ""

    @property
    def z(self) -> Tensor:
        """The weights (T, n), by the name that they have in every layer's solution."""
        return self.w

    @property
    def status(self) -> Any:
        """How each day's solve ended: an object array (T,) of SolveStatus."""
        return statuses(self.codes)

    @property
    def failed(self) -> Tensor:
        """Days (T,) without weights."""
        return ~self.usable

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The fields with an entry for each day, in their order, which are the first of all."""
        own = self.w, self.nu, self.x, self.free, self.kkt_norm, self.iterations, self.codes
        return *own, self.nu_rows, self.lam, self.lam_lb, self.lam_ub

    @property
    def usable(self) -> Tensor:
        """Days (T,) whose weights may be used: solved, or nearly so."""
        return self.codes <= SolveStatus.INACCURATE.code

    def days(self, index: Tensor) -> FactorSolution:
        """The solution of some days, such as an initial point for them."""
        at = index.cpu().numpy()
        solver, message = (
            one if isinstance(one, str) else one[at] for one in (self.solver, self.message)
        )
        own = FactorSolution(*(one[index] for one in self.tensors))
        return replace(own, solver=solver, message=message)


@dataclass
class Points:
    """Where T days stand, in units of a :class:`~.standard_form.StandardForm`.

    ``w`` (T, N), duals ``theta`` (T, K), KKT ``norm`` (T,), NaN until known, ``iterations`` so far
    (T,), and whether infeasibility is proved (T,).
    """

    w: Tensor
    theta: Tensor
    norm: Tensor
    iterations: Tensor
    infeasible: Tensor

    def put(self, days: Tensor, w: Tensor, theta: Tensor, norm: Tensor) -> None:
        """Move ``days`` (L,) to the given points (L, ...)."""
        self.w[days], self.theta[days], self.norm[days] = w, theta, norm
