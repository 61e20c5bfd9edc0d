"""The autograd function of the layers: a batch solved, and its backward QPs.

Every item of a batch is a program of its own with a solution (z, duals). Its vector-Jacobian
product is the solution of one equality-constrained QP on the active constraints (arXiv:2411.19285,
Theorem 1), which a :class:`Call` solves. With create_graph that QP is solved once more by torch's
operations (:mod:`.second_order`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProblemError
from ..problems.matrices import Array
from ..problems.solution import Solution, SolveStatus
from ..solvers.common.cache import SolverCache
from ..solvers.common.parallel import solve_parallel
from .base import Methods
from .items import Batch
from .second_order import Grads, Known, Tensors, pulled, reopened
from .transforms import refuse_forward_mode, refuse_transforms

# A program and its solution; of each item that has a usable point.
Pair = tuple[Any, Any]
Solved = Mapping[int, Pair]


@dataclass(frozen=True)
class Call(ABC):
    """What one call of a layer is about, besides the tensors.

    ``layer`` is the layer's name, for messages; ``raises`` says whether a failed item is an error;
    ``widths`` are the entries of an item's z and duals.
    """

    layer: str
    batch: Batch
    raises: bool
    methods: Methods
    cache: SolverCache | None

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Entries of an item's z and of each of its duals."""

    @abstractmethod
    def problems(self, tensors: Tensors) -> tuple[dict[int, Any], dict[int, ProblemError]]:
        """The items' programs, and what is wrong with the data of those that have none."""

    def solutions(self, problems: Mapping[int, Any]) -> list[Any]:
        """The solutions of ``problems``, in their order."""
        solver, options = self.methods.forward, self.methods.forward_options
        entries = [self.cache.entry(solver.name, i) for i in problems] if self.cache else None
        return solve_parallel(solver, list(problems.values()), options=options, entries=entries)

    @abstractmethod
    def conflict(self, problem: Any, solution: Any) -> str:
        """Which constraints of an unsolved program contradict each other, or nothing."""

    @abstractmethod
    def gradients(
        self, solved: Solved, tensors: Tensors, wanted: Sequence[bool], grads: Grads
    ) -> list[Tensor | None]:
        """Gradients in the ``wanted`` tensors, from those in z and the duals (*batch, width)."""

    @abstractmethod
    def pairing(
        self, item: int, solved: Pair, own: Tensors, seen: Tensors, point: Tensors, rates: Grads
    ) -> Tensor:
        """The scalar of one item that :func:`~.second_order.pairing` describes."""

    @abstractmethod
    def refuse_second(self, wanted: Sequence[bool]) -> None:
        """Raise where the call has no second derivatives in the ``wanted`` tensors."""

    def title(self, item: int) -> str:
        """The layer and the item, for messages."""
        return f"{self.layer}, {self.batch.label(item)}".rstrip(" :,")

    def accepted(self, status: Array) -> Array:
        """Statuses as they are judged where failures raise."""
        return status


def solved_batch(call: Call, tensors: Tensors, kind: type[Solution] = Solution) -> Any:
    """The Solution of a batch, whose z and duals carry gradients to ``tensors``.

    Raises
    ------
    ProblemError
        Where failures raise, for the first item with bad data.
    SolverError
        Where failures raise, one for all items that were not solved.
    """
    *points, norm, count, status, solver, message = SolveFunction.apply(call, *tensors)
    # A program without bounds as such has no duals of them.
    points += [torch.zeros_like(points[0])] * (5 - len(points))
    z, nu, lam, lam_lb, lam_ub, *cones = points
    rest: dict[str, Any] = {"cone_duals": tuple(cones)} if cones else {}
    return kind(z, nu, lam, lam_lb, lam_ub, status, norm, count, solver, message=message, **rest)


class SolveFunction(torch.autograd.Function):
    """Solve a :class:`Call`; see :func:`solved_batch`."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> Any:  # type: ignore[override]
        """z and duals, KKT norms, iterations, statuses, solvers, messages.

        Raises
        ------
        ProblemError, SolverError
            As :func:`solved_batch`.
        """
        batch = call.batch
        # Step 1: a program of each item; bad data are the item's own.
        problems, refused = call.problems(tensors)
        if call.raises and refused:
            item = min(refused)
            error = refused[item]
            raise type(error)(f"{batch.label(item)}{error}") from error
        norms = np.full(batch.items, np.nan)
        iterations = np.zeros(batch.items, dtype=np.int64)
        status = np.full(batch.items, SolveStatus.BAD_DATA, dtype=object)
        names = np.full(batch.items, call.methods.forward.name, dtype=object)
        messages = {item: str(error) for item, error in refused.items()}
        reasons: dict[int, str] = {}
        solved: dict[int, tuple[Any, Any]] = {}
        # Step 2: solutions, and what became of each.
        found = call.solutions(problems)
        for (item, problem), solution in zip(problems.items(), found, strict=True):
            status[item], norms[item] = solution.status, solution.kkt_norm
            iterations[item], names[item] = solution.iterations, solution.solver
            if solution.status.usable:
                solved[item] = problem, solution
            elif call.raises:
                reasons[item] = solution.message or call.conflict(problem, solution)
            if solution.message:
                messages[item] = solution.message
        if call.raises:
            batch.raise_failures(call.methods.forward.name, call.accepted(status), norms, reasons)
        # Step 3: outputs, and what the backward needs.
        ctx.call, ctx.solved = call, solved
        ctx.set_materialize_grads(False)
        # Not read back as numbers, but torch then notices an argument changed in place.
        ctx.save_for_backward(*tensors)
        norm, count = batch.tensor(norms, torch.float64), batch.tensor(iterations, torch.int64)
        ctx.mark_non_differentiable(norm, count)
        solver = names[0] if len(set(names)) == 1 else batch.statuses(names)
        rest = batch.statuses(status), solver, batch.messages(messages)
        return (*_points(call, solved), norm, count, *rest)

    jvp = refuse_forward_mode()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        call: Call = ctx.call
        refuse_transforms(call.layer, grads)
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if not ctx.solved:
            return (None, *map(torch.zeros_like, tensors))
        grads = grads[: len(call.widths)]
        if torch.is_grad_enabled():
            return (None, *_again(call, ctx.solved, tensors, wanted, grads))
        return (None, *call.gradients(ctx.solved, tensors, wanted, grads))


def _points(call: Call, solved: Solved) -> list[Tensor]:
    """z and the duals of a call's items, NaN for those that are not solved."""
    parts = [np.full((call.batch.items, k), np.nan) for k in call.widths]
    for item, (_, s) in solved.items():
        fields = (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub, *getattr(s, "cone_duals", ()))
        for part, value in zip(parts, fields, strict=False):
            part[item] = value
    return [call.batch.tensor(part) for part in parts]


def _again(
    call: Call, solved: Solved, tensors: Tensors, wanted: Sequence[bool], grads: Grads
) -> list[Tensor | None]:
    """The gradients as differentiable functions of everything; see :mod:`.second_order`."""
    batch = call.batch
    call.refuse_second(wanted)
    points = tuple(_points(call, solved))
    known = Known({"call": call, "solved": solved}, points, SolveFunction.backward)
    again, views, seen = reopened(known, tensors, wanted)
    rows = [batch.float64_rows(v) for v in again]
    rates = [batch.float64_rows(g) for g in grads]
    total = torch.zeros((), dtype=torch.float64)
    for item, pair in solved.items():
        point = [p[item] for p in rows if p is not None]
        rate = [None if g is None else g[item] for g in rates]
        total = total + call.pairing(item, pair, tensors, seen, point, rate)
    return pulled(total, views)
