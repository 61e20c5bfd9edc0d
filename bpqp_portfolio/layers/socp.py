"""The differentiable cone layer: linear or quadratic objectives under second-order cones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProblemError
from ..problems.qp import ARGUMENTS, QP, check_argument, check_shapes
from ..problems.socp import (
    SOCP,
    SecondOrderCone,
    SOCPSolution,
    check_cone_shapes,
    cone_parts,
    linear,
)
from ..problems.solution import SolveStatus
from ..solvers.common.cache import SolverCache, alone
from ..solvers.common.parallel import in_chunks, solve_parallel
from ..solvers.common.protocol import Solver, SolverOptions
from ..solvers.conic.adjoint import ConeGradient, cone_adjoint
from ..solvers.conic.standard_form import cone_conflict
from ..solvers.qp.adjoint import Adjoint
from ..solvers.registry import get_backward, get_solver
from .arguments import Argument, Pattern
from .base import SolverLayer
from .items import Batch, flat_array, flat_shape, float_shape, lead
from .second_order import Known, pulled, refuse_sparse, view
from .socp_second_order import ConeProgram, cone_pairing
from .socp_single import solve_single
from .transforms import eager, refuse_forward_mode, refuse_transforms

_TRAILING = {"F": 2, "g": 1, "c": 1, "d": 0}


class SOCPLayer(SolverLayer):
    """min ½ zᵀPz + qᵀz  s.t.  Az = b,  Gz ≤ h,  lb ≤ z ≤ ub,  ‖Fz + g‖₂ ≤ cᵀz + d for every cone.

    Differentiable in all of them.

    Parameters
    ----------
    forward : "auto", "interior" (this package's own, for few cones and dense data), "clarabel" or
        "scs". "auto" solves a ball in closed form, chooses by structure and size elsewhere
        (:func:`bpqp_portfolio.solvers.auto.choose_cones`), and asks another solver where the
        first did not reach ``tolerance``. ``Solution.solver`` says whose point it is.
    backward : "kkt" for the direct solve of the backward QP, which uses that the Hessian is
        diagonal plus low rank where it is ("auto" is the same), or a QP solver's name.
    tolerance : scaled KKT norm to reach, of the forward point and of an iterative backward.
    max_iterations : of the forward solver; None for its own limit.
    on_failure : "raise", or "nan": a failed item is NaN with its status and gets zero gradient, an
        inaccurate one is kept, and the other items are untouched.
    options : further settings of the forward solver, by its own names.

    Raises
    ------
    ConfigError
        An unknown solver or setting.
    SolverNotInstalledError
        A known solver whose package is missing.

    Notes
    -----
    The module has no parameters and keeps nothing between calls. Solving is in float64 on the CPU;
    results have the dtype and device of the inputs. Gradients are exact where the active
    constraints are locally constant. A cone at its apex stays there: r + 1 equalities. A weakly
    active constraint is differentiated as inactive, dependent ones as
    :mod:`bpqp_portfolio.solvers.common.redundant_rows` says, flat directions in the least-norm
    sense (:mod:`bpqp_portfolio.solvers.common.kkt`), so a gradient is never NaN. Second derivatives
    are there where active constraints are independent. Cones that share F and g (the same tensors,
    or None) cost one norm together. Items of a batch are solved on as many threads as torch may
    use.

    References
    ----------
    arXiv:2411.19285, Theorem 1 and its section on second-order cone programs.
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
    ) -> None:
        super().__init__(forward, backward, tolerance, max_iterations, on_failure, options)
        self._methods = _Methods(
            solver=get_solver(forward, "cone"),
            options=self.forward_options(),
            backward=get_backward(backward),
            backward_options=self.backward_options(),
        )

    def forward(
        self,
        P: Any,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
        lb: Tensor | None = None,
        ub: Tensor | None = None,
        *,
        cones: Sequence[Any],
        cache: SolverCache | None = None,
    ) -> Tensor:
        """The minimiser z (..., n); see :meth:`solve`."""
        return self.solve(P, q, A, b, G, h, lb, ub, cones=cones, cache=cache).z

    @eager
    def solve(
        self,
        P: Any,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
        lb: Tensor | None = None,
        ub: Tensor | None = None,
        *,
        cones: Sequence[Any],
        cache: SolverCache | None = None,
    ) -> SOCPSolution:
        """The primal-dual solution; z, nu, lam, lam_lb, lam_ub and cone_duals carry gradients.

        Parameters
        ----------
        P : None for a linear objective, else as :meth:`bpqp_portfolio.QPLayer.solve` takes it.
        q, lb, ub : (..., n); bounds may be infinite.
        cones : a sequence of :class:`~bpqp_portfolio.SecondOrderCone` or tuples (F, g, c, d):
            F (..., r, n) or sparse, None for the identity; g (..., r) and c (..., n), None for 0;
            d (...), a number or a tensor.
        A : (..., p, n) or sparse, b : (..., p), G : (..., m, n) or sparse, h : (..., m), plus
            infinity where a row has no limit (its multiplier and gradients are then zero).
            Every leading batch shape broadcasts with the others.
        cache : keeps the last solutions, from whose active sets the next call with it starts.

        Returns
        -------
        SOCPSolution of tensors; ``status`` is a :class:`~bpqp_portfolio.SolveStatus`, or for a
        batch an object array of them, and ``solver`` likewise.

        Raises
        ------
        ProblemError
            Wrong shapes; where failures raise also bad values (NaN, lb > ub, P not symmetric),
            naming argument and item.
        SolverError
            Where failures raise, one for all items that were not solved, with the constraints that
            contradict each other where that is the reason.
        """
        values = dict(zip(ARGUMENTS, (P, q, A, b, G, h, lb, ub), strict=True))
        with alone(cache):
            entry = None if cache is None else cache.entry(self.forward_name, 0)
            single = solve_single(self._methods, values, cones, entry)
        if single is not None:
            return single
        n = int(q.shape[-1]) if isinstance(q, Tensor) and q.ndim else None
        given = [Argument.of(k, v, n) for k, v in values.items() if v is not None]
        shapes = {argument.name: argument.shape for argument in given}
        sizes = check_shapes({"P": None if n is None else (n, n), **shapes})
        tensors, trailing = {}, {}
        for argument in given:
            for label, tensor, k in zip(
                argument.names, argument.tensors, argument.trailing, strict=True
            ):
                tensors[label] = tensor
                trailing[label] = 1 if argument.kind == "sparse" else k
        patterns: dict[int, Argument] = {}
        read = [_read_cone(i, cone, q, patterns) for i, cone in enumerate(cones)]
        for i, cone in enumerate(read):
            for part, tensor in cone.tensors.items():
                tensors[f"cones[{i}].{part}"] = tensor
                trailing[f"cones[{i}].{part}"] = cone.trailing(part)
        batch = Batch.of(tensors, trailing)
        call = _Call(
            self._methods, self.raises, batch, sizes, given, read, cache, self.forward_name
        )
        with alone(cache):
            out = _SOCPFunction.apply(call, *tensors.values())
        (z, nu, lam, lam_lb, lam_ub), (norm, count, status, solver, said) = out[:5], out[-5:]
        return SOCPSolution(
            z, nu, lam, lam_lb, lam_ub, status, norm, count, solver,
            message=said, cone_duals=tuple(out[5:-5]),
        )  # fmt: skip


