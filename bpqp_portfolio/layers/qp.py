"""The differentiable QP layer: any forward solver, any backward QP, one autograd function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..config import check_number
from ..errors import ProblemError
from ..problems.matrices import FactorMatrix
from ..problems.qp import ARGUMENTS, QP, all_sound, check_argument, check_shapes
from ..problems.solution import Solution, SolveStatus
from ..solvers.common.active_set import active_set
from ..solvers.common.cache import SolverCache, alone
from ..solvers.common.certificates import conflict
from ..solvers.common.parallel import blas_for, solve_parallel
from ..solvers.common.protocol import Solver, SolverOptions
from ..solvers.qp.adjoint import adjoint_stack
from ..solvers.qp.dense import DenseSolver
from ..solvers.qp.smoothed import smoothed_adjoint
from ..solvers.registry import AUTO, get_backward, get_solver
from .arguments import Argument
from .base import SolverLayer
from .items import Batch
from .qp_second_order import qp_pairing
from .qp_single import solve_single
from .second_order import Known, pulled, refuse_second, refuse_sparse, view
from .transforms import eager, refuse_forward_mode, refuse_transforms

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
    max_iterations : of the forward solver; None for its own limit.
    on_failure : "raise", or "nan": a failed item is NaN with its status and gets zero gradient, an
        inaccurate one is kept, and the other items are untouched.
    options : further settings of the forward solver, by its own names.
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
        self._methods = _Methods(
            solver=get_solver(forward),
            options=self.forward_options(),
            backward=get_backward(backward),
            backward_options=self.backward_options(),
            reuse=backward == AUTO,
            smoothing=smoothing,
            ridge=ridge,
        )
        # Where these would be chosen the short way is theirs.
        plain = backward == AUTO and not (smoothing or ridge or options or max_iterations)
        self._short = forward in (AUTO, DenseSolver.name) and plain

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, smoothing={self.smoothing:g}"

    def forward(
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
    ) -> Tensor:
        """The minimiser z (..., n); see :meth:`solve`."""
        return self.solve(P, q, A, b, G, h, lb, ub, cache=cache).z

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
        n = int(q.shape[-1]) if isinstance(q, Tensor) and q.ndim else None
        given = [Argument.of(k, v, n) for k, v in values.items() if v is not None]
        shapes = {argument.name: argument.shape for argument in given}
        sizes = check_shapes({"P": None if n is None else (n, n), **shapes})
        tensors = {
            label: tensor for a in given for label, tensor in zip(a.names, a.tensors, strict=True)
        }
        trailing = {
            label: 1 if a.kind == "sparse" else k
            for a in given
            for label, k in zip(a.names, a.trailing, strict=True)
        }
        batch = Batch.of(tensors, trailing)
        _refuse_wide(given, batch, tensors, trailing)
        call = _Call(self._methods, self.raises, batch, sizes, given, cache, self.forward_name)
        with alone(cache):
            z, nu, lam, lam_lb, lam_ub, norm, count, status, solver, said = _QPFunction.apply(
                call, *tensors.values()
            )
        ridge = self.ridge * (z.detach() ** 2).sum(-1) if self.ridge else None
        parts = (z, nu, lam, lam_lb, lam_ub, status, norm, count, solver)
        return Solution(*parts, ridge=ridge, message=said)


def _refuse_wide(
    given: list[Argument],
    batch: Batch,
    tensors: Mapping[str, Tensor],
    trailing: Mapping[str, int],
) -> None:
    """Refuse a P of shape (T, n) where nothing else says that there are T problems."""
    P = tensors.get("P")
    if P is None or P.ndim == 1 or given[0].kind != "diagonal":
        return
    others = {name: tensor for name, tensor in tensors.items() if name != "P"}
    if Batch.of(others, trailing).shape != batch.shape:
        n = P.shape[-1]
        raise ProblemError(
            f"P: expected shape (..., {n}, {n}), or (..., {n}) for diagonals with batch dimensions "
            f"that another argument has too, got {tuple(P.shape)}. For diagonals of its own pass "
            f"the pair (B, d), with B of shape ({n}, 0) and this as d."
        )


@dataclass(frozen=True)
class _Methods:
    """How a layer solves forward and backward; ``backward`` None is the direct KKT solve."""

    solver: Solver
    options: SolverOptions
    backward: Solver | None
    backward_options: SolverOptions
    reuse: bool
    smoothing: float
    ridge: float


@dataclass(frozen=True)
class _Call:
    """What one call of a layer is about, besides the tensors."""

    methods: _Methods
    raises: bool
    batch: Batch
    sizes: tuple[int, int, int]
    arguments: list[Argument]
    cache: SolverCache | None
    name: str

    def problems(self) -> tuple[dict[int, QP], dict[int, ProblemError]]:
        """The items' problems, and what is wrong with those that are none."""
        n = self.sizes[0]
        refused: dict[int, ProblemError] = {}
        columns: list[tuple[str, list[Any]]] = []
        for argument in self.arguments:
            own, places = argument.own_items(self.batch)
            sound = argument.kind == "dense" and all_sound(argument.name, argument.stacked())
            checked: list[Any] = list(own) if sound else []
            for position, value in enumerate(() if sound else own):
                try:
                    checked.append(check_argument(argument.name, value))
                except ProblemError as error:
                    checked.append(None)
                    for item in np.flatnonzero(places == position).tolist():
                        refused.setdefault(item, error)
            if argument.name == "P" and self.methods.ridge:
                checked = [
                    None if P is None else _with_ridge(P, self.methods.ridge) for P in checked
                ]
            columns.append((argument.name, [checked[place] for place in places]))
        if all(name != "P" for name, _ in columns):
            P = FactorMatrix(np.zeros((n, 0)), np.full(n, 2 * self.methods.ridge))
            columns.append(("P", [P] * self.batch.items))
        problems: dict[int, QP] = {}
        for item in range(self.batch.items):
            if item in refused:
                continue
            try:
                problems[item] = QP.of_checked(n, {name: own[item] for name, own in columns})
            except ProblemError as error:
                refused[item] = error
        return problems, refused


