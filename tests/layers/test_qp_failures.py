"""QPLayer's failures: one error for all of them, or NaN rows that leave the others alone."""

from __future__ import annotations

import pytest
import torch

import bpqp_portfolio as bp
from bpqp_portfolio import SolveStatus

SOLVERS = bp.available_solvers("qp")
EACH_SOLVER = pytest.mark.parametrize("name", SOLVERS)


def batch(caps=(1.0, 0.2, 0.5, 0.1)):
    """Projections on capped simplices of three names: a cap below a third cannot fill the budget"""
    q = -torch.tensor([[0.9, 0.4, -0.3]], dtype=torch.float64).repeat(len(caps), 1)
    cap = torch.tensor(caps, dtype=torch.float64).unsqueeze(-1).expand(-1, 3)
    return {
        "P": torch.eye(3, dtype=torch.float64),
        "q": q.requires_grad_(),
        "A": torch.ones(1, 3, dtype=torch.float64),
        "b": torch.ones(1, dtype=torch.float64),
        "lb": torch.zeros(3, dtype=torch.float64),
        "ub": cap.clone().requires_grad_(),
    }


@EACH_SOLVER
def test_one_error_lists_every_failed_item(name):
    with pytest.raises(bp.SolverError) as caught:
        bp.QPLayer(name)(**batch())
    message = str(caught.value)
    assert message.startswith(f"{name}: 2 of 4 problems not solved: item 1: primal infeasible")
    assert "item 3: primal infeasible" in message and "item 0" not in message
    assert 'on_failure="nan"' in message


def test_many_failures_are_counted_and_items_of_two_dimensions_indexed():
    data = batch([0.1] * 12)
    with pytest.raises(bp.SolverError, match=r"12 of 12 .*item 4: .*; and 7 more\."):
        bp.QPLayer()(**data)
    data = {k: v.reshape(3, 4, 3) if v.shape[0] == 12 else v for k, v in data.items()}
    with pytest.raises(bp.SolverError, match=r"item \(0, 3\): primal"):
        bp.QPLayer()(**data)


def test_a_single_problem_is_not_called_an_item():
    data = {k: v.detach() for k, v in batch().items()}
    data |= {"q": data["q"][1], "ub": data["ub"][1]}
    with pytest.raises(
        bp.SolverError, match=r"auto: 1 of 1 problems not solved: primal infeasible"
    ):
        bp.QPLayer()(**data)


@EACH_SOLVER
@pytest.mark.parametrize("backward", ("kkt", *SOLVERS))
def test_failed_items_are_nan_with_zero_gradient_and_the_others_untouched(name, backward):
    data, layer = batch(), bp.QPLayer(name, backward, on_failure="nan")
    solution = layer.solve(**data)
    good = torch.tensor([True, False, True, False])
    assert [s is SolveStatus.SOLVED for s in solution.status] == good.tolist()
    assert solution.status[1] is SolveStatus.PRIMAL_INFEASIBLE
    for field in (solution.z, solution.nu, solution.lam_lb, solution.lam_ub):
        assert field[~good].isnan().all() and field[good].isfinite().all()
    assert solution.kkt_norm[~good].isnan().all()

    solution.z.square().sum().backward()
    assert (data["q"].grad[~good] == 0).all() and (data["ub"].grad[~good] == 0).all()
    alone = batch((1.0, 0.5))
    z = layer(**alone)
    z.square().sum().backward()
    torch.testing.assert_close(solution.z[good], z, rtol=0, atol=1e-14)
    torch.testing.assert_close(data["q"].grad[good], alone["q"].grad, rtol=0, atol=1e-14)
    torch.testing.assert_close(data["ub"].grad[good], alone["ub"].grad, rtol=0, atol=1e-14)


def test_a_failed_item_does_not_spoil_shared_parameters():
    grads = []
    for caps in ((1.0, 0.2, 0.5), (1.0, 0.5)):
        data = batch(caps)
        data["P"].requires_grad_()
        bp.QPLayer(on_failure="nan")(**data).square().sum().backward()
        grads.append(data["P"].grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-14)


