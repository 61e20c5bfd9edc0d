"""Clarabel on cone programs: a primal-dual interior-point method on the homogeneous embedding.

P. J. Goulart and Y. Chen, Clarabel: an interior-point solver for conic programs with quadratic
objectives, 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import clarabel
import numpy as np

from ...problems.socp import SOCP, SOCPSolution
from ..common.native import native
from ..common.protocol import SolverOptions
from ..qp.clarabel import SETTINGS, claimed, to_native_settings
from .base import ConeSolver
from .finalize import finalize
from .standard_form import ConicForm


@dataclass(frozen=True)
class ConicClarabel(ConeSolver):
    """P. J. Goulart and Y. Chen, Clarabel: an interior-point solver for conic programs, 2024."""

    name: str = "clarabel"
    settings: tuple[str, ...] = SETTINGS

    def cold(self, problem: SOCP, options: SolverOptions) -> SOCPSolution:
        settings = to_native_settings(options)
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
        claim = claimed(result.status)
        if claim is not None:
            return form.infeasible(claim, x, y, count, self.name)
        return finalize(
            problem, form.point(x, y), iterations=count, solver=self.name, options=options
        )
