"""QPLayer with P diagonal, sparse, as a pair (B, d) or absent: the dense P's results, projected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import bpqp_portfolio as bp

N = 6
FIELDS = ("z", "nu", "lam", "lam_lb", "lam_ub")
LAYOUTS = {"coo": torch.Tensor.to_sparse_coo, "csr": torch.Tensor.to_sparse_csr}
EACH_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rest(batch=(), seed=0):
    """Everything but P: a budget, two rows and a box, feasible at equal weights."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.randn(*batch, *shape, generator=g, dtype=torch.float64)

    G = rand(2, N)
    return {
        "q": 3 * rand(N),
        "A": torch.ones(1, N, dtype=torch.float64),
        "b": torch.ones(1, dtype=torch.float64),
        "G": G,
        "h": G.mean(-1) + 0.05,
        "lb": torch.zeros(N, dtype=torch.float64),
        "ub": torch.full((N,), 0.6, dtype=torch.float64),
    }


def factors(batch_B=(), batch_d=(), seed=1):
    g = torch.Generator().manual_seed(seed)
    B = torch.randn(*batch_B, N, 2, generator=g, dtype=torch.float64)
    return B, 0.5 + torch.rand(*batch_d, N, generator=g, dtype=torch.float64)


def pattern_P():
    """A tridiagonal P."""
    P = torch.diag(torch.linspace(2.0, 3.0, N, dtype=torch.float64))
    off = torch.diag(torch.full((N - 1,), 0.4, dtype=torch.float64), 1)
    return P + off + off.mT


def solved(P, data, **settings):
    """The fields, and the loss's gradients in every argument of ``data``."""
    data = {k: v.detach().clone().requires_grad_() for k, v in data.items()}
    s = bp.QPLayer(**settings).solve(P, **data)
    weight = torch.linspace(-1.0, 2.0, N, dtype=torch.float64)
    loss = (weight * s.z).sum() + s.nu.sum() + (s.lam.sum() + (s.lam_lb - s.lam_ub).sum())
    loss.backward()
    return [getattr(s, f).detach() for f in FIELDS] + [v.grad for v in data.values()]


