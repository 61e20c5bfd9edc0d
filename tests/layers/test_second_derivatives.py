"""Second derivatives through every layer against finite differences, and where they are refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from test_factor_rows import smooth
from test_factor_rows import solve as solve_days
from test_qp_gradients import general
from test_socp_gradients import fields as cone_fields
from test_socp_gradients import general as general_cones
from test_socp_gradients import solve as solve_cones
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import hessian, hvp, jacobian

import bpqp_portfolio as bp
from bpqp_portfolio.layers.factor import factor_qp

PAIRS = [("auto", "auto"), ("dense", "auto"), ("clarabel", "kkt"), ("piqp", "osqp")]


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def random_like(generator, value):
    return torch.rand(value.shape, generator=generator, dtype=torch.float64)


def check(function, inputs, step=1e-5):
    """∇²loss along two directions, for a loss of all that ``function`` returns."""
    generator = torch.Generator().manual_seed(0)
    ends = [[random_like(generator, v) for v in inputs] for _ in range(2)]
    weights = [random_like(generator, out) for out in function(*inputs)]

    def loss(values):
        return sum((w * out.sin()).sum() for w, out in zip(weights, function(*values), strict=True))

    def along(values, **options):
        found = torch.autograd.grad(loss(values), values, **options)
        return sum((a * b).sum() for a, b in zip(found, ends[0], strict=True))

    inputs = [v.detach().clone().requires_grad_() for v in inputs]
    # The graph's first derivative is the plain one.
    once = along(inputs, create_graph=True)
    assert once.item() == pytest.approx(along(inputs).item(), rel=1e-9, abs=1e-10)
    twice = torch.autograd.grad(once, inputs, allow_unused=True)
    found = sum((a * b).sum() for a, b in zip(twice, ends[1], strict=True) if a is not None)
    moved = [
        [(v + s * d).detach().requires_grad_() for v, d in zip(inputs, ends[1], strict=True)]
        for s in (step, -step)
    ]
    expected = (along(moved[0]) - along(moved[1])) / (2 * step)
    assert abs(float(found)) > 1e-12
    assert float(found) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


def test_the_hessian_of_a_cube():
    """z = −q: the Hessian of Σz³ in q is diag(−6q)."""
    q = t(-1.0, -2.0, -0.5)

    def loss(q):
        return (bp.QPLayer()(torch.eye(3).double(), q) ** 3).sum()

    torch.testing.assert_close(hessian(loss, q), torch.diag(t(6.0, 12.0, 3.0)))
    torch.testing.assert_close(hvp(loss, q, t(1.0, 1.0, 1.0))[1], t(6.0, 12.0, 3.0))


def test_a_gradient_penalty_reaches_the_matrix():
    """z = −q/p: ‖dz/dq‖² = 1/p², whose derivative is −2/p³."""
    p, q = t(2.0).requires_grad_(), t(3.0).requires_grad_()
    z = bp.QPLayer()(torch.diag(p), q)
    (slope,) = torch.autograd.grad(z.sum(), q, create_graph=True)
    (slope**2).sum().backward()
    assert p.grad.item() == pytest.approx(-2 / 8)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("name", sorted(general()))
def test_gradgradcheck_in_every_parameter(name, pair):
    layer, data = bp.QPLayer(*pair, tolerance=1e-10), general()

    def fields(value):
        if name == "P":
            value = 0.5 * (value + value.mT)
        s = layer.solve(**{**data, name: value})
        return s.z, s.nu, s.lam, s.lam_lb, s.lam_ub

    value = data[name].clone().requires_grad_()
    assert gradgradcheck(fields, value, eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bounded", (True, False))
def test_all_parameters_of_a_qp_at_once(bounded):
    data = {k: v for k, v in general().items() if bounded or k not in ("lb", "ub")}

    def fields(P, *rest):
        s = bp.QPLayer().solve(0.5 * (P + P.mT), *rest)
        return (s.z, s.nu, s.lam)

    check(fields, list(data.values()))


def test_third_derivatives():
    data = general()

    def slope(q):
        value = bp.QPLayer()(**{**data, "q": q})
        return torch.autograd.grad((value**4).sum(), q, create_graph=True)[0]

    assert gradgradcheck(slope, data["q"].clone().requires_grad_(), atol=1e-4, rtol=1e-3)


def test_batches_that_share_parameters():
    data = general()
    q = data["q"] + t(0.0, 0.01, -0.01)[:, None]

    def z(P, q, A):
        rest = (data["b"], data["G"], data["h"], data["lb"], data["ub"])
        return (bp.QPLayer()(0.5 * (P + P.mT), q, A, *rest),)

    check(z, [data["P"], q, data["A"]])


@pytest.mark.parametrize("kind", ("diagonal", "factor", "ridge"))
def test_kinds_of_quadratics(kind):
    data = {k: v for k, v in general().items() if k not in ("lb", "ub", "P")}
    generator = torch.Generator().manual_seed(3)
    B = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    d = torch.rand(6, dtype=torch.float64, generator=generator) + 0.5

    def z(q, d):
        if kind == "diagonal":
            return (bp.QPLayer()(d, q, data["A"], data["b"], data["G"], data["h"]),)
        if kind == "factor":
            return (bp.QPLayer()((B, d), q, data["A"], data["b"], data["G"], data["h"]),)
        P = torch.diag(d)
        return (bp.QPLayer(ridge=0.1)(P, q, data["A"], data["b"], data["G"], data["h"]),)

    check(z, [data["q"], d])


def test_sparse_arguments_have_second_derivatives_beside_them_but_not_in_them():
    """torch's own sparse tensors lose theirs."""
    data = general()
    P = data["P"].to_sparse_csr()

    def z(q, b):
        return (bp.QPLayer()(P, q, data["A"], b, data["G"], data["h"]),)

    check(z, [data["q"], data["b"]])
    P = data["P"].to_sparse_coo().requires_grad_()
    value = bp.QPLayer()(P, data["q"].requires_grad_())
    with pytest.raises(bp.errors.SolverError, match="sparse"):
        torch.autograd.grad(value.sum(), data["q"], create_graph=True)


