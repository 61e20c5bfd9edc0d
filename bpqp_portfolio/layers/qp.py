"""The differentiable QP layer: any forward solver, any backward QP, one autograd function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..config import check_number
from ..errors import ProblemError
from ..problems.matrices import FactorMatrix
from ..problems.qp import ARGUMENTS, QP
from ..problems.solution import Solution
from ..solvers.common.active_set import active_set
from ..solvers.common.cache import SolverCache, alone
from ..solvers.common.certificates import describe_infeasibility
from ..solvers.qp.adjoint import adjoint_stack
from ..solvers.qp.dense import DenseSolver
from ..solvers.qp.smoothed import smoothed_adjoint
from ..solvers.registry import AUTO, get_solver
from .arguments import Arguments
from .base import SolverLayer
from .function import Call, Pair, Solved, solved_batch
from .items import Batch
from .qp_second_order import qp_pairing
from .qp_single import solve_single
from .second_order import Grads, Tensors, refuse_second, refuse_sparse
from .transforms import eager

# P of one problem: dense, a vector for its diagonal, sparse, or (B, d) for B Bᵀ + diag(d).
Quadratic = Tensor | tuple[Tensor, Tensor]


class QPLayer(SolverLayer):
    """min ½ zᵀPz + qᵀz  s.t.  Az = b,  Gz ≤ h,  lb ≤ z ≤ ub, differentiable in all of them.

    Parameters
    ----------
    forward : forward solver by name; see :func:`~bpqp_portfolio.available_solvers`. "auto" chooses
        by structure and size (:func:`bpqp_portfolio.solvers.auto.choose`), and asks a second solver
        where the first does not reach ``tolerance``.
    backward : "kkt" for the direct solve of the backward QP, "auto" for the same with the factors
        that the forward solver left, if it did; or a forward solver's name. Every pair works.
    tolerance : scaled KKT norm to reach, of the forward point and of an iterative backward. It is
        free of all units (:func:`~bpqp_portfolio.problems.kkt_residuals`), and a point is solved
        only where it is that of an active set, to tolerance / 100.
    max_iterations, on_failure, options : see :class:`~bpqp_portfolio.layers.base.SolverLayer`.
    smoothing : κ ≥ 0, in units of the objective. Above 0 the gradient is that of the point with
        λᵢ·slackᵢ = κ (also for bounds) in place of the solution's, whose active set κ → 0 recovers;
        then ``backward`` is not used. The forward result is the same.
    ridge : ε ≥ 0, adds ε‖z‖² to the objective: a linear program (P = None) then has one solution
        and a gradient in q. ``Solution.ridge`` says what it adds at z.

    Raises
    ------
    ConfigError
        An unknown solver or setting.
    SolverNotInstalledError
        A known solver whose package is missing.

    Notes
    -----
    The module has no parameters and keeps nothing between calls. Solving is in float64 on the CPU;
    results have the dtype and device of the inputs. Gradients are exact where the active set is
    locally constant; a weakly active constraint is differentiated as inactive. Where active ones
    depend on each other, inequalities give way
    (:mod:`bpqp_portfolio.solvers.common.redundant_rows`), and the gradient is a derivative for one
    side; flat directions count in the least-norm sense (:mod:`bpqp_portfolio.solvers.common.kkt`),
    so a gradient is never NaN. With create_graph gradients are differentiable themselves, where
    active constraints are independent, and not with smoothing or in sparse arguments; they then
    cost dense solves of torch's. Items of a batch are solved on as many threads as torch may use.

    Examples
    --------
    The point of the simplex nearest to (1, 1.5), and how it moves with −q.

    >>> import torch
    >>> import bpqp_portfolio as bp
    >>> q = torch.tensor([-1.0, -1.5], requires_grad=True)
    >>> simplex = {"A": torch.ones(1, 2), "b": torch.ones(1), "lb": torch.zeros(2)}
    >>> solution = bp.QPLayer().solve(torch.eye(2), q, **simplex)
    >>> solution.z
    tensor([0.2500, 0.7500], grad_fn=<SolveFunctionBackward>)
    >>> solution.status.name
    'SOLVED'
    >>> solution.z[0].backward()
    >>> q.grad
    tensor([-0.5000,  0.5000])

    References
    ----------
    arXiv:2411.19285, Theorem 1; smoothing: K. Tracy and Z. Manchester, On the differentiability of
    the primal-dual interior-point method, 2024.
    """

    def __init__(
        self,
        forward: str = "auto",
        backward: str = "auto",
        *,
        tolerance: float = 1e-8,
        max_iterations: int | None = None,
        on_failure: str = "raise",
        options: Mapping[str, Any] | None = None,
        smoothing: float = 0.0,
        ridge: float = 0.0,
    ) -> None:
        super().__init__(forward, backward, tolerance, max_iterations, on_failure, options)
        check_number(smoothing, "smoothing", low=0)
        check_number(ridge, "ridge", low=0)
        self.smoothing, self.ridge = smoothing, ridge
        self._methods = self.methods(get_solver(forward))
        # Where these would be chosen the short way is theirs.
        plain = backward == AUTO and not (smoothing or ridge or options or max_iterations)
        self._short = forward in (AUTO, DenseSolver.name) and plain

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, smoothing={self.smoothing:g}"

    @eager
    def solve(
        self,
        P: Quadratic | None,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
        lb: Tensor | None = None,
        ub: Tensor | None = None,
        *,
        cache: SolverCache | None = None,
    ) -> Solution:
        """The primal-dual solution; z, nu, lam, lam_lb and lam_ub carry gradients.

        Parameters
        ----------
        P : (..., n, n) symmetric, its gradient is symmetric; or (..., n), a diagonal; or a sparse
            COO or CSR tensor (n, n), with a gradient on its pattern; or the pair B (..., n, k),
            d (..., n) ≥ 0 for B Bᵀ + diag(d), which is never formed where that saves work; or
            None, 0. A batch of diagonals (T, n) is one only where T ≠ n and another argument has
            these batch dimensions too; else write it as a pair with k = 0.
        q, lb, ub : (..., n); bounds may be infinite.
        A : (..., p, n) or sparse, b : (..., p), G : (..., m, n) or sparse, h : (..., m), plus
            infinity where a row has no limit (its multiplier and gradients are then zero).
            Every leading batch shape broadcasts with the others.
        cache : keeps factorisations and the last solutions for the next call with it.

        Returns
        -------
        Solution of tensors; ``status`` is a :class:`~bpqp_portfolio.SolveStatus`, or for a batch an
        object array of them, and ``solver`` likewise.

        Raises
        ------
        ProblemError
            Wrong shapes; where failures raise also bad values (NaN, lb > ub, P not symmetric),
            naming argument and item.
        SolverError
            Where failures raise, one for all items that were not solved, with the constraints that
            contradict each other where that is the reason.
        """
        if self._short and cache is None and lb is None and ub is None:
            found = solve_single((P, q, A, b, G, h), self.tolerance)
            if found is not None:
                return found
        values = dict(zip(ARGUMENTS, (P, q, A, b, G, h, lb, ub), strict=True))
        given = Arguments.of(values)
        batch = Batch.of(given.tensors, given.trailing)
        _refuse_wide(given, batch)
        own = given, self.backward_name == AUTO, self.smoothing, self.ridge
        call = _Call("QPLayer", batch, self.raises, self._methods, cache, *own)
        with alone(cache):
            solution: Solution = solved_batch(call, tuple(given.tensors.values()))
        if not self.ridge:
            return solution
        return replace(solution, ridge=self.ridge * (solution.z.detach() ** 2).sum(-1))


def _refuse_wide(given: Arguments, batch: Batch) -> None:
    """Refuse a P of shape (T, n) where nothing else says that there are T problems."""
    P = given.tensors.get("P")
    if P is None or P.ndim == 1 or given.given[0].kind != "diagonal":
        return
    others = {name: tensor for name, tensor in given.tensors.items() if name != "P"}
    if Batch.of(others, given.trailing).shape != batch.shape:
        n = P.shape[-1]
        raise ProblemError(
            f"P: expected shape (..., {n}, {n}), or (..., {n}) for diagonals with batch dimensions "
            f"that another argument has too, got {tuple(P.shape)}. For diagonals of its own pass "
            f"the pair (B, d), with B of shape ({n}, 0) and this as d."
        )


@dataclass(frozen=True)
class _Call(Call):
    """One call of a QP layer."""

    arguments: Arguments
    reuse: bool
    smoothing: float
    ridge: float

    @property
    def widths(self) -> tuple[int, ...]:
        n, p, m = self.arguments.sizes
        return n, p, m, n, n

    def problems(self, tensors: Tensors) -> tuple[dict[int, QP], dict[int, ProblemError]]:
        n, ridge = self.arguments.sizes[0], self.ridge
        flat = FactorMatrix(np.zeros((n, 0)), np.full(n, 2 * ridge))
        change = partial(_with_ridge, ridge=ridge) if ridge else None
        return self.arguments.programs(self.batch, lambda _, qp: qp, flat, change)

    def conflict(self, problem: QP, solution: Solution) -> str:
        return describe_infeasibility(problem, solution)

    def gradients(
        self, solved: Solved, tensors: Tensors, wanted: Sequence[bool], grads: Grads
    ) -> list[Tensor | None]:
        items = np.array(list(solved))
        problems, solutions = map(list, zip(*solved.values(), strict=True))
        incoming = [
            np.zeros((len(items), k)) if g is None else self.batch.rows(g)[items]
            for g, k in zip(grads, self.widths, strict=True)
        ]
        if self.smoothing:
            found = smoothed_adjoint(
                problems, solutions, incoming, smoothing=self.smoothing, throw=self.raises
            )
        else:
            found = adjoint_stack(
                problems, solutions, incoming, **self.methods.adjoint, reuse=self.reuse
            )
        pairs = zip(wanted, tensors, strict=True)
        return self.arguments.gradients(found, items, self.batch, problems, pairs)

    def refuse_second(self, wanted: Sequence[bool]) -> None:
        if self.smoothing:
            refuse_second("QPLayer with smoothing", "of a relaxed solution")
        refuse_sparse(self.layer, self.arguments.kinds, wanted)

    def pairing(
        self, item: int, solved: Pair, own: Tensors, seen: Tensors, point: Tensors, rates: Grads
    ) -> Tensor:
        values = [self.arguments.dense_item(iter(t), self.batch, item) for t in (own, seen)]
        ridge = 2 * self.ridge
        if ridge:
            eye = ridge * torch.eye(self.arguments.sizes[0], dtype=torch.float64)
            for each in values:
                each["P"] = eye + each["P"] if "P" in each else eye
        return qp_pairing(values[0], values[1], active_set(*solved), point, rates, self.title(item))


def _with_ridge(P: Any, ridge: float) -> Any:
    if isinstance(P, FactorMatrix):
        return replace(P, d=P.d + 2 * ridge)
    if isinstance(P, np.ndarray):
        return P + 2 * ridge * np.eye(len(P))
    return sparse.csr_array(P + 2 * ridge * sparse.eye_array(P.shape[0]))
