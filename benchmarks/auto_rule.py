"""Our solvers side by side on every class of problem: is the choice of ``auto`` the right one?

    python -m benchmarks.auto_rule [--large] [--seconds 0.3]

Forward: ``solve`` of every installed solver on a ready QP, eps = 1e-8, in turns; in brackets where
that accuracy was not reached. Backward: the layer's backward pass for every kind of backward.
Prints a Markdown table; bold is what ``auto`` takes, the last column how much slower that is than
the fastest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

import bpqp_portfolio as bp
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.qp import QP
from bpqp_portfolio.problems.solution import SolveStatus
from bpqp_portfolio.solvers.common.protocol import SolverOptions
from bpqp_portfolio.solvers.registry import available_solvers, get_solver

from .instances import make
from .render import grid, milliseconds

Data = dict[str, Any]
_EPS = 1e-8
_ROUNDS = 5
_SLOW = 5.0
_BACKWARD = ("auto", "kkt", "osqp")


def paper(kind: str, n: int, m: int) -> Data:
    """A problem of the paper's tables."""
    instance = make(kind, n, m)
    box = {"lb": np.zeros(n), "ub": np.ones(n)} if instance.boxed else {}
    return {**instance.data, **box}


def portfolio(n: int, k: int = 10, cap: float = 0.05) -> Data:
    """A long-only, fully invested portfolio with a cap, daily scale, covariance in factor form."""
    rng = np.random.default_rng(n)
    B, d = 0.005 * rng.standard_normal((n, k)), rng.uniform(1e-4, 9e-4, n)
    return {
        "P": FactorMatrix(10 * B / np.sqrt(10), 10 * d),
        "q": -0.002 * rng.standard_normal(n),
        "A": np.ones((1, n)),
        "b": np.ones(1),
        "lb": np.zeros(n),
        "ub": np.full(n, max(cap, 5 / n)),
    }


def banded(n: int) -> Data:
    """A sparse QP: tridiagonal P, each row of A and G on three neighbours, bounds."""
    rng = np.random.default_rng(n)
    P = sparse.diags_array([np.full(n - 1, -1.0), np.full(n, 2.1), np.full(n - 1, -1.0)],
                           offsets=[-1, 0, 1], format="csr")  # fmt: skip
    m = n // 10

    def rows(first: int) -> Any:
        start = first + 10 * np.arange(m)
        columns = (start[:, None] + np.arange(3)).reshape(-1)
        values = rng.uniform(0.5, 1.5, 3 * m)
        return sparse.csr_array((values, columns, 3 * np.arange(m + 1)), shape=(m, n))

    A, G, z = rows(0), rows(5), rng.uniform(-1, 1, n)
    q = rng.standard_normal(n)
    return {"P": P, "q": q, "A": A, "b": A @ z, "G": G, "h": G @ z,
            "lb": np.full(n, -2.0), "ub": np.full(n, 2.0)}  # fmt: skip


def classes(large: bool) -> dict[str, Callable[[], Data]]:
    """Every class by name; ``large`` adds those that take minutes."""
    out: dict[str, Callable[[], Data]] = {
        "dense QP 10x5": lambda: paper("qp", 10, 5),
        "dense QP 100x20": lambda: paper("qp", 100, 20),
        "dense QP 500x100": lambda: paper("qp", 500, 100),
        "LP 100x20, ε = 1e-6": lambda: paper("lp", 100, 20),
        "LP in a box 100x20": lambda: paper("boxlp", 100, 20),
        "portfolio, factors, n = 100": lambda: portfolio(100),
        "portfolio, factors, n = 300": lambda: portfolio(300),
        "portfolio, factors, n = 600": lambda: portfolio(600),
        "sparse QP, n = 300": lambda: banded(300),
        "sparse QP, n = 3000": lambda: banded(3000),
    }
    if large:
        out["dense QP 1000x200"] = lambda: paper("qp", 1000, 200)
        out["LP in a box 500x100"] = lambda: paper("boxlp", 500, 100)
        out["portfolio, factors, n = 2000"] = lambda: portfolio(2000)
        out["sparse QP, n = 20000"] = lambda: banded(20_000)
    return out