def test_float32_and_failed_items():
    q = torch.tensor([[-1.0, -2.0], [torch.nan, 0.0]], requires_grad=True)
    z = bp.QPLayer(on_failure="nan")(torch.eye(2), q)
    (slope,) = torch.autograd.grad((z[0] ** 3).sum(), q, create_graph=True)
    slope.sum().backward()
    assert q.grad.tolist() == [[6.0, 12.0], [0.0, 0.0]]


@pytest.mark.parametrize("batch", (False, True))
@pytest.mark.parametrize("seed", (0, 1))
def test_cone_programs(seed, batch):
    data = general_cones(seed, quadratic=seed > 0)
    names = sorted(data)

    def solved(*values):
        own = dict(zip(names, values, strict=True))
        if batch:
            own["q"] = torch.stack([own["q"], own["q"] + 0.01])
        return cone_fields(solve_cones(own))

    check(solved, [data[k] for k in names])


@pytest.mark.parametrize("point", ((1.0, 2.0, 2.0), (0.1, 0.2, 0.2)), ids=("smooth", "apex"))
def test_the_prox_of_a_norm(point):
    def prox(p, weight):
        F = torch.cat([torch.eye(3), torch.zeros(3, 1)], 1).double()
        q, P = torch.cat([-p, weight.reshape(1)]), torch.diag(t(1.0, 1.0, 1.0, 0.0))
        s = bp.SOCPLayer().solve(P, q, cones=[(F, None, t(0.0, 0.0, 0.0, 1.0), 0.0)])
        return (s.z, *s.cone_duals)

    check(prox, [t(*point), torch.tensor(0.45).double()])


def entropy(z, c, s):
    return c @ z + s * (z * z.log()).sum() + 0.1 * (z**4).sum()


def test_smooth_programs():
    layer = bp.ConvexLayer(
        entropy,
        lambda z, c, s: (z.sum() - 1).reshape(1),
        lambda z, c, s: torch.cat([1e-3 - z, z - 0.5]),
        batched=(True, False),
    )
    c = t(-0.6, -1.9, 2.2, 0.19, -2.2)
    start = torch.full((2, 5), 0.2).double()

    def fields(c, s):
        out = layer.solve(start, torch.stack([c, c + 0.1]), s)
        return out.z, out.nu, out.lam

    check(fields, [c, torch.tensor(0.84).double()])


def test_portfolios_with_rows_and_costs():
    data = smooth()

    def weights(*values):
        return (solve_days(dict(zip(data, values, strict=True))).w,)

    check(weights, list(data.values()))


def market(T, n=7):
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(T, n)), rng.normal(size=(T, n, 2)), rng.uniform(0.5, 1.5, (T, n))
    return [torch.tensor(part) for part in parts]


