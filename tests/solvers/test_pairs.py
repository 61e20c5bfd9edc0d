"""Any forward with any backward: the gradient is that of the KKT conditions, whoever solved them.

The reference solves the full KKT system of the active set, found from the data alone, by numpy.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio import QPLayer
from bpqp_portfolio.solvers import available_solvers
from bpqp_portfolio.solvers.registry import DIRECT

NAMES = ("P", "q", "A", "b", "G", "h", "lb", "ub")


def _problem(seed, n, p, m, rank, width):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, rank))
    A, G = rng.normal(size=(p, n)), rng.normal(size=(m, n))
    z = rng.uniform(-0.5, 0.5, n)
    return {
        "P": X @ X.T / rank + 0.1 * np.eye(n),
        "q": 2.0 * rng.normal(size=n),
        "A": A,
        "b": A @ z,
        "G": G,
        "h": G @ z + 0.1,
        "lb": np.full(n, -width),
        "ub": np.full(n, width),
    }


PROBLEMS = {
    "general": _problem(0, 8, 2, 6, 16, 0.8),
    "no free row": _problem(1, 6, 1, 2, 12, 50.0),
    "tight box": _problem(2, 12, 1, 3, 4, 0.6),
}


def reference_gradients(data, loss_gradient, solution):
    """Gradients of lossᵀz from one dense solve over z, ν, λ of active rows and active bounds."""
    z, nu, lam, lam_lb, lam_ub = solution
    rows, lower, upper = lam > 1e-6, lam_lb > 1e-6, lam_ub > 1e-6
    n, eye = len(z), np.eye(len(z))
    C = np.concatenate([data["A"], data["G"][rows], -eye[lower], eye[upper]])
    K = np.block([[data["P"], C.T], [C, np.zeros((len(C), len(C)))]])
    t = np.linalg.solve(K, -np.concatenate([loss_gradient, np.zeros(len(C))]))
    dz = t[:n]
    sizes = np.cumsum([len(nu), rows.sum(), lower.sum()])
    dnu, drows, dlower, dupper = np.split(t[n:], sizes)
    dlam = np.zeros(len(lam))
    dlam[rows] = drows
    out = {
        "P": 0.5 * (np.outer(dz, z) + np.outer(z, dz)),
        "q": dz,
        "A": np.outer(dnu, z) + np.outer(nu, dz),
        "b": -dnu,
        "G": np.outer(dlam, z) + np.outer(np.where(rows, lam, 0.0), dz),
        "h": -dlam,
        "lb": np.zeros(n),
        "ub": np.zeros(n),
    }
    out["lb"][lower], out["ub"][upper] = dlower, -dupper
    return out


@pytest.fixture(scope="module")
def references():
    """Loss gradient and reference gradients of every problem."""
    out = {}
    for name, data in PROBLEMS.items():
        given = [torch.tensor(data[k], dtype=torch.float64) for k in NAMES]
        s = QPLayer(forward="clarabel", backward=DIRECT, tolerance=1e-10).solve(*given)
        solution = [v.numpy() for v in (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub)]
        loss = np.random.default_rng(5).normal(size=len(data["q"]))
        out[name] = loss, reference_gradients(data, loss, solution)
    return out


def test_the_problems_have_active_constraints_of_every_kind(references):
    gradients = [g for _, g in references.values()]
    assert all(any(np.any(g[k] != 0) for g in gradients) for k in NAMES)
    assert any(np.any(g["h"] == 0) for g in gradients)


@pytest.mark.parametrize("case", PROBLEMS)
@pytest.mark.parametrize(
    "backward", ["auto", DIRECT, *(s for s in available_solvers("qp") if s != "auto")]
)
@pytest.mark.parametrize("forward", available_solvers("qp"))
def test_every_pair_gives_the_gradient(forward, backward, case, references):
    data, (loss, expected) = PROBLEMS[case], references[case]
    given = [torch.tensor(data[k], dtype=torch.float64, requires_grad=True) for k in NAMES]
    z = QPLayer(forward=forward, backward=backward, tolerance=1e-9)(*given)
    (torch.tensor(loss) @ z).backward()
    for name, tensor in zip(NAMES, given, strict=True):
        unit = max(1.0, np.abs(expected[name]).max(initial=0.0))
        np.testing.assert_allclose(
            tensor.grad.numpy(), expected[name], rtol=0, atol=1e-5 * unit, err_msg=name
        )