def forward(data: Data, seconds: float) -> dict[str, tuple[float, str]]:
    """Median seconds and status by solver; "auto" is among them, with whom it chose."""
    problem, options = QP(**data), SolverOptions(tolerance=_EPS)
    times: dict[str, list[float]] = {}
    notes: dict[str, str] = {}
    for name in available_solvers("qp"):
        start = time.perf_counter()
        solution = get_solver(name).solve(problem, options=options)
        times[name] = [time.perf_counter() - start]
        notes[name] = "" if solution.status is SolveStatus.SOLVED else solution.status.name.lower()
        if name == "auto":
            chosen = solution.solver
    for _ in range(_ROUNDS):
        for name in [n for n, t in times.items() if t[0] < _SLOW]:
            solver, end = get_solver(name), time.perf_counter() + seconds / _ROUNDS
            while True:
                start = time.perf_counter()
                solver.solve(problem, options=options)
                stop = time.perf_counter()
                times[name].append(stop - start)
                if stop > end:
                    break
    out = {name: (float(np.median(t[1:] or t)), notes[name]) for name, t in times.items()}
    out["auto"] = (out["auto"][0], chosen)
    return out


def backward(data: Data, seconds: float) -> dict[str, float]:
    """Median seconds of the layer's backward pass by kind of backward, forward by "auto"."""
    arguments = {k: _tensor(v) for k, v in data.items()}
    leaf = arguments["q"].requires_grad_()
    times: dict[str, list[float]] = {name: [] for name in _BACKWARD}
    layers = {name: bp.QPLayer(backward=name, tolerance=_EPS) for name in _BACKWARD}
    z = {name: layer(**arguments).sum() for name, layer in layers.items()}
    for _ in range(_ROUNDS):
        for name in _BACKWARD:
            end = time.perf_counter() + seconds / _ROUNDS
            while True:
                leaf.grad = None
                start = time.perf_counter()
                z[name].backward(retain_graph=True)
                stop = time.perf_counter()
                times[name].append(stop - start)
                if stop > end:
                    break
    return {name: float(np.median(t)) for name, t in times.items()}


def _tensor(value: Any) -> Any:
    if isinstance(value, FactorMatrix):
        return torch.from_numpy(value.B), torch.from_numpy(value.d)
    if sparse.issparse(value):
        csr = sparse.csr_array(value)
        parts = (torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in (csr.indptr, csr.indices))
        return torch.sparse_csr_tensor(*parts, torch.from_numpy(csr.data), csr.shape)
    tensor: Tensor = torch.from_numpy(value)
    return tensor


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto_rule")
    parser.add_argument("--large", action="store_true", help="also problems that take minutes")
    parser.add_argument("--seconds", type=float, default=0.3, help="of repeats for every figure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="classes whose name contains this")
    options = parser.parse_args()
    names = [name for name in available_solvers("qp") if name != "auto"]
    front, back = [], []
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        chosen_classes = {k: v for k, v in classes(options.large).items() if options.only in k}
        for title, build in tqdm(chosen_classes.items(), unit="class"):
            data = build()
            found = forward(data, options.seconds)
            taken, chosen = found["auto"]
            texts = []
            for name in names:
                seconds, note = found[name]
                text = f"({milliseconds(seconds)})" if note else milliseconds(seconds)
                texts.append(f"**{text}**" if name == chosen else text)
            best = min(found[name][0] for name in names if not found[name][1])
            front.append([title, *texts, milliseconds(taken), f"{taken / best:.1f}"])
            seconds = backward(data, options.seconds)
            ratio = seconds["auto"] / min(seconds.values())
            back.append([title, *map(milliseconds, seconds.values()), f"{ratio:.1f}"])
    print(grid(["forward, ms", *names, "auto", "auto / best"], front))
    print()
    print(grid(["backward, ms", *_BACKWARD, "auto / best"], back))


if __name__ == "__main__":
    main()