@dataclass(frozen=True)
class _Methods:
    """How a layer solves forward and backward; ``backward`` None is the direct KKT solve."""

    solver: Solver
    options: SolverOptions
    backward: Solver | None
    backward_options: SolverOptions


@dataclass(frozen=True)
class _Cone:
    """One cone of a call: those of its parts that are tensors, r, and where a sparse F stands."""

    tensors: dict[str, Tensor]
    r: int
    pattern: Pattern | None = None

    def trailing(self, part: str) -> int:
        """How many dimensions of a part's tensor belong to one item."""
        return 1 if part == "F" and self.pattern is not None else _TRAILING[part]


def _read_cone(index: int, cone: Any, q: Tensor, patterns: dict[int, Argument]) -> _Cone:
    """Cone ``index``; ``patterns`` are the sparse F met so far, by identity."""
    parts = cone_parts(index, cone)._asdict()
    if isinstance(parts["d"], int | float):
        parts["d"] = torch.as_tensor(float(parts["d"]), dtype=q.dtype, device=q.device)
    F, pattern = parts["F"], None
    if isinstance(F, Tensor) and F.layout is not torch.strided:
        name = f"cones[{index}].F"
        if F.layout not in (torch.sparse_coo, torch.sparse_csr) or F.ndim != 2 or F.dense_dim():
            raise ProblemError(
                f"{name}: a sparse F is a single matrix in COO or CSR layout, without batch or "
                f"dense dimensions; got shape {tuple(F.shape)}, {F.layout}."
            )
        float_shape(name, F)
        if id(F) not in patterns:
            patterns[id(F)] = Argument.of("G", F)
        pattern, parts["F"] = patterns[id(F)].pattern, patterns[id(F)].tensors[0]
    shapes = {k: float_shape(f"cones[{index}].{k}", v) for k, v in parts.items()}
    if pattern is not None:
        shapes["F"] = pattern.shape
    r = check_cone_shapes(index, shapes, q.shape[-1])
    return _Cone({k: v for k, v in parts.items() if v is not None}, r, pattern)


