"""SOCPLayer's short way for one program against its ordinary way; caches, threads, sparse F."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bpqp_portfolio as bp
from bpqp_portfolio import SecondOrderCone, SOCPLayer, SolveStatus
from bpqp_portfolio.layers import socp, socp_single
from bpqp_portfolio.solvers.common.cache import SolverCache

D = torch.float64


def program(kind: str, seed: int = 0) -> tuple[dict[str, torch.Tensor], list]:
    """Named arguments and cones; every tensor wants a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=D, generator=generator)

    n = 6
    if kind == "ball":
        data, cones = {"q": normal(n)}, [(None, None, None, normal().abs() + 1)]
    elif kind == "ball on a plane":
        data = {"q": normal(n), "A": normal(2, n), "b": 0.3 * normal(2)}
        cones = [(None, 0.1 * normal(n), None, normal().abs() + 1)]
    elif kind == "robust":
        a = normal(4, n)
        data = {"q": -a.sum(0) + 0.3 * normal(n)}
        cones = [(None, None, -row, 1 + normal().abs()) for row in a]
    elif kind == "inactive":
        B = normal(n, n)
        data, cones = (
            {"q": normal(n), "P": B @ B.T + torch.eye(n, dtype=D)},
            [(None, None, None, torch.tensor(90.0, dtype=D))],
        )
    else:
        data = {
            "q": 3 * normal(n),
            "P": normal(n).abs() + 0.1,
            "G": normal(3, n),
            "h": 0.2 * normal(3).abs(),
            "lb": -normal(n).abs(),
            "ub": normal(n).abs(),
        }
        cones = [(normal(4, n), 0.1 * normal(4), 0.1 * normal(n), 1 + normal().abs())]
        cones.append((None, None, 0.1 * normal(n), 0.5 + normal().abs()))
    data = {k: v.requires_grad_() for k, v in data.items()}
    cones = [
        SecondOrderCone(*(v if v is None else v.detach().requires_grad_() for v in cone))
        for cone in cones
    ]
    return data, cones


KINDS = ("ball", "ball on a plane", "robust", "inactive", "general")
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def leaves(data, cones):
    return [*data.values(), *(v for cone in cones for v in cone if v is not None)]


def fields(s):
    return (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub, *s.cone_duals)


def ordinarily(monkeypatch):
    monkeypatch.setattr(socp, "solve_single", lambda *_: None)


def shortly(monkeypatch):
    def refuse(*_):
        raise AssertionError("the ordinary way was taken")

    monkeypatch.setattr(socp.Batch, "of", refuse)


