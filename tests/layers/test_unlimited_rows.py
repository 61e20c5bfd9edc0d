"""A row whose right side is infinite has no limit: as if it were not there, in each item alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bpqp_portfolio as bp
from bpqp_portfolio import SolveStatus
from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.portfolio import PortfolioLayer
from bpqp_portfolio.solvers.registry import available_solvers

SOLVERS = bp.available_solvers("qp")
INF = float("inf")


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def data(n=4, m=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, n, generator=g, dtype=torch.float64)
    return {
        "P": X @ X.mT + torch.eye(n, dtype=torch.float64),
        "q": torch.randn(n, generator=g, dtype=torch.float64),
        "A": torch.ones(1, n, dtype=torch.float64),
        "b": torch.ones(1, dtype=torch.float64),
        "G": torch.randn(m, n, generator=g, dtype=torch.float64),
        "h": torch.full((m,), 0.1, dtype=torch.float64),
    }


def without(d, row):
    keep = torch.arange(len(d["h"])) != row
    return {**d, "G": d["G"][keep], "h": d["h"][keep]}


@pytest.mark.parametrize("backward", ["auto", "kkt", "clarabel"])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_row_without_a_limit_is_as_if_it_were_not_there(name, backward):
    d = data()
    h = d["h"].repeat(3, 1)
    h[0, 1], h[2] = INF, INF
    leaves = {k: v.clone().requires_grad_() for k, v in {**d, "h": h}.items()}
    s = bp.QPLayer(name, backward).solve(**leaves)
    assert (s.lam[h.isinf()] == 0).all() and s.lam.isfinite().all()
    weight = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    ((s.z * weight).sum() + s.lam.sum()).backward()
    assert all(v.grad.isfinite().all() for v in leaves.values())
    assert (leaves["h"].grad[h.isinf()] == 0).all()

    total = dict.fromkeys(("P", "q", "A", "b"), 0.0)
    for item, gone in enumerate((without(d, 1), d, {**d, "G": None, "h": None})):
        own = {k: v.clone().requires_grad_() for k, v in gone.items() if v is not None}
        alone = bp.QPLayer(name, backward).solve(**own)
        torch.testing.assert_close(s.z[item], alone.z, rtol=0, atol=1e-8)
        ((alone.z * weight[item]).sum() + alone.lam.sum()).backward()
        for k in total:
            total[k] = total[k] + own[k].grad
        if item == 0:
            torch.testing.assert_close(s.lam[0, [0, 2]], alone.lam, rtol=0, atol=1e-7)
    for k, expected in total.items():
        torch.testing.assert_close(leaves[k].grad, expected, rtol=1e-6, atol=1e-6)


@given(
    name=st.sampled_from(SOLVERS),
    seed=st.integers(0, 10**6),
    unit=st.sampled_from([1e-8, 1e-3, 1.0, 1e8]),
    gone=st.lists(st.booleans(), min_size=3, max_size=3),
)
@settings(max_examples=30, deadline=None)
def test_in_any_units(name, seed, unit, gone):
    """The same z, in units of 1/unit, as of the rows that have limits alone."""
    d = data(seed=seed)
    gone = torch.tensor(gone)
    scaled = {**d, "P": d["P"] / unit**2, "q": d["q"] / unit}
    scaled |= {"A": d["A"] / unit, "G": d["G"] / unit, "h": d["h"].masked_fill(gone, INF)}
    s = bp.QPLayer(name, on_failure="nan").solve(**scaled)
    plain = bp.QPLayer("dense", on_failure="nan").solve(
        **{**d, "G": d["G"][~gone], "h": d["h"][~gone]}
    )
    assert s.status is plain.status
    if s.status is SolveStatus.SOLVED:
        torch.testing.assert_close(s.z / unit, plain.z, rtol=0, atol=1e-6)
        assert (s.lam[gone] == 0).all()


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_rows_without_limits(layout):
    d = data()
    d["h"][1] = INF
    G = d["G"].to_sparse() if layout == "coo" else d["G"].to_sparse_csr()
    z = bp.QPLayer()(**d)
    torch.testing.assert_close(bp.QPLayer()(**{**d, "G": G}), z, rtol=0, atol=1e-8)


@pytest.mark.parametrize("smoothing", [0.0, 1e-3])
def test_smoothed_gradients_do_not_feel_them(smoothing):
    d = data()
    grads = []
    for own in ({**d, "h": tensor([0.1, INF, 0.1])}, without(d, 1)):
        q = own["q"].clone().requires_grad_()
        bp.QPLayer(smoothing=smoothing)(**{**own, "q": q}).square().sum().backward()
        grads.append(q.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-7)


@pytest.mark.parametrize("value", [-INF, float("nan")])
def test_the_other_infinity_is_refused(value):
    d = data()
    h = d["h"].repeat(3, 1)
    h[1, 2] = value
    words = r"^item 1: h: entry 2 is .*, expected a number or inf"
    with pytest.raises(bp.ProblemError, match=words):
        bp.QPLayer()(**{**d, "h": h})
    s = bp.QPLayer(on_failure="nan").solve(**{**d, "h": h})
    assert [one.name for one in s.status] == ["SOLVED", "BAD_DATA", "SOLVED"]
    with pytest.raises(bp.ProblemError, match=r"b: entry 0 is inf, expected a finite number"):
        bp.QPLayer()(**{**d, "b": tensor([INF])})


@pytest.mark.parametrize("name", available_solvers("cone"))
def test_cones_and_their_rows_without_limits(name):
    q, A, b = tensor([-3.0, -1.0, 1.0]), torch.ones(1, 3).double(), tensor([1.0])
    F = tensor([[2.0, 0.0, 1.0]])
    ball = (None, None, None, 2.0)
    h = tensor([[0.5, INF], [INF, INF], [0.5, 0.2]]).requires_grad_()
    d = tensor([1.5, INF, INF]).requires_grad_()
    G = torch.eye(3).double()[:2]
    layer = bp.SOCPLayer(name)
    s = layer.solve(None, q, A, b, G, h, cones=[(F, None, None, d), ball])
    (s.z * tensor([1.0, 2.0, 4.0])).sum().backward()
    own = [
        layer(None, q, A, b, G[:1], tensor([0.5]), cones=[(F, None, None, 1.5), ball]),
        layer(None, q, A, b, cones=[ball]),
        layer(None, q, A, b, G, tensor([0.5, 0.2]), cones=[ball]),
    ]
    torch.testing.assert_close(s.z, torch.stack(own), rtol=0, atol=1e-7)
    assert (s.lam[h.isinf()] == 0).all() and (h.grad[h.isinf()] == 0).all()
    assert (d.grad[1:] == 0).all() and (h.grad[0, 0] != 0) and (s.cone_duals[0][1:] == 0).all()
    # One program goes another way.
    single = layer(None, q, A, b, cones=[(F, None, None, tensor(INF)), (F, None, None, INF), ball])
    torch.testing.assert_close(single, own[1], rtol=0, atol=1e-7)
    with pytest.raises(bp.ProblemError, match=r"d.*-inf"):
        layer(None, q, A, b, cones=[(F, None, None, -INF), ball])


def market(T=3, n=5, k=2):
    g = torch.Generator().manual_seed(1)
    mu = 0.01 * torch.randn(T, n, generator=g, dtype=torch.float64)
    B = 0.01 * torch.randn(T, n, k, generator=g, dtype=torch.float64)
    return mu, B, torch.full((T, n), 1e-4, dtype=torch.float64)


@pytest.mark.parametrize("solver", ["structured", "auto", "clarabel"])
def test_portfolios_with_limits_on_some_days(solver):
    mu, B, d = market()
    G = torch.zeros(3, 2, 5, dtype=torch.float64)
    G[:, 0, :3], G[:, 1, 3:] = 1.0, 1.0
    h = tensor([[0.3, 0.8], [INF, 0.4], [INF, INF]]).requires_grad_()
    layer = PortfolioLayer(5.0, forward=solver)
    s = layer.solve(mu, B, d, G=G, h=h)
    (s.w * torch.arange(5)).sum().backward()
    assert (h.grad[h.isinf()] == 0).all() and (s.lam[h.isinf()] == 0).all()
    wide = torch.where(h.isinf(), 2.0, h).detach()
    expected = layer.solve(mu, B, d, G=G, h=wide).w
    torch.testing.assert_close(s.w, expected, rtol=0, atol=1e-8)
    free = layer.solve(mu[2:], B[2:], d[2:]).w
    torch.testing.assert_close(s.w[2:], free, rtol=0, atol=1e-8)
    wide[1, 0] = -INF
    with pytest.raises(bp.ProblemError, match=r"h: .*day 1|day 1: h: "):
        layer.solve(mu, B, d, G=G, h=wide)


@pytest.mark.parametrize("solver", ["structured", "auto", "clarabel"])
@pytest.mark.parametrize("form", ["factors", "covariance"])
def test_portfolios_without_days_or_names(solver, form):
    for T, n in ((0, 3), (0, 0), (2, 0)):
        mu = torch.zeros(T, n, dtype=torch.float64, requires_grad=True)
        parts = {"loadings": torch.zeros(T, n, 2).double(), "specific": torch.zeros(T, n).double()}
        if form == "covariance":
            parts = {"covariance": torch.zeros(T, n, n).double()}
        if T:
            with pytest.raises(bp.ProblemError, match=r"mask: day 0 has no name \(2 days"):
                PortfolioLayer(forward=solver).solve(mu, **parts)
        s = PortfolioLayer(forward=solver, on_failure="nan" if T else "raise").solve(mu, **parts)
        assert s.w.shape == (T, n) and len(s.kkt_norm) == T and s.codes.dtype == torch.int64
        assert (s.codes == 5).all()
        s.w.sum().backward()
        assert mu.grad.shape == (T, n)


def test_factor_qps_without_days_or_names():
    for T, n in ((0, 3), (2, 0)):
        q = torch.zeros(T, n, dtype=torch.float64)
        rows = {"G": torch.zeros(T, 4, n).double(), "h": torch.zeros(T, 4).double()}
        s = factor_qp(q, torch.zeros(T, n, 2).double(), q, **rows, on_failure="nan")
        assert s.w.shape == s.lam_lb.shape == (T, n) and s.lam.shape == (T, 4)
        assert s.nu_rows.shape == (T, 0) and s.x.shape == (T, 2) and s.nu.shape == (T,)


@pytest.mark.parametrize("layer", [bp.QPLayer, bp.SOCPLayer])
def test_other_layers_without_items(layer):
    q = torch.zeros(0, 3, dtype=torch.float64)
    P = torch.eye(3, dtype=torch.float64)
    cones = {} if layer is bp.QPLayer else {"cones": [(None, None, None, 1.0)]}
    s = layer().solve(P, q, **cones)
    assert s.z.shape == (0, 3) and len(s.kkt_norm) == 0
