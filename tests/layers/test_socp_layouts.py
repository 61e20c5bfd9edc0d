"""How the arguments of a cone program lie in memory changes neither answer nor gradient."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from bpqp_portfolio import SOCPLayer, SolveStatus
from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.socp import SOCP
from bpqp_portfolio.solvers.registry import available_solvers, get_solver

SOLVERS = available_solvers("cone")
NAMES = ("P", "q", "A", "b", "G", "h", "lb", "ub")
KINDS = ("bent", "singular", "ball")


def transposed(x):
    return x.mT.contiguous().mT if x.ndim > 1 else x


def strided(x):
    if not x.ndim:
        return torch.stack([x, x])[1]
    return torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0]


def windowed(x):
    if not x.ndim:
        return x
    wide = torch.zeros(*(2 * k for k in x.shape), dtype=x.dtype)
    place = tuple(slice(1, 1 + k) for k in x.shape)
    wide[place] = x
    return wide[place]


def expanded(x):
    return x.expand(3, *x.shape)


def negated(x):
    """−(−x), of which torch remembers the outer sign only."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


LAYOUTS = {f.__name__: f for f in (transposed, strided, windowed, expanded, negated)}


def data(kind: str) -> dict[str, torch.Tensor]:
    """Arguments by name, the parts of the cones as "F0", "g0", …"""
    rng = np.random.default_rng(4)
    n = 4
    A, G, z = rng.normal(size=(2, n)), rng.normal(size=(2, n)), rng.normal(size=n)
    out = {"q": rng.normal(size=n), "A": A, "b": A @ z}
    if kind != "ball":
        diagonal = [0.0, 0.0, 1.0, 1.0] if kind == "singular" else [1.0, 2.0, 3.0, 4.0]
        out |= {"P": np.diag(diagonal), "G": G, "h": G @ z + 0.1, "lb": z - 1.0, "ub": z + 1.0}
        F, g, c = rng.normal(size=(3, n)), rng.normal(size=3), 0.1 * rng.normal(size=n)
        d = np.linalg.norm(F @ z + g) - c @ z + 0.1
        out |= {"F1": F, "g1": g, "c1": c, "d1": d}
    out |= {"g0": -z, "d0": 0.5}
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in out.items()}


def solve(layer, arguments):
    cones = [
        tuple(arguments.get(f"{part}{i}") for part in "Fgcd")
        for i in range(2)
        if f"d{i}" in arguments
    ]
    return layer(cones=cones, **{k: arguments.get(k) for k in NAMES})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOLVERS)
def test_answers_and_gradients(name, kind, layout):
    layer, seen = SOCPLayer(name), []
    for change in (lambda x: x, LAYOUTS[layout]):
        leaves = {k: v.clone().requires_grad_() for k, v in data(kind).items()}
        z = solve(layer, {k: change(v) for k, v in leaves.items()})
        one = z.reshape(-1, 4)[0]
        seen.append([one, *torch.autograd.grad(one.square().sum(), list(leaves.values()))])
    for first, second in zip(*seen, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-9, atol=1e-9)


def backwards(x):
    return np.ascontiguousarray(x[::-1])[::-1]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("change", [np.asfortranarray, backwards, read_only])
@pytest.mark.parametrize("kind", [*KINDS, "factor"])
@pytest.mark.parametrize("name", SOLVERS)
def test_numpy_in_any_order(name, kind, change):
    given = {k: v.numpy() for k, v in data("bent" if kind == "factor" else kind).items()}
    found = []
    for own in (np.array, change):
        arguments = {k: own(v) if v.ndim else v for k, v in given.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rest = {k: v for k, v in arguments.items() if k in NAMES}
            rest.setdefault("P", np.zeros((4, 4)))
            if kind == "factor":
                rest["P"] = FactorMatrix(own(rest["P"][:, :2]), own(rest["q"] ** 2))
            cones = [
                tuple(arguments.get(f"{part}{i}") for part in "Fgcd")
                for i in range(2)
                if f"d{i}" in arguments
            ]
            found.append(get_solver(name, "cone").solve(SOCP(QP(**rest), cones)))
        for k, v in arguments.items():
            np.testing.assert_array_equal(v, given[k])
    assert found[0].status is found[1].status is SolveStatus.SOLVED
    np.testing.assert_allclose(found[1].z, found[0].z, rtol=1e-9, atol=1e-9)