@dataclass(frozen=True)
class _Call:
    """What one call of a layer is about, besides the tensors."""

    methods: _Methods
    raises: bool
    batch: Batch
    sizes: tuple[int, int, int]
    arguments: list[Argument]
    cones: list[_Cone]
    cache: SolverCache | None
    name: str

    def problems(self) -> tuple[dict[int, SOCP], dict[int, ProblemError]]:
        """The items' problems, and what is wrong with those that are none."""
        n, batch = self.sizes[0], self.batch
        columns = {a.name: a.own_items(batch) for a in self.arguments}
        # A tensor that several cones use is read once, so that its cones are known to be alike.
        seen: dict[int, list[Any]] = {}
        cones: list[dict[str, tuple[list[Any], np.ndarray]]] = []
        for cone in self.cones:
            parts = {}
            for part, tensor in cone.tensors.items():
                if id(tensor) not in seen:
                    own_items = list(flat_array(tensor, cone.trailing(part)))
                    if part == "F" and cone.pattern is not None:
                        own_items = [cone.pattern.matrix(values) for values in own_items]
                    seen[id(tensor)] = own_items
                place = batch.positions(lead(tensor, cone.trailing(part)))
                parts[part] = seen[id(tensor)], place
            cones.append(parts)
        problems: dict[int, SOCP] = {}
        refused: dict[int, ProblemError] = {}
        for item in range(batch.items):
            try:
                own = {k: check_argument(k, v[place[item]]) for k, (v, place) in columns.items()}
                own.setdefault("P", linear(n))
                items = ({k: v[place[item]] for k, (v, place) in parts.items()} for parts in cones)
                blocks = [SecondOrderCone(*map(p.get, SecondOrderCone._fields)) for p in items]
                problems[item] = SOCP(QP.of_checked(n, own), blocks)
            except ProblemError as error:
                refused[item] = error
        return problems, refused

    def program(self, tensors: Sequence[Tensor], item: int) -> ConeProgram:
        """What ``item`` uses, dense, as functions of ``tensors``."""
        rest = iter(tensors)
        linear_part, cones = {}, []
        for argument in self.arguments:
            own = [next(rest) for _ in argument.tensors]
            linear_part[argument.name] = argument.dense_item(own, self.batch, item)
        for cone in self.cones:
            parts: dict[str, Tensor] = {}
            for part in cone.tensors:
                tensor, k = next(rest), cone.trailing(part)
                place = int(self.batch.positions(lead(tensor, k))[item])
                if part == "F" and cone.pattern is not None:
                    at = torch.as_tensor(cone.pattern.rows), torch.as_tensor(cone.pattern.columns)
                    values = tensor.to("cpu", torch.float64)
                    own_F = values.new_zeros(cone.pattern.shape)
                    parts[part] = own_F.index_put(at, values, accumulate=True)
                else:
                    flat = tensor.reshape(flat_shape(tensor, k))
                    parts[part] = flat[place].to("cpu", torch.float64)
            cones.append((parts.get("F"), parts.get("g"), parts.get("c"), parts["d"]))
        return ConeProgram(linear_part, cones)