@EACH_SOLVER
def test_unbounded_is_told_from_infeasible(name):
    data = batch()
    data |= {"P": torch.zeros(3, 3).double(), "A": None, "b": None, "lb": None}
    data["q"] = data["q"].detach().abs()
    with pytest.raises(bp.SolverError, match=r"4 of 4 .*dual infeasible.*unbounded"):
        bp.QPLayer(name)(**data)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("q", float("nan"), r"item 2: q: entry 0 is nan"),
        ("ub", -1.0, r"item 2: lb: entry 0 is 0\.0, expected at most ub there"),
    ],
)
def test_bad_values_name_argument_and_item(argument, value, message):
    data = {k: v.detach().clone() for k, v in batch((1.0, 1.0, 1.0)).items()}
    data[argument][2, 0] = value
    with pytest.raises(bp.ProblemError, match=f"^{message}"):
        bp.QPLayer()(**data)
    data[argument].requires_grad_()
    solution = bp.QPLayer(on_failure="nan").solve(**data)
    assert [s.name for s in solution.status] == ["SOLVED", "SOLVED", "BAD_DATA"]
    assert solution.z[2].isnan().all() and solution.z[:2].isfinite().all()
    solution.z.square().sum().backward()
    assert data[argument].grad.isfinite().all() and (data[argument].grad[2] == 0).all()


def test_asymmetric_P_of_one_item_is_bad_data_of_that_item_only():
    data = batch((1.0, 1.0))
    P = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    P[1, 0, 1] = 0.5
    with pytest.raises(bp.ProblemError, match=r"^item 1: P: not symmetric"):
        bp.QPLayer()(**{**data, "P": P})
    status = bp.QPLayer(on_failure="nan").solve(**{**data, "P": P}).status
    assert [s.name for s in status] == ["SOLVED", "BAD_DATA"]


def test_inaccurate_points_are_errors_or_kept_with_their_gradient():
    """OSQP stopped by hand at a loose tolerance of its own, against a layer's tight one."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(8, 8, generator=g, dtype=torch.float64)
    # Nearly parallel rows, where a loose point has no exact active set to polish on.
    G = torch.ones(6, 8, dtype=torch.float64)
    G = G + 1e-5 * torch.randn(6, 8, generator=g, dtype=torch.float64)
    P, q = X @ X.mT, torch.full((8,), -3.0, dtype=torch.float64, requires_grad=True)
    h = torch.full((6,), 0.5, dtype=torch.float64)
    loose = {"eps_abs": 1e-4, "eps_rel": 1e-4}
    layer = bp.QPLayer("osqp", tolerance=1e-13, on_failure="nan", options=loose)
    solution = layer.solve(P, q, G=G, h=h)
    assert solution.status is SolveStatus.INACCURATE
    assert 1e-12 < solution.kkt_norm <= 1e-4
    solution.z.sum().backward()
    assert q.grad.isfinite().all() and q.grad.abs().max() > 0
    with pytest.raises(bp.SolverError, match=r"a usable point, .*KKT norm .*e-"):
        bp.QPLayer("osqp", tolerance=1e-13, options=loose)(P, q, G=G, h=h)


def test_points_far_from_a_solution_are_nan():
    # So many rows that after one iteration of OSQP polishing does not find the active ones.
    rng = torch.Generator().manual_seed(0)
    draw = {"generator": rng, "dtype": torch.float64}
    G, P = torch.randn(300, 40, **draw), torch.randn(40, 40, **draw)
    data = {"P": P @ P.mT, "q": 10 * torch.randn(40, **draw), "G": G, "h": torch.rand(300, **draw)}
    layer = bp.QPLayer("osqp", on_failure="nan", options={"max_iter": 1})
    solution = layer.solve(**data)
    assert solution.status is SolveStatus.ITERATION_LIMIT
    assert solution.z.isnan().all() and solution.kkt_norm > 1e-4
    assert bp.QPLayer().solve(**data).status is SolveStatus.SOLVED