def _with_ridge(P: Any, ridge: float) -> Any:
    if isinstance(P, FactorMatrix):
        return replace(P, d=P.d + 2 * ridge)
    if isinstance(P, np.ndarray):
        return P + 2 * ridge * np.eye(len(P))
    return sparse.csr_array(P + 2 * ridge * sparse.eye_array(P.shape[0]))


class _QPFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Any:  # type: ignore[override]
        batch, methods = call.batch, call.methods
        problems, refused = call.problems()
        if call.raises and refused:
            item = min(refused)
            raise ProblemError(f"{batch.label(item)}{refused[item]}") from refused[item]
        entries = [call.cache.entry(call.name, i) for i in problems] if call.cache else None
        found = solve_parallel(
            methods.solver, list(problems.values()), options=methods.options, entries=entries
        )
        norms = np.full(batch.items, np.nan)
        iterations = np.zeros(batch.items, dtype=np.int64)
        status = np.full(batch.items, SolveStatus.BAD_DATA, dtype=object)
        names = np.full(batch.items, call.name, dtype=object)
        conflicts: dict[int, str] = {}
        said = {item: str(error) for item, error in refused.items()}
        solved: list[tuple[int, QP, Solution]] = []
        for (item, problem), solution in zip(problems.items(), found, strict=True):
            status[item], norms[item] = solution.status, solution.kkt_norm
            iterations[item], names[item] = solution.iterations, solution.solver
            if solution.status.usable:
                solved.append((item, problem, solution))
            elif call.raises:
                conflicts[item] = solution.message or conflict(problem, solution)
            if solution.message:
                said[item] = solution.message
        if call.raises:
            batch.raise_failures(call.name, status, norms, conflicts)
        ctx.call, ctx.solved = call, solved
        ctx.set_materialize_grads(False)
        # Not read back as numbers, but torch then notices an argument changed in place.
        ctx.save_for_backward(*tensors)
        points = _points(call, solved)
        norm = batch.tensor(norms, torch.float64)
        count = batch.tensor(iterations, torch.int64)
        ctx.mark_non_differentiable(norm, count)
        solver = names[0] if len(set(names)) == 1 else batch.statuses(names)
        return (*points, norm, count, batch.statuses(status), solver, batch.messages(said))

    jvp = refuse_forward_mode("QPLayer")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        refuse_transforms("QPLayer", grads)
        call: _Call = ctx.call
        batch, methods = call.batch, call.methods
        n, p, m = call.sizes
        tensors = ctx.saved_tensors
        if not ctx.solved:
            return (None, *(torch.zeros_like(t) for t in tensors))
        if torch.is_grad_enabled():
            return (None, *_again(call, ctx.solved, tensors, ctx.needs_input_grad[1:], grads))
        items = np.array([item for item, _, _ in ctx.solved])
        problems = [problem for _, problem, _ in ctx.solved]
        solutions = [solution for _, _, solution in ctx.solved]
        incoming = [
            np.zeros((len(items), k)) if g is None else batch.rows(g)[items]
            for g, k in zip(grads[:5], (n, p, m, n, n), strict=True)
        ]
        if methods.smoothing:
            found = smoothed_adjoint(
                problems, solutions, incoming, kappa=methods.smoothing, throw=call.raises
            )
        else:
            found = adjoint_stack(
                problems,
                solutions,
                incoming,
                solver=methods.backward,
                options=methods.backward_options,
                reuse=methods.reuse,
            )
        out: list[Tensor | None] = []
        wanted = iter(ctx.needs_input_grad[1:])
        saved = iter(tensors)
        for argument in call.arguments:
            own = [(next(wanted), next(saved)) for _ in argument.tensors]
            if not any(want for want, _ in own):
                out += [None] * len(own)
                continue
            with blas_for(n * n):
                arrays = argument.gradients(found, items, batch, problems)
            for (want, tensor), array in zip(own, arrays, strict=True):
                grad = torch.from_numpy(array).reshape(tensor.shape).to(tensor) if want else None
                out.append(grad)
        return (None, *out)


