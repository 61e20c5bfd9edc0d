"""The reference problems themselves: their answers satisfy the problems."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.problems import reference_problems

REFERENCES = reference_problems()


def test_names_are_unique():
    assert len({r.name for r in REFERENCES}) == len(REFERENCES)


@pytest.mark.parametrize(
    "reference", [r for r in REFERENCES if r.z is not None], ids=lambda r: r.name
)
def test_the_known_point_is_feasible_and_no_feasible_neighbour_is_better(reference):
    problem, z = reference.problem, reference.z
    np.testing.assert_allclose(problem.A @ z, problem.b, rtol=0, atol=1e-12)
    assert (problem.G @ z <= problem.h + 1e-9).all()
    assert (problem.lb <= z).all() and (z <= problem.ub).all()
    assert reference.objective == pytest.approx(problem.objective(z), abs=1e-12)

    rng = np.random.default_rng(0)
    projection = np.eye(problem.n) - np.linalg.pinv(problem.A) @ problem.A
    others = z + rng.normal(scale=0.1, size=(20_000, problem.n)) @ projection
    others[:, problem.lb == problem.ub] = z[problem.lb == problem.ub]
    inside = (others @ problem.G.T <= problem.h).all(1)
    inside &= (others >= problem.lb).all(1) & (others <= problem.ub).all(1)
    assert inside.any()
    values = [problem.objective(other) for other in others[inside][:500]]
    assert all(value >= reference.objective - 1e-9 for value in values)
