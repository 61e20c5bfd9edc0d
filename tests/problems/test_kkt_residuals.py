"""KKT residuals: zero at a solution, free of scale, and each part sees its own violation."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from bpqp_portfolio.problems import QP, Solution, SolveStatus, kkt_residuals

# Projection of (2, 2, -1) on z₁ + z₂ ≤ 2, z₁ = z₂, z₃ ≥ 0.
DATA = {
    "P": np.eye(3),
    "q": np.array([-2.0, -2.0, 1.0]),
    "A": np.array([[1.0, -1.0, 0.0]]),
    "b": np.zeros(1),
    "G": np.array([[1.0, 1.0, 0.0]]),
    "h": np.array([2.0]),
    "lb": np.array([-np.inf, -np.inf, 0.0]),
    "ub": np.array([np.inf, 5.0, np.inf]),
}
POINT = {
    "z": np.array([1.0, 1.0, 0.0]),
    "nu": np.zeros(1),
    "lam": np.ones(1),
    "lam_lb": np.array([0.0, 0.0, 1.0]),
    "lam_ub": np.zeros(3),
}


def residuals(data=None, **changes):
    point = {k: np.asarray(v, dtype=float) for k, v in {**POINT, **changes}.items()}
    return kkt_residuals(QP(**(data or DATA)), **point)


def test_zero_at_the_solution():
    assert residuals().norm == 0.0


@pytest.mark.parametrize(
    ("part", "size", "changes"),
    [
        ("stationarity", 0.05, {"nu": [0.1]}),
        ("primal", 0.2, {"z": [1.1, 0.9, 0.0]}),
        ("primal", 0.1, {"z": [1.0, 1.0, -0.1]}),
        ("dual", 0.25, {"lam": [-0.5]}),
        ("dual", 0.25, {"lam_ub": [0.5, 0.0, 0.0]}),
        ("complementarity", 1.0, {"lam_ub": [0.0, 0.5, 0.0]}),
    ],
)
def test_each_part_sees_its_own_violation(part, size, changes):
    assert getattr(residuals(**changes), part) == pytest.approx(size, rel=0.15)


def test_multiples_of_objective_and_rows_change_nothing():
    changes = {"nu": [0.1], "lam": [0.7], "z": [1.05, 0.9, 0.01]}
    plain = residuals(**changes)
    data = dict(DATA)
    for name, factor in {"P": 1e4, "q": 1e4, "A": 1e-3, "b": 1e-3, "G": 10, "h": 10}.items():
        data[name] = DATA[name] * factor
    scaled = residuals(
        data,
        z=changes["z"],
        nu=[0.1 * 1e4 / 1e-3],
        lam=[0.7 * 1e4 / 10],
        lam_lb=POINT["lam_lb"] * 1e4,
    )
    assert asdict(scaled) == pytest.approx(asdict(plain), rel=1e-9)


def test_nan_is_not_hidden():
    assert np.isnan(residuals(z=[np.nan, 1.0, 0.0]).norm)


def test_a_solution_tells_its_own_residuals():
    solution = Solution(**POINT, status=SolveStatus.SOLVED, kkt_norm=0.0, iterations=1, solver="x")
    assert solution.residuals(QP(**DATA)).norm == 0.0


def test_status_values_are_words_and_say_what_is_usable():
    assert all(" " in status.value for status in SolveStatus)
    usable = {status for status in SolveStatus if status.usable}
    assert usable == {SolveStatus.SOLVED, SolveStatus.INACCURATE}


def test_status_codes_go_both_ways_and_the_usable_come_first():
    for status in SolveStatus:
        assert SolveStatus.from_code(torch.tensor(status.code)) is status
        assert status.usable == (status.code <= SolveStatus.INACCURATE.code)
    assert SolveStatus.PRIMAL_INFEASIBLE.label == "primal infeasible"
    for code in (-1, len(SolveStatus)):
        with pytest.raises(ValueError, match=f"code {code}"):
            SolveStatus.from_code(code)
