"""Clarabel on cone programs: an interior-point method for conic programs."""

from __future__ import annotations

from dataclasses import dataclass

import clarabel
import numpy as np

from ...config import check_keys
from ...errors import ConfigError
from ...problems.socp import SOCP, SOCPSolution
from ...problems.solution import SolveStatus
from ..common.native import native
from ..common.protocol import SolverOptions
from .finalize import finish_cones
from .standard_form import ConicForm

_Status = clarabel.SolverStatus
# Its status objects do not hash.
_FAILURES = (
    (_Status.PrimalInfeasible, SolveStatus.PRIMAL_INFEASIBLE),
    (_Status.AlmostPrimalInfeasible, SolveStatus.PRIMAL_INFEASIBLE),
    (_Status.DualInfeasible, SolveStatus.DUAL_INFEASIBLE),
    (_Status.AlmostDualInfeasible, SolveStatus.DUAL_INFEASIBLE),
)


@dataclass(frozen=True)
class ConicClarabel:
    """P. J. Goulart and Y. Chen, Clarabel: an interior-point solver for conic programs, 2024."""

    name: str = "clarabel"

    def solve(
        self,
        problem: SOCP,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
    ) -> SOCPSolution:
        """Solve one problem; see :class:`~.standard_form.ConeSolver`."""
        settings = _settings(options)
        form = ConicForm.of(problem)
        cones = []
        if form.equalities:
            cones.append(clarabel.ZeroConeT(form.equalities))
        if form.inequalities:
            cones.append(clarabel.NonnegativeConeT(form.inequalities))
        cones += [clarabel.SecondOrderConeT(size) for size in form.cones]
        with native:
            model = clarabel.DefaultSolver(form.P, form.q, form.rows, form.rhs, cones, settings)
            result = model.solve()
        x, y, count = np.asarray(result.x), np.asarray(result.z), int(result.iterations)
        for status, meaning in _FAILURES:
            if result.status == status:
                return form.infeasible(meaning, x, y, count, self.name)
        return finish_cones(
            problem, form.point(x, y), iterations=count, solver=self.name, options=options
        )


def _settings(options: SolverOptions) -> clarabel.DefaultSettings:
    settings = clarabel.DefaultSettings()
    if options.native:
        known = [k for k in dir(settings) if not k.startswith("_")]
        check_keys(options.native, known, "clarabel")
    settings.verbose = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = options.eps
    if options.max_iterations is not None:
        settings.max_iter = options.max_iterations
    for key, value in options.native.items():
        try:
            setattr(settings, key, value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"clarabel: {key} = {value!r} is not accepted: {error}.") from error
    return settings