@pytest.mark.parametrize("T", (3, 30))
def test_plain_portfolios(T):
    given = *market(T), torch.zeros(T, 7).double(), torch.full((T, 7), 0.3).double()

    def weights(q, B, d, lower, upper, budget):
        return (factor_qp(q, B, d, lb=lower, ub=upper, budget=budget).w,)

    check(weights, [*given, torch.ones(T).double()], step=1e-6)


@pytest.mark.parametrize("solver", ("structured", "dense", "clarabel"))
def test_the_portfolio_layer(solver):
    mu, loadings, specific = market(3)
    layer = bp.PortfolioLayer(risk_aversion=2.0, max_weight=0.4, forward=solver)
    check(lambda mu, d: (layer(mu, loadings, d),), [mu, specific])


def test_cvxpy_layers():
    cp = pytest.importorskip("cvxpy")
    x, a = cp.Variable(3), cp.Parameter(3)
    smooth_part = cp.sum_squares(x - a) + cp.norm(x - 1, 2)
    for objective in (cp.sum_squares(x - a), smooth_part):
        problem = cp.Problem(cp.Minimize(objective), [cp.sum(x) == 1, x >= -1])
        layer = bp.from_cvxpy(problem, [a], [x])
        check(lambda a, layer=layer: layer(a), [t(0.3, 0.2, 0.9)])


def test_where_there_are_none_it_says_so():
    one = torch.ones(1, 2).double()
    q = t(-1.0, -1.0).requires_grad_()
    P, b, h = torch.eye(2).double(), t(1.0), t(-1.0)
    z = bp.QPLayer("clarabel")(P, q, one, b, -one, h)
    with pytest.raises(bp.errors.SolverError, match="depend on each other"):
        torch.autograd.grad((z**3).sum(), q, create_graph=True)
    z = bp.QPLayer(smoothing=0.1)(P, q, one, b, -one, t(0.0))
    with pytest.raises(bp.errors.SolverError, match="no second derivatives of a relaxed"):
        torch.autograd.grad((z**3).sum(), q, create_graph=True)


LAYERS = {
    "QPLayer": lambda q: bp.QPLayer()(torch.eye(len(q)).to(q), q),
    "QPLayer, bounds": lambda q: bp.QPLayer()(torch.eye(len(q)).to(q), q, lb=0 * q.detach()),
    "SOCPLayer": lambda q: bp.SOCPLayer()(None, q, cones=[(None, None, None, 1.0)]),
    "SOCPLayer, batch": lambda q: bp.SOCPLayer()(None, q[None], cones=[(None, None, None, 1.0)]),
    "ConvexLayer": lambda q: bp.ConvexLayer(lambda z, q: ((z + q) ** 2).sum())(0 * q.detach(), q),
    "PortfolioLayer": lambda q: bp.PortfolioLayer(3.0)(
        q[None], torch.ones(1, len(q), 1).to(q), torch.ones(1, len(q)).to(q)
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_function_transforms_are_refused_in_words(name):
    layer, q = LAYERS[name], t(-1.0, -2.0, -0.5)
    for transformed in (
        lambda: torch.func.vmap(layer)(q.repeat(2, 1)),
        lambda: torch.func.grad(lambda q: layer(q).sum())(q),
        lambda: torch.func.jacrev(layer)(q),
        lambda: jacobian(layer, q, vectorize=True),
    ):
        with pytest.raises(bp.errors.ProblemError, match="do not go through a solver"):
            transformed()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q))
        with pytest.raises(bp.errors.ProblemError, match="forward-mode"):
            layer(dual)


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_code_passes_by(name):
    q, layer = t(-1.0, -2.0, -0.5), LAYERS[name]

    def loss(q):
        return (layer(2 * q) ** 3).sum()

    compiled = torch.compile(loss, backend="eager")
    found = []
    for function in (loss, compiled):
        own = q.clone().requires_grad_()
        value = function(own)
        value.backward()
        found.append((value.detach(), own.grad))
    torch.testing.assert_close(found[0], found[1])
    assert gradcheck(loss, q.clone().requires_grad_(), atol=1e-4)


def test_a_ball_alone_has_a_hessian_without_a_warning():
    # z = -r q / |q|: the Hessian of Σ z in q by hand from u = q / |q|.
    q = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)
    radius = torch.tensor(0.5, dtype=torch.float64)

    def total(q):
        return bp.SOCPLayer()(None, q, cones=[(None, None, None, radius)]).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.autograd.functional.hessian(total, q)
    exact = torch.autograd.functional.hessian(lambda q: -(radius * q / q.norm()).sum(), q)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)
