"""The short way through the layer: the ordinary way's results, and nothing that is out of order."""

from __future__ import annotations

import pytest
import torch

import bpqp_portfolio as bp
from bpqp_portfolio.layers import qp_single
from bpqp_portfolio.solvers.common.cache import SolverCache

NAMES = ("P", "q", "A", "b", "G", "h")


def made(seed=0, n=12, p=3, m=6, scale=1.0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    B, z = normal(n, n), normal(n)
    A, G = normal(p, n), normal(m, n)
    half = B @ B.T + 0.1 * torch.eye(n)
    P = scale * (half + half.T)
    return dict(
        zip(NAMES, (P, scale * normal(n), A, A @ z, G, G @ z + torch.arange(m) / 8), strict=True)
    )


def leaves(data):
    return {k: v.clone().requires_grad_() for k, v in data.items()}


def gradients(solution, inputs):
    weights = [torch.linspace(1, 2, f.numel()).double() for f in (solution.z, solution.nu)]
    loss = (solution.z * weights[0]).sum() + (solution.nu * weights[1]).sum()
    return torch.autograd.grad(loss + (solution.lam**2).sum(), list(inputs.values()))


@pytest.fixture
def taken(monkeypatch):
    """Whether each call so far was answered by the short way."""
    calls = []
    real = qp_single.solve_direct

    def call(*args):
        found = real(*args)
        calls.append(found is not None)
        return found

    monkeypatch.setattr(qp_single, "solve_direct", call)
    return calls


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("p", "m", "scale"), [(3, 6, 1.0), (0, 6, 1.0), (3, 0, 1e6), (0, 0, 1e-6), (3, 20, 1.0)]
)
def test_results_and_gradients_are_those_of_the_ordinary_way(taken, seed, p, m, scale):
    data = made(seed, p=p, m=m, scale=scale)
    short, ordinary = leaves(data), leaves(data)
    a = bp.QPLayer("dense").solve(**short)
    # A cache takes the ordinary way, and with it the method of multipliers.
    b = bp.QPLayer("dense").solve(**ordinary, cache=SolverCache())
    assert len(taken) == 1
    assert a.status is b.status is bp.SolveStatus.SOLVED and a.solver == b.solver
    assert float(a.kkt_norm) <= 1e-9
    assert a.kkt_norm.dtype == b.kkt_norm.dtype and a.iterations.dtype == b.iterations.dtype
    for name in ("z", "nu", "lam", "lam_lb", "lam_ub"):
        torch.testing.assert_close(
            getattr(a, name), getattr(b, name), rtol=1e-8, atol=1e-8 * max(scale, 1e-6)
        )
        assert getattr(a, name).requires_grad
    for x, y in zip(gradients(a, short), gradients(b, ordinary), strict=True):
        largest = float(y.abs().amax()) if y.numel() else 0.0
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7 * largest)


def test_plain_calls_are_answered_by_it(taken):
    bp.QPLayer()(**made())
    assert taken == [True]


def wrong(name, change):
    data = made()
    data[name] = change(data[name])
    return data


def with_entry(value, *index):
    def change(tensor):
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wrong("P", with_entry(9.0, 0, 1)), r"P: not symmetric, entry \(0, 1\)"),
        (wrong("G", with_entry(float("nan"), 2, 3)), r"G: entry \(2, 3\) is nan"),
        (wrong("h", with_entry(-float("inf"), 1)), "h: entry 1 is -inf"),
        (wrong("A", lambda A: A[:, :-1]), r"A: expected shape \(\.\.\., 3, 12\)"),
        (wrong("b", lambda b: b[:-1]), r"b: expected shape \(\.\.\., 3\)"),
        (wrong("b", lambda b: None), "b: missing"),
        (wrong("G", lambda G: None), "G: missing"),
        (wrong("q", lambda q: q[:-1]), r"P: expected shape \(\.\.\., 11, 11\)"),
        (wrong("q", lambda q: q.long()), "q: expected a tensor of floating point"),
        (wrong("P", lambda P: torch.ones(7, 12).double()), r"P: expected shape .*\(7, 12\)"),
    ],
)
def test_what_is_wrong_is_refused_by_name(data, message):
    with pytest.raises(bp.ProblemError, match=message):
        bp.QPLayer()(**data)


@pytest.mark.parametrize("case", ["singular P", "twice the same row", "infeasible", "indefinite"])
def test_what_is_hard_is_left_to_the_ordinary_way(taken, case):
    data = made(m=4)
    match case:
        case "singular P":
            data["P"] = torch.diag((torch.arange(12) > 3).double())
            data["q"] = data["P"] @ data["q"]
        case "twice the same row":
            data["A"], data["b"] = data["A"][[0, 1, 0]], data["b"][[0, 1, 0]]
        case "infeasible":
            data["A"], data["b"] = data["A"][[0, 1, 0]], data["b"][[0, 1, 2]]
        case _:
            data["P"] = -data["P"]
    status = bp.QPLayer("dense", on_failure="nan").solve(**data).status
    assert taken == [False]
    expected = {
        "infeasible": bp.SolveStatus.PRIMAL_INFEASIBLE,
        "indefinite": bp.SolveStatus.BAD_DATA,
    }
    assert status is expected.get(case, bp.SolveStatus.SOLVED)


def test_twice_through_one_graph_and_after_the_result_was_overwritten():
    data = leaves(made())
    z = bp.QPLayer()(**data)
    first = torch.autograd.grad(z.sum(), data["h"], retain_graph=True)[0]
    with torch.no_grad():
        z.zero_()
    second = torch.autograd.grad(z.sum(), data["h"], retain_graph=True)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    with torch.no_grad():
        data["h"].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(z.sum(), data["q"])


def test_no_grad_records_nothing():
    with torch.no_grad():
        assert not bp.QPLayer()(**leaves(made())).requires_grad


def test_diagonals_of_a_batch_need_another_argument_with_it():
    d = 1.0 + torch.rand(7, 6).double()
    q = torch.ones(6).double()
    with pytest.raises(bp.ProblemError, match=r"P: expected shape \(\.\.\., 6, 6\).*got \(7, 6\)"):
        bp.QPLayer()(d, q)
    torch.testing.assert_close(bp.QPLayer()(d, q.expand(7, 6)), -1.0 / d)