class _SOCPFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Any:  # type: ignore[override]
        batch, methods = call.batch, call.methods
        problems, refused = call.problems()
        if call.raises and refused:
            item = min(refused)
            raise ProblemError(f"{batch.label(item)}{refused[item]}") from refused[item]
        norms = np.full(batch.items, np.nan)
        iterations = np.zeros(batch.items, dtype=np.int64)
        status = np.full(batch.items, SolveStatus.BAD_DATA, dtype=object)
        names = np.full(batch.items, call.name, dtype=object)
        conflicts: dict[int, str] = {}
        said = {item: str(error) for item, error in refused.items()}
        solved: dict[int, tuple[SOCP, SOCPSolution]] = {}
        entries = [call.cache.entry(call.name, i) for i in problems] if call.cache else None
        every = solve_parallel(
            methods.solver, list(problems.values()), options=methods.options, entries=entries
        )
        for (item, problem), solution in zip(problems.items(), every, strict=True):
            status[item], norms[item] = solution.status, solution.kkt_norm
            iterations[item], names[item] = solution.iterations, solution.solver
            if solution.status.usable:
                solved[item] = problem, solution
            elif call.raises:
                conflicts[item] = solution.message or cone_conflict(problem, solution)
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
        words = batch.statuses(status), batch.statuses(names), batch.messages(said)
        return (*points, norm, count, *words)

    jvp = refuse_forward_mode("SOCPLayer")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        refuse_transforms("SOCPLayer", grads)
        call: _Call = ctx.call
        batch, methods, tensors = call.batch, call.methods, ctx.saved_tensors
        if not ctx.solved:
            return (None, *(torch.zeros_like(t) for t in tensors))
        if torch.is_grad_enabled():
            return (None, *_again(call, ctx.solved, tensors, ctx.needs_input_grad[1:], grads))
        n, p, m = call.sizes
        incoming = [
            np.zeros((batch.items, k)) if g is None else batch.rows(g)
            for g, k in zip(grads[:5], (n, p, m, n, n), strict=True)
        ]
        on_cones = [None if g is None else batch.rows(g) for g in grads[5 : 5 + len(call.cones)]]
        items = np.array(list(ctx.solved))
        todo = list(ctx.solved.items())

        def work(part: slice) -> list[tuple[Adjoint, list[ConeGradient]]]:
            return [
                cone_adjoint(
                    problem,
                    solution,
                    *(g[item] for g in incoming),
                    dcones=[None if g is None else g[item] for g in on_cones],
                    solver=methods.backward,
                    options=methods.backward_options,
                )
                for item, (problem, solution) in todo[part]
            ]

        chunks = in_chunks(work, len(todo), todo[0][1][0].kkt_entries)
        found = [own for chunk in chunks for own, _ in chunk]
        cones = [own for chunk in chunks for _, own in chunk]
        stacked = Adjoint(*(np.stack([getattr(a, f.name) for a in found]) for f in fields(Adjoint)))
        problems = [problem.qp for problem, _ in ctx.solved.values()]
        out: list[Tensor | None] = []
        wanted, saved = iter(ctx.needs_input_grad[1:]), iter(tensors)
        for argument in call.arguments:
            pairs = [(next(wanted), next(saved)) for _ in argument.tensors]
            if not any(want for want, _ in pairs):
                out += [None] * len(pairs)
                continue
            arrays = argument.gradients(stacked, items, batch, problems)
            for (want, tensor), array in zip(pairs, arrays, strict=True):
                out.append(_as(tensor, array) if want else None)
        for i, cone in enumerate(call.cones):
            mine = [one[i] for one in cones]
            for part in cone.tensors:
                want, tensor = next(wanted), next(saved)
                if not want:
                    out.append(None)
                    continue
                out.append(_as(tensor, _in_cone(cone, part, tensor, batch, items, mine, found)))
        return (None, *out)