def _points(call: _Call, solved: Sequence[tuple[int, QP, Solution]]) -> list[Tensor]:
    """z, ν, λ, λ_lb and λ_ub of a call's items, NaN for those that are not solved."""
    n, p, m = call.sizes
    parts = [np.full((call.batch.items, k), np.nan) for k in (n, p, m, n, n)]
    for item, _, s in solved:
        for part, value in zip(parts, (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub), strict=True):
            part[item] = value
    return [call.batch.tensor(part) for part in parts]


def _again(
    call: _Call,
    solved: Sequence[tuple[int, QP, Solution]],
    tensors: Sequence[Tensor],
    wanted: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients as differentiable functions of everything; see :mod:`.second_order`."""
    batch, methods = call.batch, call.methods
    if methods.smoothing:
        refuse_second("QPLayer with smoothing", "of a relaxed solution")
    refuse_sparse("QPLayer", [a.kind for a in call.arguments for _ in a.tensors], wanted)
    known = Known(
        {"call": call, "solved": solved}, tuple(_points(call, solved)), _QPFunction.backward
    )
    points = [batch.float64_rows(v) for v in known.again(*tensors)]
    rates = [batch.float64_rows(g) for g in grads[:5]]
    views = [view(t, w) for t, w in zip(tensors, wanted, strict=True)]
    seen = [t if v is None else v for t, v in zip(tensors, views, strict=True)]
    total = torch.zeros((), dtype=torch.float64)
    for item, problem, solution in solved:
        own: dict[str, Tensor] = {}
        same: dict[str, Tensor] = {}
        for values, given in ((own, tensors), (same, seen)):
            rest = iter(given)
            for argument in call.arguments:
                parts = [next(rest) for _ in argument.tensors]
                values[argument.name] = argument.dense_item(parts, batch, item)
            if methods.ridge:
                eye = 2 * methods.ridge * torch.eye(call.sizes[0], dtype=torch.float64)
                values["P"] = eye + values["P"] if "P" in values else eye
        point = [p[item] for p in points if p is not None]
        rate = [None if g is None else g[item] for g in rates]
        active = active_set(problem, solution)
        label = f"QPLayer, {batch.label(item)}".rstrip(" :,")
        total = total + qp_pairing(own, same, active, point, rate, label)
    return pulled(total, views)
