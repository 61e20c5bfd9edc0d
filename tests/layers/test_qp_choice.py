"""The backward solver that was asked for is the one that works."""

from __future__ import annotations

import pytest
import torch

import bpqp_portfolio as bp
from bpqp_portfolio.solvers.qp import direct, osqp


@pytest.mark.parametrize(
    ("backward", "by_osqp", "by_factors"),
    [("auto", False, True), ("kkt", False, False), ("osqp", True, False)],
)
def test_backward_is_solved_by_what_was_asked_for(monkeypatch, backward, by_osqp, by_factors):
    used = set()

    def spy(owner, name, label):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            used.add(label)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    q = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    P, A = torch.eye(3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    z = bp.QPLayer("dense", backward)(P, q, A, torch.ones(1, dtype=torch.float64))
    spy(osqp.OSQPSolver, "solve", "osqp")
    spy(direct.Active, "solve", "factors")
    z[0].backward()
    assert ("osqp" in used, "factors" in used) == (by_osqp, by_factors)
    torch.testing.assert_close(q.grad, torch.tensor([-2.0, 1.0, 1.0]).double() / 3)