def _points(call: _Call, solved: Mapping[int, tuple[SOCP, SOCPSolution]]) -> list[Tensor]:
    """z, ν, λ, λ_lb, λ_ub and the cones' duals, NaN for items that are not solved."""
    n, p, m = call.sizes
    sizes = [n, p, m, n, n, *(cone.r + 1 for cone in call.cones)]
    parts = [np.full((call.batch.items, k), np.nan) for k in sizes]
    for item, (_, s) in solved.items():
        fields = (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub, *s.cone_duals)
        for part, value in zip(parts, fields, strict=True):
            part[item] = value
    return [call.batch.tensor(part) for part in parts]


def _again(
    call: _Call,
    solved: Mapping[int, tuple[SOCP, SOCPSolution]],
    tensors: Sequence[Tensor],
    wanted: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients as differentiable functions of everything; see :mod:`.second_order`."""
    batch = call.batch
    kinds = [a.kind for a in call.arguments for _ in a.tensors]
    kinds += [
        "sparse" if part == "F" and cone.pattern is not None else "dense"
        for cone in call.cones
        for part in cone.tensors
    ]
    refuse_sparse("SOCPLayer", kinds, wanted)
    points = tuple(_points(call, solved))
    known = Known({"call": call, "solved": solved}, points, _SOCPFunction.backward)
    rows = [batch.float64_rows(v) for v in known.again(*tensors)]
    rates = [batch.float64_rows(g) for g in grads[: len(rows)]]
    views = [view(t, w) for t, w in zip(tensors, wanted, strict=True)]
    seen = [t if v is None else v for t, v in zip(tensors, views, strict=True)]
    total = torch.zeros((), dtype=torch.float64)
    for item, (problem, solution) in solved.items():
        own, same = (call.program(given, item) for given in (tensors, seen))
        point = [p[item] for p in rows if p is not None]
        rate = [None if g is None else g[item] for g in rates]
        what = f"SOCPLayer, {batch.label(item)}".rstrip(" :,")
        total = total + cone_pairing(own, same, problem, solution, point, rate, what)
    return pulled(total, views)


def _as(tensor: Tensor, array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).reshape(tensor.shape).to(tensor)


def _in_cone(
    cone: _Cone,
    part: str,
    tensor: Tensor,
    batch: Batch,
    items: np.ndarray,
    gradients: Sequence[ConeGradient],
    found: Sequence[Adjoint],
) -> np.ndarray:
    """Gradient in one part of a cone, summed over the items that share it."""
    trailing, at = cone.trailing(part), cone.pattern
    out = np.zeros(flat_shape(tensor, trailing))
    places = batch.positions(lead(tensor, trailing))[items]
    for place, own, a in zip(places, gradients, found, strict=True):
        if part == "F" and at is not None:
            out[place] += own.g[at.rows] * a.at_z[at.columns] - own.w[at.rows] * a.z[at.columns]
        elif part == "F":
            out[place] += np.outer(own.g, a.at_z) - np.outer(own.w, a.z)
        elif part == "c":
            out[place] += own.d * a.at_z - own.t * a.z
        else:
            out[place] += own.g if part == "g" else own.d
    return out
