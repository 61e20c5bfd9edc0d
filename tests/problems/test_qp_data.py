"""A QP's data: what is accepted, how it is stored, and what is refused in which words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio.errors import ProblemError
from bpqp_portfolio.problems import QP

GOOD = {
    "P": np.diag([1.0, 2.0, 3.0]),
    "q": np.zeros(3),
    "A": np.ones((1, 3)),
    "b": np.ones(1),
    "G": np.eye(3)[:2],
    "h": np.ones(2),
    "lb": np.zeros(3),
    "ub": np.ones(3),
}


def with_entry(name, index, value):
    array = GOOD[name].copy()
    array[index] = value
    return {**GOOD, name: array}


def test_absent_constraints_become_empty_and_absent_bounds_infinite():
    problem = QP(GOOD["P"], GOOD["q"])
    assert problem.A.shape == problem.G.shape == (0, 3)
    assert problem.b.shape == problem.h.shape == (0,)
    assert (problem.lb == -np.inf).all() and (problem.ub == np.inf).all()
    assert (problem.n, problem.p, problem.m) == (3, 0, 0)


def test_tensors_and_lists_become_float64_arrays():
    problem = QP(torch.eye(2, requires_grad=True), [1, 2], lb=torch.zeros(2))
    for value in (problem.P, problem.q, problem.lb):
        assert isinstance(value, np.ndarray) and value.dtype == np.float64


def test_objective():
    assert QP([[2.0, 1.0], [1.0, 4.0]], [1.0, -1.0]).objective(np.array([1.0, 2.0])) == 10.0


def test_rounding_asymmetry_is_removed():
    P = np.array([[1.0, 0.5 + 1e-8], [0.5, 1.0]])
    problem = QP(P, np.zeros(2))
    np.testing.assert_array_equal(problem.P, problem.P.T)
    np.testing.assert_array_equal(problem.P, 0.5 * (P + P.T))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("P", (3, 2), "(..., 3, 3)"),
        ("P", (3,), "(..., 3, 3)"),
        ("A", (1, 4), "(..., 1, 3)"),
        ("b", (2,), "(..., 1)"),
        ("G", (3,), "(..., m, 3)"),
        ("h", (3,), "(..., 2)"),
        ("lb", (2,), "(..., 3)"),
        ("ub", (), "(..., 3)"),
    ],
)
def test_wrong_shape_names_argument_and_expectation(name, shape, expected):
    with pytest.raises(ProblemError) as caught:
        QP(**{**GOOD, name: np.zeros(shape)})
    assert str(caught.value).startswith(f"{name}: expected shape {expected}")
    assert f"got {shape}" in str(caught.value)


@pytest.mark.parametrize(("given", "missing"), [("A", "b"), ("b", "A"), ("G", "h"), ("h", "G")])
def test_half_a_constraint_is_refused(given, missing):
    with pytest.raises(ProblemError, match=f"^{missing}: missing"):
        QP(GOOD["P"], GOOD["q"], **{given: GOOD[given]})


def test_batch_and_empty_problems_are_refused():
    with pytest.raises(ProblemError, match=r"^q: one problem has no batch"):
        QP(GOOD["P"], np.zeros((2, 3)))
    with pytest.raises(ProblemError, match=r"at least one variable"):
        QP(np.zeros((0, 0)), np.zeros(0))
    with pytest.raises(ProblemError, match=r"^P: missing"):
        QP(None, np.zeros(3))
    with pytest.raises(ProblemError, match=r"^q: expected real numbers, got str"):
        QP(GOOD["P"], "abc")


@pytest.mark.parametrize("name", ["P", "q", "A", "b", "G", "h", "lb", "ub"])
def test_nan_names_argument_and_entry(name):
    index = (0, 1) if GOOD[name].ndim == 2 else 0
    with pytest.raises(ProblemError) as caught:
        QP(**with_entry(name, index, np.nan))
    assert str(caught.value).startswith(f"{name}: entry {index} is nan")


@pytest.mark.parametrize("name", ["P", "q", "A", "b", "G"])
def test_infinity_is_for_limits_only(name):
    with pytest.raises(ProblemError, match=f"^{name}: entry .* is inf, expected a finite number"):
        QP(**with_entry(name, (0, 0) if GOOD[name].ndim == 2 else 0, np.inf))
    assert QP(**with_entry("ub", 0, np.inf)).ub[0] == np.inf
    free = QP(**with_entry("h", 0, np.inf))
    assert free.unlimited[0] and not free.G[0].any() and np.isfinite(free.h).all()
    assert QP(**GOOD).unlimited is None and QP(**GOOD).G[0].any()
    with pytest.raises(ProblemError, match=r"^h: entry 0 is -inf"):
        QP(**with_entry("h", 0, -np.inf))
    with pytest.raises(ProblemError, match=r"^lb: entry 0 is inf"):
        QP(**with_entry("lb", 0, np.inf))
    with pytest.raises(ProblemError, match=r"^ub: entry 0 is -inf"):
        QP(**with_entry("ub", 0, -np.inf))


def test_crossed_bounds_and_asymmetry():
    with pytest.raises(ProblemError, match=r"^lb: entry 1 is 2\.0, expected at most ub there"):
        QP(**with_entry("lb", 1, 2.0))
    with pytest.raises(ProblemError, match=r"^P: not symmetric, entry \(0, 1\) is 0\.5"):
        QP(**with_entry("P", (0, 1), 0.5))