@EACH_KIND
def test_both_ways_give_the_same_solution_and_gradients(kind, monkeypatch):
    data, cones = program(kind)
    results = []
    for way in (shortly, ordinarily):
        with monkeypatch.context() as patch:
            way(patch)
            s = SOCPLayer().solve(cones=cones, **{"P": None, **data})
            loss = sum(v.sin().sum() for v in fields(s))
            results.append((s, torch.autograd.grad(loss, leaves(data, cones))))
    (a, short), (b, ordinary) = results
    assert a.status is b.status is SolveStatus.SOLVED and a.solver == b.solver
    assert a.kkt_norm == b.kkt_norm and a.iterations == b.iterations
    for first, second in zip(fields(a), fields(b), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    for first, second in zip(short, ordinary, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


@EACH_KIND
@pytest.mark.parametrize("forward", ["auto", "interior"])
def test_gradcheck_in_every_parameter(kind, forward, monkeypatch):
    data, cones = program(kind)
    names = list(data)
    sizes = [[v is not None for v in cone] for cone in cones]
    layer = SOCPLayer(forward)
    shortly(monkeypatch)

    def run(*values):
        values = iter(values)
        own = {name: next(values) for name in names}
        if own.get("P") is not None and own["P"].ndim == 2:
            own["P"] = 0.5 * (own["P"] + own["P"].mT)
        rebuilt = [tuple(next(values) if there else None for there in cone) for cone in sizes]
        return fields(layer.solve(cones=rebuilt, **{"P": None, **own}))

    assert torch.autograd.gradcheck(run, leaves(data, cones), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_the_ball_of_the_papers_table():
    q = torch.rand(500, dtype=D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    c = torch.tensor(1.3, dtype=D, requires_grad=True)
    s = SOCPLayer().solve(None, q, cones=[(None, None, None, c)])
    assert s.solver == "ball" and s.kkt_norm < 1e-13
    s.z.sum().backward()
    unit = (q / q.norm()).detach()
    torch.testing.assert_close(s.z.detach(), -1.3 * unit, rtol=1e-14, atol=1e-15)
    exact = -1.3 * (1 - unit * unit.sum()) / q.detach().norm()
    torch.testing.assert_close(q.grad, exact, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(c.grad, -unit.sum(), rtol=1e-12, atol=0)


def test_results_may_be_changed_in_place_and_arguments_may_not():
    data, cones = program("ball")
    z = SOCPLayer()(cones=cones, **{"P": None, **data})
    expected = torch.autograd.grad(z.sum(), data["q"])[0]
    z = SOCPLayer()(cones=cones, **{"P": None, **data})
    with torch.no_grad():
        z.detach().zero_()
    torch.testing.assert_close(torch.autograd.grad(z.sum(), data["q"])[0], expected)
    z = SOCPLayer()(cones=cones, **{"P": None, **data})
    with torch.no_grad():
        data["q"].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


NAN = float("nan")
ONE = torch.ones(3, dtype=D)
BALL = [(None, None, None, 1.0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"q": torch.tensor([1.0, NAN, 1.0], dtype=D)}, r"q: entry 1 is nan"),
        ({"A": ONE[None]}, r"b: missing"),
        ({"b": ONE}, r"A: missing"),
        ({"A": ONE[None], "b": ONE}, r"b: expected shape"),
        ({"A": [[1.0, 1.0, 1.0]], "b": ONE[:1]}, r"A: expected a tensor"),
        ({"G": torch.ones(1, 4, dtype=D), "h": ONE[:1]}, r"G: expected shape"),
        ({"lb": ONE, "ub": -ONE}, r"lb: entry 0"),
        ({"lb": ONE * NAN}, r"lb: entry 0 is nan"),
        ({"P": torch.ones(3, 2, dtype=D)}, r"P: "),
        ({"P": -ONE}, r"P's d: entry 0"),
        ({"P": torch.tensor([[1.0, 2, 0], [0, 1, 0], [0, 0, 1]], dtype=D)}, r"P: not symmetric"),
        ({"cones": [(None, None, None, NAN)]}, r"cones\[0\]\.d: entry 0 is nan"),
        ({"cones": [(None, ONE[:2], None, 1.0)]}, r"cones\[0\]\.g: expected shape"),
        ({"cones": [(None, None, ONE * NAN, 1.0)]}, r"cones\[0\]\.c: entry 0 is nan"),
        ({"cones": [(torch.ones(2, 4, dtype=D), None, None, 1.0)]}, r"cones\[0\]\.F"),
        ({"cones": [(ONE.to_sparse(), None, None, 1.0)]}, r"cones\[0\]\.F: a sparse F"),
        ({"cones": [(None, None, None, None)]}, r"cones\[0\]\.d: missing"),
        ({"cones": [7]}, r"cones\[0\]: expected SecondOrderCone"),
    ],
)
def test_what_is_wrong_is_refused_by_name(given, message):
    with pytest.raises(bp.ProblemError, match=message):
        SOCPLayer()(**{"P": None, "q": ONE, "cones": BALL, **given})


def test_failures_are_told_as_ever():
    with pytest.raises(bp.SolverError, match=r"primal infeasible.*lower bounds of 0, 1, 2; cone 0"):
        SOCPLayer()(None, ONE, cones=BALL, lb=5 * ONE)
    q = ONE.clone().requires_grad_()
    s = SOCPLayer(on_failure="nan").solve(None, q, cones=BALL, lb=5 * ONE)
    assert s.status is SolveStatus.PRIMAL_INFEASIBLE and s.z.isnan().all()
    s.z.sum().backward()
    assert (q.grad == 0).all()


def test_a_number_for_d_and_float32_go_their_ways(monkeypatch):
    with monkeypatch.context() as patch:
        shortly(patch)
        for d in (1, 1.0):
            torch.testing.assert_close(
                SOCPLayer()(None, ONE, cones=[(None, None, None, d)]), -ONE / 3**0.5
            )
    z = SOCPLayer()(None, ONE.float(), cones=BALL)
    assert z.dtype is torch.float32
    torch.testing.assert_close(z, (-ONE / 3**0.5).float())


def test_no_grad_does_no_adjoint_work(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("adjoint work without need")

    monkeypatch.setattr(socp_single, "cone_adjoint", refuse)
    data, cones = program("ball")
    with torch.no_grad():
        assert not SOCPLayer()(cones=cones, **{"P": None, **data}).requires_grad


@pytest.mark.parametrize("batched", [False, True])
def test_a_handle_starts_from_the_last_solution(batched):
    data, cones = program("robust")
    q = data["q"].detach()
    q = q.expand(2, -1) * torch.tensor([[1.0], [1.1]], dtype=D) if batched else q
    layer, cache = SOCPLayer(), SolverCache()
    first = layer.solve(None, q, cones=cones, cache=cache)
    moved = (q * (1 + 1e-5 * torch.arange(6, dtype=D))).requires_grad_()
    warm, cold = (
        layer.solve(None, moved, cones=cones, cache=cache),
        layer.solve(None, moved, cones=cones),
    )
    assert (first.iterations > 0).all() and (warm.iterations == 0).all()
    torch.testing.assert_close(warm.z, cold.z, rtol=1e-10, atol=1e-11)
    a, b = (torch.autograd.grad(s.z.sin().sum(), moved)[0] for s in (warm, cold))
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_threads_over_the_items_change_nothing(monkeypatch):
    data, cones = program("general")
    q = torch.randn(12, 6, dtype=D, generator=torch.Generator().manual_seed(3)).requires_grad_()
    rest = {k: v for k, v in data.items() if k != "q"}
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(
            "bpqp_portfolio.solvers.common.parallel.torch.get_num_threads", lambda k=threads: k
        )
        monkeypatch.setattr("bpqp_portfolio.solvers.common.parallel._WORTH", 0)
        z = SOCPLayer()(q=q, cones=cones, **rest)
        results.append((z, *torch.autograd.grad(z.sin().sum(), [q, *leaves(rest, cones)])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("batched", [False, True])
def test_sparse_F(layout, batched):
    generator = torch.Generator().manual_seed(5)
    dense = torch.randn(4, 6, dtype=D, generator=generator)
    dense[torch.rand(4, 6, generator=generator) < 0.5] = 0.0
    pattern = dense != 0
    q = torch.randn(*([3] if batched else []), 6, dtype=D, generator=generator)
    box = {"lb": -torch.ones(6, dtype=D), "ub": torch.ones(6, dtype=D)}
    rows = [torch.ones(6, dtype=D) * 0.1, -torch.ones(6, dtype=D) * 0.1]
    F = dense.clone().requires_grad_()
    z = SOCPLayer()(None, q, cones=[(F, None, c, 0.7) for c in rows], **box)
    z.square().sum().backward()
    thin = dense.to_sparse(layout=layout).requires_grad_()
    found = SOCPLayer()(None, q, cones=[(thin, None, c, 0.7) for c in rows], **box)
    torch.testing.assert_close(found, z, rtol=1e-9, atol=1e-10)
    found.square().sum().backward()
    assert thin.grad.layout is layout
    torch.testing.assert_close(thin.grad.to_dense()[pattern], F.grad[pattern], rtol=1e-7, atol=1e-9)
    assert np.isfinite(float(thin.grad.to_dense().sum()))
