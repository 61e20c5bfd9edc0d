"""SOCPLayer's gradients where a cone has few directions to bend in, or none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import bpqp_portfolio as bp
from bpqp_portfolio.solvers.registry import available_solvers

FORWARD = available_solvers("cone")
BACKWARD = ("kkt", *bp.available_solvers("qp"))
PARTS = ("q", "F", "g", "c", "d", "lb", "ub")


def tensor(value):
    return torch.tensor(np.asarray(value, dtype=float))


def solve(values, pair=("auto", "kkt")):
    cone = tuple(values.get(k) for k in "Fgcd")
    layer = bp.SOCPLayer(*pair, on_failure="nan")
    return layer.solve(None, values["q"], cones=[cone], lb=values["lb"], ub=values["ub"])


@pytest.mark.parametrize("backward", BACKWARD)
@pytest.mark.parametrize("forward", FORWARD)
def test_a_cone_of_one_row_at_a_vertex(forward, backward):
    q = tensor([-1.3, -0.2, -0.17]).requires_grad_()
    one = torch.ones(3).double()
    given_ = {"q": q, "F": tensor([[1.1, 0.7, 0.3]]), "g": tensor([0.1]), "d": tensor(0.7)}
    s = solve(given_ | {"lb": -one, "ub": one}, (forward, backward))
    assert s.z.tolist() == pytest.approx([1.0, -1.0, 2 / 3], abs=1e-7)
    s.z.sum().backward()
    assert q.grad.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-8)


@pytest.mark.parametrize("backward", BACKWARD)
def test_a_ball_met_along_an_axis_that_bounds_leave(backward):
    """z = (c, 0, 0) on ‖z‖ ≤ c with z₂, z₃ ≥ 0: only c and the bounds move it."""
    q = tensor([-1.3, 0.2, 0.17]).requires_grad_()
    c, zero = tensor(0.7).requires_grad_(), torch.zeros(3).double()
    s = solve({"q": q, "d": c, "lb": zero, "ub": zero + 1}, ("auto", backward))
    (s.z @ tensor([1.0, 2.0, 3.0])).backward()
    assert q.grad.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-8)
    assert c.grad.item() == pytest.approx(1.0, abs=1e-8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**31),
    st.sampled_from((1, 1, 2, 3)),
    st.sampled_from(FORWARD),
    st.sampled_from(BACKWARD),
)
def test_cones_of_low_rank_against_finite_differences(seed, rank, forward, backward):
    rng = np.random.default_rng(seed)
    n, r = int(rng.integers(2, 6)), int(rng.integers(rank, rank + 3))
    F = rng.normal(size=(r, rank)) @ rng.normal(size=(rank, n))
    data = {
        "q": rng.normal(size=n),
        "F": F,
        "g": 0.3 * (F @ rng.normal(size=n) if rng.random() < 0.5 else rng.normal(size=r)),
        "c": rng.choice([0.0, 0.2]) * rng.normal(size=n),
        "d": np.array(rng.uniform(0.5, 1.5)),
        "lb": -rng.choice([0.0, 0.5, 1.0]) * np.ones(n),
        "ub": np.ones(n),
    }
    w, way = rng.normal(size=n), {k: rng.normal(size=v.shape) for k, v in data.items()}

    def point(step):
        s = solve({k: tensor(v + step * way[k]) for k, v in data.items()})
        assume(s.status is bp.SolveStatus.SOLVED)
        return float(s.z @ tensor(w))

    here, step = point(0.0), 1e-5
    slopes = [(point(t) - here) / t for t in (step, -step, step / 2, -step / 2)]
    # No derivative at a change of the active set.
    assume(np.ptp(slopes) <= 2e-3 * (1 + np.abs(slopes).max()))
    values = {k: tensor(v).requires_grad_() for k, v in data.items()}
    s = solve(values, (forward, backward))
    assume(s.status is bp.SolveStatus.SOLVED)
    (s.z @ tensor(w)).backward()
    found = sum(float((values[k].grad * tensor(way[k])).sum()) for k in PARTS)
    assert found == pytest.approx(np.mean(slopes), rel=1e-2, abs=1e-2)
