"""SOCPLayer's contract: batches, dtypes, failures, graphs, and properties of the programs."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bpqp_portfolio as bp
from bpqp_portfolio import SecondOrderCone, SOCPLayer, SolveStatus

D = torch.float64


def batch(radii=(2.0, 0.5, 1.0, 0.1), dtype=D):
    """min qᵀz, 1ᵀz = 1, ‖z‖ ≤ radius: in three dimensions ‖z‖ ≥ 1/√3 = 0.577 on the budget."""
    q = torch.tensor([[0.9, 0.4, -0.3]], dtype=dtype).repeat(len(radii), 1).requires_grad_()
    d = torch.tensor(radii, dtype=dtype).requires_grad_()
    budget = {"A": torch.ones(1, 3, dtype=dtype), "b": torch.ones(1, dtype=dtype)}
    return q, [SecondOrderCone(None, None, None, d)], budget, d


def test_names_and_settings():
    assert bp.SOCPLayer is SOCPLayer and bp.SecondOrderCone is SecondOrderCone
    text = repr(SOCPLayer("clarabel", tolerance=1e-6, on_failure="nan"))
    assert (
        text == "SOCPLayer(forward='clarabel', backward='auto', tolerance=1e-06, on_failure='nan')"
    )
    with pytest.raises(bp.ConfigError, match="clarabel"):
        SOCPLayer("clarabell")
    with pytest.raises(bp.ConfigError, match="kkt"):
        SOCPLayer(backward="ktt")
    with pytest.raises(bp.ConfigError, match="tolerance"):
        SOCPLayer(tolerance=0.0)
    with pytest.raises(bp.ConfigError, match="on_failure"):
        SOCPLayer(on_failure="no")
    with pytest.raises(bp.ConfigError, match="max_iter"):
        SOCPLayer("clarabel", options={"max_itr": 5})(
            None, torch.ones(2), cones=[(None, None, None, 1.0)]
        )


def test_solution_of_one_problem():
    q = torch.tensor([3.0, 4.0], dtype=D)
    s = SOCPLayer("clarabel").solve(None, q, cones=[(None, None, None, 2.0)])
    assert s.status is SolveStatus.SOLVED and s.solver == "clarabel" and s.kkt_norm < 1e-12
    assert s.iterations > 0 and s.z.shape == (2,) and s.nu.shape == s.lam.shape == (0,)
    torch.testing.assert_close(s.z, torch.tensor([-1.2, -1.6], dtype=D))
    torch.testing.assert_close(s.cone_duals[0], torch.tensor([5.0, 3.0, 4.0], dtype=D))


def test_one_error_lists_every_failed_item_and_why():
    q, cones, budget, _ = batch()
    with pytest.raises(bp.SolverError) as caught:
        SOCPLayer()(None, q, cones=cones, **budget)
    message = str(caught.value)
    assert "2 of 4 problems not solved: item 1: primal infeasible" in message
    assert "(equality row 0; cone 0)" in message and "item 3" in message
    assert 'on_failure="nan"' in message


def test_an_unbounded_objective_is_told_from_infeasible():
    with pytest.raises(bp.SolverError, match=r"dual infeasible.*unbounded along"):
        SOCPLayer()(
            None, -torch.ones(3, dtype=D), cones=[(None, None, torch.ones(3, dtype=D), 1.0)]
        )


@pytest.mark.parametrize("forward", bp.solvers.registry.available_solvers("cone"))
def test_an_indefinite_P_is_never_solved(forward):
    # In a batch with a good item; the saddle (−.3, .1) of the other is a KKT point.
    P = torch.stack([torch.eye(2, dtype=D), torch.diag(torch.tensor([1.0, -1.0], dtype=D))])
    q = torch.tensor([0.3, 0.1], dtype=D)
    box = {"lb": -torch.ones(2, dtype=D), "ub": torch.ones(2, dtype=D)}
    cones = [(None, None, None, 9.0)]
    s = SOCPLayer(forward, on_failure="nan").solve(P, q, cones=cones, **box)
    assert list(s.status) == [SolveStatus.SOLVED, SolveStatus.BAD_DATA]
    torch.testing.assert_close(s.z[0], -q, rtol=0, atol=1e-9)
    assert s.z[1].isnan().all()
    with pytest.raises(bp.SolverError, match="not convex"):
        SOCPLayer(forward)(P[1], q, cones=cones, **box)


@pytest.mark.parametrize("forward", ["auto", "clarabel", "scs"])
def test_failed_items_are_nan_with_zero_gradient_and_the_others_untouched(forward):
    if forward == "scs":
        pytest.importorskip("scs")
    layer = SOCPLayer(forward, on_failure="nan")
    q, cones, budget, d = batch()
    s = layer.solve(None, q, cones=cones, **budget)
    good = torch.tensor([True, False, True, False])
    assert [v is SolveStatus.SOLVED for v in s.status] == good.tolist()
    assert s.status[1] is SolveStatus.PRIMAL_INFEASIBLE
    for field in (s.z, s.nu, s.lam_lb, s.lam_ub, s.cone_duals[0]):
        assert field[~good].isnan().all() and field[good].isfinite().all()
    s.z.square().sum().backward()
    assert (q.grad[~good] == 0).all() and (d.grad[~good] == 0).all()
    q2, cones2, budget, d2 = batch((2.0, 1.0))
    z = layer(None, q2, cones=cones2, **budget)
    z.square().sum().backward()
    for a, b in ((s.z[good], z), (q.grad[good], q2.grad), (d.grad[good], d2.grad)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_failed_items_do_not_spoil_shared_parameters():
    grads = []
    for radii in ((2.0, 0.1, 1.0), (2.0, 1.0)):
        q, cones, budget, _ = batch(radii)
        A = budget["A"].clone().requires_grad_()
        SOCPLayer(on_failure="nan")(None, q, cones=cones, A=A, b=budget["b"]).square()[
            [0, -1]
        ].sum().backward()
        grads.append(A.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_bad_values_name_argument_and_item():
    q, _, budget, _ = batch()
    d = torch.tensor([2.0, 1.0, float("nan"), 1.0], dtype=D)
    with pytest.raises(bp.ProblemError, match=r"item 2: cones\[0\]\.d: entry 0 is nan"):
        SOCPLayer()(None, q, cones=[(None, None, None, d)], **budget)
    s = SOCPLayer(on_failure="nan").solve(None, q, cones=[(None, None, None, d)], **budget)
    assert [v is SolveStatus.BAD_DATA for v in s.status] == [False, False, True, False]
    s.z[[0, 1, 3]].sum().backward()
    assert (q.grad[2] == 0).all()


@pytest.mark.parametrize(
    ("cone", "message"),
    [
        ((None, None, None), r"cones\[1\]: expected SecondOrderCone"),
        ((None, None, None, None), r"cones\[1\]\.d: missing"),
        ((torch.ones(2, 4), None, None, 1.0), r"cones\[1\]\.F: expected shape \(\.\.\., 2, 3\)"),
        ((None, torch.ones(2), None, 1.0), r"cones\[1\]\.g: expected shape \(\.\.\., 3\)"),
        ((None, None, [1.0, 2.0, 3.0], 1.0), r"cones\[1\]\.c: expected a tensor of floating"),
        ((None, None, None, torch.ones(7)), r"batch dimensions do not broadcast"),
    ],
)
def test_bad_cones_are_refused_by_name(cone, message):
    q, cones, budget, _ = batch()
    with pytest.raises(bp.ProblemError, match=message):
        SOCPLayer()(None, q, cones=[*cones, cone], **budget)


def parts(generator, *lead):
    """A program whose parts have batch dimensions ``lead``."""

    def normal(*shape):
        return torch.randn((*lead, *shape), dtype=D, generator=generator)

    return {
        "q": normal(4),
        "F": normal(3, 4),
        "g": 0.1 * normal(3),
        "c": 0.1 * normal(4),
        "d": 1 + normal().abs(),
        "lb": -normal(4).abs() - 0.1,
        "ub": normal(4).abs() + 0.1,
        "P": torch.eye(4, dtype=D).expand(*lead, 4, 4).clone(),
    }


def run(data):
    cones = [(data["F"], data["g"], data["c"], data["d"]), (None, None, None, data["d"])]
    return SOCPLayer()(data["P"], data["q"], cones=cones, lb=data["lb"], ub=data["ub"])


@pytest.mark.parametrize("shared", ["q", "F", "g", "c", "d", "lb", "ub", "P", None])
def test_batches_equal_single_calls_forward_and_backward(shared):
    generator = torch.Generator().manual_seed(0)
    data = parts(generator, 2, 3)
    if shared:
        data[shared] = data[shared][0, 0]
    data = {k: v.requires_grad_() for k, v in data.items()}
    z = run(data)
    assert z.shape == (2, 3, 4)
    singles = [
        [run({k: v if k == shared else v[i, j] for k, v in data.items()}) for j in range(3)]
        for i in range(2)
    ]
    single = torch.stack([torch.stack(row) for row in singles])
    torch.testing.assert_close(z, single, rtol=0, atol=0)
    values = list(data.values())
    a, b = (torch.autograd.grad(v.sin().sum(), values) for v in (z, single))
    for first, second in zip(a, b, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-14)


def test_an_empty_batch():
    q = torch.zeros(0, 3, dtype=D, requires_grad=True)
    s = SOCPLayer().solve(None, q, cones=[(None, None, None, 1.0)])
    assert s.z.shape == (0, 3) and s.cone_duals[0].shape == (0, 4)
    s.z.sum().backward()
    assert q.grad.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_inputs(dtype):
    q, cones, budget, d = batch((2.0, 1.0), dtype)
    s = SOCPLayer().solve(None, q, cones=cones, **budget)
    assert s.z.dtype == s.cone_duals[0].dtype == dtype
    s.z.square().sum().backward()
    assert q.grad.dtype == d.grad.dtype == dtype
    exact_q, exact_cones, exact, exact_d = batch((2.0, 1.0))
    z = SOCPLayer()(None, exact_q, cones=exact_cones, **exact)
    z.square().sum().backward()
    torch.testing.assert_close(s.z, z.to(dtype), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(q.grad, exact_q.grad.to(dtype), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.grad, exact_d.grad.to(dtype), rtol=1e-5, atol=1e-5)


def test_no_grad_leaves_no_graph_and_does_no_adjoint_work(monkeypatch):
    q, cones, budget, _ = batch((2.0, 1.0))

    def refuse(*_, **__):
        raise AssertionError("adjoint work without need")

    monkeypatch.setattr("bpqp_portfolio.layers.socp.cone_adjoint", refuse)
    with torch.no_grad():
        assert not SOCPLayer()(None, q, cones=cones, **budget).requires_grad
    assert SOCPLayer()(None, q, cones=cones, **budget).requires_grad


def test_the_graph_can_be_used_twice_and_an_argument_changed_in_place_is_noticed():
    q, cones, budget, d = batch((2.0, 1.0))
    z = SOCPLayer()(None, q, cones=cones, **budget)
    first = torch.autograd.grad(z.sum(), (q, d), retain_graph=True)
    second = torch.autograd.grad(z.sum(), (q, d), retain_graph=True)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    with torch.no_grad():
        d.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_second_derivatives():
    q, cones, budget, _ = batch((2.0,))

    def z(q):
        return SOCPLayer()(None, q, cones=cones, **budget)

    q = q.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(z, q, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_copies_pickles_and_threads():
    layer = pickle.loads(pickle.dumps(copy.deepcopy(SOCPLayer())))
    q, cones, budget, _ = batch((2.0, 1.0))
    expected = layer(None, q, cones=cones, **budget)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: layer(None, q, cones=cones, **budget), range(8)):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_P_in_every_form():
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(4, dtype=D, generator=generator)
    cones = [(None, None, None, 0.7)]
    d = torch.rand(4, dtype=D, generator=generator)
    B = torch.randn(4, 1, dtype=D, generator=generator)
    dense = torch.diag(d)
    z = SOCPLayer()(dense, q, cones=cones)
    for P in (d, dense.to_sparse(), (torch.zeros(4, 0, dtype=D), d)):
        torch.testing.assert_close(SOCPLayer()(P, q, cones=cones), z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        SOCPLayer()((B, d), q, cones=cones),
        SOCPLayer()(B @ B.T + dense, q, cones=cones),
        rtol=1e-9,
        atol=1e-9,
    )


SEEDS = st.integers(0, 10_000)


@given(seed=SEEDS, power=st.integers(-4, 4), cone=st.integers(-4, 4))
@settings(max_examples=15, deadline=None)
def test_scaling_objective_or_cone_changes_only_duals(seed, power, cone):
    data = parts(torch.Generator().manual_seed(seed))
    k, s = 10.0**power, 10.0**cone
    rest = {"lb": data["lb"], "ub": data["ub"]}
    first = SOCPLayer().solve(data["P"], data["q"], cones=[[data[x] for x in "Fgcd"]], **rest)
    second = SOCPLayer().solve(
        k * data["P"], k * data["q"], cones=[[s * data[x] for x in "Fgcd"]], **rest
    )
    torch.testing.assert_close(second.z, first.z, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        second.cone_duals[0] * s / k, first.cone_duals[0], rtol=1e-6, atol=1e-6
    )


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_permuting_the_variables_permutes_solution_and_gradient(seed):
    generator = torch.Generator().manual_seed(seed)
    data = parts(generator)
    order = torch.randperm(4, generator=generator)
    moved = {
        "q": data["q"][order],
        "F": data["F"][:, order],
        "c": data["c"][order],
        "lb": data["lb"][order],
        "ub": data["ub"][order],
        "P": data["P"][order][:, order],
        "g": data["g"],
        "d": data["d"],
    }
    results = []
    for own in (data, moved):
        q = own["q"].clone().requires_grad_()
        z = run({**own, "q": q})
        results.append((z.detach(), torch.autograd.grad(z.square().sum(), q)[0]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a[order], b, rtol=1e-6, atol=1e-7)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_points_are_feasible_and_an_inactive_cone_changes_nothing(seed):
    data = parts(torch.Generator().manual_seed(seed))
    q = data["q"].clone().requires_grad_()
    cone = SecondOrderCone(*(data[x] for x in "Fgcd"))
    P, rest = data["P"], {"lb": data["lb"], "ub": data["ub"]}
    z = SOCPLayer()(P, q, cones=[cone], **rest)
    v = z.detach()
    assert (cone.F @ v + cone.g).norm() <= cone.c @ v + cone.d + 1e-9
    assert (v >= data["lb"]).all() and (v <= data["ub"]).all()
    wide = SecondOrderCone(None, None, None, (data["ub"] - data["lb"]).norm() + 1.0)
    again = SOCPLayer()(P, q, cones=[cone, wide], **rest)
    torch.testing.assert_close(again, z, rtol=1e-8, atol=1e-8)
    a, b = (torch.autograd.grad(x.square().sum(), q)[0] for x in (z, again))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_optimal_value_has_the_duals_as_its_gradient(seed):
    data = parts(torch.Generator().manual_seed(seed))
    q, d = data["q"].requires_grad_(), data["d"].requires_grad_()
    cone = (data["F"], data["g"], data["c"], d)
    s = SOCPLayer().solve(data["P"], q, cones=[cone], lb=data["lb"], ub=data["ub"])
    value = 0.5 * s.z @ data["P"] @ s.z + q @ s.z
    in_q, in_d = torch.autograd.grad(value, (q, d))
    np.testing.assert_allclose(in_q, s.z.detach(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(in_d, -s.cone_duals[0][0].detach(), rtol=1e-6, atol=1e-7)
