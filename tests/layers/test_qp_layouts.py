"""How a tensor lies in memory changes neither the answer nor the gradient."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import bpqp_portfolio as bp

SOLVERS = bp.available_solvers("qp")


def transposed(x):
    return x.mT.contiguous().mT if x.ndim > 1 else x.clone()


def strided(x):
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def read_only(x):
    array = x.numpy().copy()
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def expanded(x):
    return x.clone().expand(3, *x.shape)


def negated(x):
    """−(−x), of which torch remembers the outer sign only."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


LAYOUTS = {f.__name__: f for f in (transposed, strided, read_only, expanded, negated)}


def data(singular):
    rng = np.random.default_rng(4)
    n = 4
    diagonal = [0.0, 0.0, 1.0, 1.0] if singular else [1.0, 2.0, 3.0, 4.0]
    A, G = rng.normal(size=(2, n)), rng.normal(size=(2, n))
    z = rng.normal(size=n)
    values = (
        np.diag(diagonal),
        np.zeros(n) if singular else rng.normal(size=n),
        A,
        A @ z,
        G,
        G @ z + 0.1,
        z - 1.0,
        z + 1.0,
    )
    return [torch.tensor(v, dtype=torch.float64) for v in values]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("name", SOLVERS)
def test_answers_and_gradients(name, layout, singular, bounded):
    given = data(singular)[: 8 if bounded else 6]
    layer, seen = bp.QPLayer(name), []
    for change in (torch.clone, LAYOUTS[layout]):
        leaves = [x.clone().requires_grad_() for x in given]
        arguments = [change(x) for x in given] if change is read_only else None
        if arguments is None:
            held = [x + 0.0 for x in leaves]
            arguments = [change(x) for x in held]
        found = layer(*arguments)
        one = found.reshape(-1, 4)[0]
        if change is read_only:
            seen.append((one.detach(), None))
            continue
        grads = torch.autograd.grad(one.square().sum(), leaves)
        seen.append((one.detach(), grads))
    torch.testing.assert_close(seen[0][0], seen[1][0], rtol=1e-9, atol=1e-9)
    if seen[1][1] is not None:
        for first, second in zip(*(grads for _, grads in seen), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_numpy_in_any_order(name):
    solver = bp.solvers.get_solver(name)
    P, q, A, b, G, h, lb, ub = (x.numpy() for x in data(True))
    plain = solver.solve(bp.problems.QP(P, q, A, b, G, h, lb, ub))
    backwards = [np.ascontiguousarray(x[::-1])[::-1] for x in (q, b, h, lb, ub)]
    q, b, h, lb, ub = backwards
    other = solver.solve(
        bp.problems.QP(np.asfortranarray(P), q, np.asfortranarray(A), b, G.T.copy().T, h, lb, ub)
    )
    assert plain.status is other.status is bp.SolveStatus.SOLVED
    np.testing.assert_allclose(plain.z, other.z, atol=1e-10)


def test_a_gradient_may_be_negated_in_that_way():
    assert negated(torch.ones(1)).is_neg()
    grads = []
    for change in (torch.clone, negated):
        q = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
        z = bp.QPLayer("dense")(torch.eye(2, dtype=torch.float64), q)
        change(z).sum().backward()
        grads.append(q.grad)
    torch.testing.assert_close(*grads)
