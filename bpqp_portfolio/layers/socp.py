"""The differentiable cone layer: linear or quadratic objectives under second-order cones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ProblemError
from ..problems.qp import ARGUMENTS
from ..problems.socp import SOCP, SOCPSolution, linear
from ..solvers.common.cache import SolverCache, alone
from ..solvers.common.parallel import in_chunks
from ..solvers.conic.adjoint import ConeGradient, cone_adjoint
from ..solvers.conic.certificates import describe_infeasibility
from ..solvers.qp.adjoint import Adjoint
from ..solvers.registry import get_solver
from .arguments import Arguments
from .base import SolverLayer
from .cone_arguments import Cone, item_cones, read_cones
from .function import Call, Pair, Solved, solved_batch
from .items import Batch
from .second_order import Grads, Tensors, refuse_sparse
from .socp_second_order import ConeProgram, cone_pairing
from .socp_single import solve_single
from .transforms import eager


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
    tolerance, max_iterations, on_failure, options : see
        :class:`~bpqp_portfolio.layers.base.SolverLayer`.

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

    Examples
    --------
    The point of the unit ball that is least along q, −q / ‖q‖.

    >>> import torch
    >>> import bpqp_portfolio as bp
    >>> q = torch.tensor([3.0, 4.0])
    >>> bp.SOCPLayer()(None, q, cones=[(None, None, None, 1.0)])
    tensor([-0.6000, -0.8000])

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
        self._methods = self.methods(get_solver(forward, "cone"))

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
        P, q, A, b, G, h, lb, ub : as :meth:`bpqp_portfolio.QPLayer.solve` takes them; P is None for
            a linear objective.
        cones : a sequence of :class:`~bpqp_portfolio.SecondOrderCone` or tuples (F, g, c, d):
            F (..., r, n) or sparse, None for the identity; g (..., r) and c (..., n), None for 0;
            d (...), a number or a tensor.
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
        given = Arguments.of(values)
        tensors, trailing = dict(given.tensors), dict(given.trailing)
        read = read_cones(cones, q)
        for i, cone in enumerate(read):
            tensors |= {f"cones[{i}].{part}": tensor for part, tensor in cone.tensors.items()}
            trailing |= {f"cones[{i}].{part}": cone.trailing(part) for part in cone.tensors}
        batch = Batch.of(tensors, trailing)
        call = _Call("SOCPLayer", batch, self.raises, self._methods, cache, given, read)
        with alone(cache):
            return solved_batch(call, tuple(tensors.values()), SOCPSolution)


@dataclass(frozen=True)
class _Call(Call):
    """One call of a cone layer."""

    arguments: Arguments
    cones: list[Cone]

    @property
    def widths(self) -> tuple[int, ...]:
        n, p, m = self.arguments.sizes
        return n, p, m, n, n, *(cone.r + 1 for cone in self.cones)

    def problems(self, tensors: Tensors) -> tuple[dict[int, SOCP], dict[int, ProblemError]]:
        cones = item_cones(self.cones, self.batch)
        flat = linear(self.arguments.sizes[0])
        return self.arguments.programs(self.batch, lambda i, qp: SOCP(qp, cones[i]), flat)

    def conflict(self, problem: SOCP, solution: SOCPSolution) -> str:
        return describe_infeasibility(problem, solution)

    def gradients(
        self, solved: Solved, tensors: Tensors, wanted: Sequence[bool], grads: Grads
    ) -> list[Tensor | None]:
        batch, items, todo = self.batch, np.array(list(solved)), list(solved.items())
        incoming = [
            np.zeros((batch.items, k)) if g is None else batch.rows(g)
            for g, k in zip(grads[:5], self.widths, strict=False)
        ]
        on_cones = [None if g is None else batch.rows(g) for g in grads[5:]]

        def work(part: slice) -> list[tuple[Adjoint, list[ConeGradient]]]:
            return [
                cone_adjoint(
                    problem,
                    solution,
                    *(g[item] for g in incoming),
                    dcones=[None if g is None else g[item] for g in on_cones],
                    **self.methods.adjoint,
                )
                for item, (problem, solution) in todo[part]
            ]

        chunks = in_chunks(work, len(todo), todo[0][1][0].kkt_entries)
        found = [own for chunk in chunks for own, _ in chunk]
        cones = [own for chunk in chunks for _, own in chunk]
        stacked = Adjoint(*(np.stack([getattr(a, f.name) for a in found]) for f in fields(Adjoint)))
        problems = [problem.qp for problem, _ in solved.values()]
        pairs = zip(wanted, tensors, strict=True)
        out = self.arguments.gradients(stacked, items, batch, problems, pairs)
        for i, cone in enumerate(self.cones):
            mine = [one[i] for one in cones]
            for part in cone.tensors:
                want, tensor = next(pairs)
                own = cone.gradient(part, tensor, batch, items, mine, found) if want else None
                out.append(own)
        return out

    def refuse_second(self, wanted: Sequence[bool]) -> None:
        sparse = ["sparse" * c.is_sparse(part) for c in self.cones for part in c.tensors]
        refuse_sparse(self.layer, [*self.arguments.kinds, *sparse], wanted)

    def pairing(
        self, item: int, solved: Pair, own: Tensors, seen: Tensors, point: Tensors, rates: Grads
    ) -> Tensor:
        here, there = (self._program(iter(tensors), item) for tensors in (own, seen))
        return cone_pairing(here, there, *solved, point, rates, self.title(item))

    def _program(self, tensors: Iterator[Tensor], item: int) -> ConeProgram:
        """What ``item`` uses, dense, as functions of ``tensors``."""
        linear_part = self.arguments.dense_item(tensors, self.batch, item)
        cones = [cone.dense_item(tensors, self.batch, item) for cone in self.cones]
        return ConeProgram(linear_part, cones)