def assert_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("backward", ["auto", "kkt", "clarabel"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_vector_is_a_diagonal(batch, backward):
    data = rest(batch)
    diagonal = (0.5 + torch.rand(*batch, N, generator=torch.Generator().manual_seed(2))).double()
    dense = torch.diag_embed(diagonal).requires_grad_()
    diagonal.requires_grad_()
    assert_alike(solved(diagonal, data, backward=backward), solved(dense, data))
    expected = torch.diagonal(dense.grad, dim1=-2, dim2=-1)
    torch.testing.assert_close(diagonal.grad, expected, rtol=1e-7, atol=1e-8)


def test_as_many_diagonals_as_variables_read_as_a_matrix_and_a_pair_tells_them():
    data = rest((N,))
    diagonals = 0.5 + torch.rand(N, N, generator=torch.Generator().manual_seed(2)).double()
    with pytest.raises(bp.ProblemError, match="P: not symmetric"):
        bp.QPLayer()(diagonals, **data)
    empty = torch.zeros(N, 0, dtype=torch.float64)
    found = bp.QPLayer()((empty, diagonals), **data)
    torch.testing.assert_close(found, bp.QPLayer()(torch.diag_embed(diagonals), **data))


@EACH_LAYOUT
@pytest.mark.parametrize("forward", bp.available_solvers("qp"))
def test_sparse_P(layout, forward):
    data, dense = rest(), pattern_P().requires_grad_()
    P = LAYOUTS[layout](dense.detach()).requires_grad_()
    assert_alike(solved(P, data, forward=forward), solved(dense, data))
    assert P.grad.layout == P.layout
    torch.testing.assert_close(P.grad.to_dense(), dense.grad * (dense != 0), rtol=1e-7, atol=1e-9)


@EACH_LAYOUT
@pytest.mark.parametrize("backward", ["auto", "kkt", "clarabel"])
def test_sparse_A_and_G(layout, backward):
    data, make = rest(), LAYOUTS[layout]
    data["G"][:, ::2] = 0.0
    data["h"] = data["G"].mean(-1) + 0.05
    grads = []
    for is_sparse in (False, True):
        own = {k: v.clone() for k, v in data.items()}
        for name in ("A", "G"):
            own[name] = (make(own[name]) if is_sparse else own[name]).requires_grad_()
        s = bp.QPLayer(backward=backward).solve(pattern_P(), **own)
        assert not is_sparse or s.solver in ("piqp", "clarabel")
        (s.z.square().sum() + s.nu.sum() + s.lam.sum()).backward()
        grads.append((s.z.detach(), own["A"].grad.to_dense(), own["G"].grad))
    torch.testing.assert_close(grads[1][0], grads[0][0], rtol=0, atol=1e-9)
    torch.testing.assert_close(grads[1][1], grads[0][1], rtol=1e-6, atol=1e-8)
    expected = grads[0][2] * (data["G"] != 0)
    torch.testing.assert_close(grads[1][2].to_dense(), expected, rtol=1e-6, atol=1e-8)


@EACH_LAYOUT
def test_sparse_matrices_serve_a_whole_batch(layout):
    data, dense = rest((4,)), pattern_P().requires_grad_()
    P = LAYOUTS[layout](dense.detach()).requires_grad_()
    assert_alike(solved(P, data), solved(dense, data))
    torch.testing.assert_close(P.grad.to_dense(), dense.grad * (dense != 0), rtol=1e-7, atol=1e-9)


def test_a_coo_tensor_with_repeated_entries_is_their_sum():
    index = torch.arange(N).repeat(2).expand(2, -1)
    values = torch.full((2 * N,), 0.5, dtype=torch.float64)
    P = torch.sparse_coo_tensor(index, values, (N, N), check_invariants=True)
    eye = torch.eye(N, dtype=torch.float64)
    torch.testing.assert_close(bp.QPLayer()(P, **rest()), bp.QPLayer()(eye, **rest()))


@pytest.mark.parametrize("backward", ["auto", "kkt"])
@pytest.mark.parametrize(
    ("batch", "batch_B", "batch_d"),
    [((), (), ()), ((3,), (), ()), ((3,), (3,), ()), ((3,), (), (3,)), ((2, 3), (2, 1), (3,)),
     ((), (2, 1), (3,))],
)  # fmt: skip
def test_a_pair(batch, batch_B, batch_d, backward):
    """Solution and gradients in B and d are those of the dense matrix made by torch."""
    data, (B, d) = rest(batch), factors(batch_B, batch_d)
    pair = [v.clone().requires_grad_() for v in (B, d)]
    found = solved(tuple(pair), data, backward=backward)
    own = [v.clone().requires_grad_() for v in (B, d)]
    expected = solved(own[0] @ own[0].mT + torch.diag_embed(own[1]), data, backward="kkt")
    assert_alike(found, expected)
    for one, other in zip(pair, own, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", ["diagonal", "pair", "coo"])
def test_gradcheck(kind):
    data = rest((2,))
    layer = bp.QPLayer()
    if kind == "diagonal":
        inputs = (0.5 + torch.rand(N, generator=torch.Generator().manual_seed(3)).double(),)
        make = tuple
    elif kind == "pair":
        inputs, make = factors((2,), ()), tuple
    else:
        P = pattern_P().to_sparse_coo().coalesce()
        back = P.indices().flip(0)
        order = [int((P.indices() == column[:, None]).all(0).nonzero()) for column in back.T]
        inputs = (P.values(),)

        def make(args):
            values = 0.5 * (args[0] + args[0][order])
            entries = torch.sparse_coo_tensor(P.indices(), values, P.shape, check_invariants=True)
            return (entries,)

    def fields(*args):
        args = make(args)
        s = layer.solve(args if len(args) == 2 else args[0], **data)
        return tuple(getattr(s, f) for f in FIELDS)

    inputs = tuple(v.clone().requires_grad_() for v in inputs)
    assert gradcheck(fields, inputs, eps=1e-6, atol=1e-6, rtol=1e-6)


def test_a_large_factor_model_is_the_dense_one():
    """By solvers that lift it into more variables, and by the backward on the active set."""
    g = torch.Generator().manual_seed(0)
    n = 420
    B = 0.1 * torch.randn(n, 4, generator=g, dtype=torch.float64)
    d = 0.01 + 0.01 * torch.rand(n, generator=g, dtype=torch.float64)
    q = 0.01 * torch.randn(n, generator=g, dtype=torch.float64)
    one, lb = torch.ones(1, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    grads = []
    for as_pair in (True, False):
        own = [v.clone().requires_grad_() for v in (B, d)]
        P = tuple(own) if as_pair else own[0] @ own[0].mT + torch.diag(own[1])
        z = bp.QPLayer()(P, q, one, one[0, :1], lb=lb)
        z.square().sum().backward()
        grads.append((z.detach(), own[0].grad, own[1].grad))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_follow_and_gradients_keep_their_own(dtype):
    data = {k: v.to(dtype) for k, v in rest().items()}
    B, d = (v.requires_grad_() for v in factors())
    B32 = B.detach().float().requires_grad_()
    z = bp.QPLayer()((B32, d), **data)
    assert z.dtype == torch.float64
    z.sum().backward()
    assert B32.grad.dtype == torch.float32 and d.grad.dtype == torch.float64
    assert bp.QPLayer()(d.detach().to(dtype), **data).dtype == dtype


def test_only_what_is_asked_for_gets_a_gradient():
    B, d = factors()
    d.requires_grad_()
    # Its solution is a vertex: z does not move with d, its multipliers do.
    bp.QPLayer().solve((B, d), **rest()).nu.sum().backward()
    assert B.grad is None and d.grad.abs().max() > 0.01


def test_a_failed_item_adds_nothing_to_shared_factors():
    data = rest((3,))
    data["b"] = torch.tensor([[1.0], [99.0], [1.0]], dtype=torch.float64)
    B, d = (v.requires_grad_() for v in factors())
    bp.QPLayer(on_failure="nan")((B, d), **data).nansum().backward()
    good = {k: (v[[0, 2]] if k in ("q", "G", "h", "b") else v) for k, v in data.items()}
    own = [v.detach().clone().requires_grad_() for v in (B, d)]
    bp.QPLayer()(tuple(own), **good).sum().backward()
    torch.testing.assert_close(B.grad, own[0].grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(d.grad, own[1].grad, rtol=1e-9, atol=1e-12)


EYE = torch.eye(N, dtype=torch.float64)
ONE = torch.ones(N, dtype=torch.float64)
BAD_P = {
    r"P: a pair \(B, d\) stands for .* got 3 items": (EYE, ONE, ONE),
    r"P: both of \(B, d\) are required": (EYE, None),
    r"P: in the pair \(B, d\), B is .* got \(6, 6\) and \(3,\)": (EYE, ONE[:3]),
    r"P: expected shape \(\.\.\., 6, 6\).* got \(3, 3\)": (EYE[:3], ONE[:3]),
    r"P's d: entry 2 is -1\.0, expected at least 0": (EYE, ONE - 2 * EYE[2]),
    r"P's d: entry 0 is -1\.0": -ONE,
    r"P's B: entry \(1, 1\) is nan": (torch.where(EYE * EYE[1] > 0, np.nan, EYE), ONE),
    r"P's B: expected a tensor of floating point": (EYE.long(), ONE),
    r"P: a sparse tensor may be .* \(2, 6, 6\)": torch.stack([EYE, EYE]).to_sparse_coo(),
    r"P: a sparse tensor may be .*torch\.float64": EYE.to_sparse(1),
    r"P: a sparse tensor may be .*torch\.int64": EYE.long().to_sparse_csr(),
    r"P: not symmetric, entry": EYE.roll(1, 0).to_sparse_coo(),
    r"P: expected shape .* got \(3, 3\)": torch.eye(3).double().to_sparse_csr(),
    r"P: entry 0 is inf": torch.diag(np.inf * EYE[0]).to_sparse_coo(),
}


@pytest.mark.parametrize(("message", "P"), BAD_P.items())
def test_a_P_that_is_none_is_refused_by_name(message, P):
    with pytest.raises(bp.ProblemError, match=message):
        bp.QPLayer()(P, **rest())


@pytest.mark.filterwarnings("ignore:Sparse CSC tensor support:UserWarning")
def test_other_sparse_layouts_are_refused_by_name():
    with pytest.raises(bp.ProblemError, match=r"A: a sparse tensor may be .*torch\.sparse_csc"):
        bp.QPLayer()(EYE, **{**rest(), "A": ONE[None].to_sparse_csc()})


def test_vectors_are_not_sparse():
    data = rest()
    with pytest.raises(bp.ProblemError, match="q: a sparse tensor may be P, A or G"):
        bp.QPLayer()(EYE, **{**data, "q": data["q"].to_sparse_coo()})


def test_a_batch_of_factors_that_does_not_broadcast_is_named():
    with pytest.raises(bp.ProblemError, match=r"do not broadcast: .*P's B \(2,\).*q \(3,\)"):
        bp.QPLayer()(factors((2,)), **rest((3,)))


def test_a_linear_program_and_its_ridge():
    """On the simplex: a vertex without a ridge; with a large one its closed form."""
    q = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    one, lb = torch.ones(1, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    plain = bp.QPLayer().solve(None, q, one, one[0, :1], lb=lb)
    assert plain.z.tolist() == [0.0, 1.0, 0.0] and plain.ridge is None
    plain.z[1].backward()
    assert q.grad.abs().max() < 1e-12
    q.grad = None

    soft = bp.QPLayer(ridge=1.0).solve(None, q, one, one[0, :1], lb=lb)
    # min z·q + ‖z‖²: (z₂, z₃) = (¾, ¼) since 2(z₂ − z₃) = q₃ − q₂.
    torch.testing.assert_close(soft.z, torch.tensor([0.0, 0.75, 0.25], dtype=torch.float64))
    assert soft.ridge.item() == pytest.approx(0.75**2 + 0.25**2)
    soft.z[1].backward()
    assert q.grad.tolist() == pytest.approx([0.0, -0.25, 0.25])


def test_the_usual_ridge_of_a_linear_program_is_small_and_reported():
    g = torch.Generator().manual_seed(5)
    q = torch.randn(3, 8, generator=g, dtype=torch.float64)
    one, lb = torch.ones(1, 8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    plain = bp.QPLayer().solve(None, q, one, one[0, :1], lb=lb)
    s = bp.QPLayer(ridge=1e-6).solve(None, q, one, one[0, :1], lb=lb)
    torch.testing.assert_close(s.z, plain.z, rtol=0, atol=1e-12)
    torch.testing.assert_close(s.ridge, 1e-6 * s.z.square().sum(-1))
    assert s.ridge.shape == (3,) and (s.ridge < 2e-6).all() and not s.ridge.requires_grad


def test_a_ridge_gives_a_gradient_where_a_whole_face_is_optimal():
    q = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    one, lb = torch.ones(1, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    layer = bp.QPLayer(ridge=0.1)

    def z(q):
        return layer(None, q, one, one[0, :1], lb=lb)

    torch.testing.assert_close(z(q), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
    assert gradcheck(z, q.requires_grad_(), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["dense", "diagonal", "pair", "coo"])
def test_a_ridge_is_a_multiple_of_the_identity_for_every_kind_of_P(kind):
    data, P = rest(), {"dense": pattern_P(), "diagonal": ONE, "pair": factors()}.get(kind)
    P = pattern_P().to_sparse_coo() if P is None else P
    dense = {"diagonal": EYE, "pair": factors()[0] @ factors()[0].mT + torch.diag(factors()[1])}
    expected = bp.QPLayer()(dense.get(kind, pattern_P()) + 0.2 * EYE, **data)
    torch.testing.assert_close(bp.QPLayer(ridge=0.1)(P, **data), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [-1.0, "much", float("inf")])
def test_a_ridge_that_is_none_is_refused(value):
    with pytest.raises(bp.ConfigError, match="ridge"):
        bp.QPLayer(ridge=value)
