"""Figures about our own layer: one call for a batch, and what the layer costs above its solver."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import bpqp_portfolio as bp
from bpqp_portfolio.problems.qp import QP
from bpqp_portfolio.solvers.common.protocol import SolverOptions
from bpqp_portfolio.solvers.registry import get_solver

from .instances import make


def _layer(pair: str, eps: float = 1e-8) -> bp.QPLayer:
    """A layer by ``forward/backward``, or with its own defaults for an empty string."""
    if not pair:
        return bp.QPLayer(tolerance=eps)
    forward, _, backward = pair.partition("/")
    return bp.QPLayer(forward=forward, backward=backward, tolerance=eps)


def interleaved(
    runs: dict[str, Callable[[], Any]], rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Median and quartiles in seconds of each run, blocks of ``seconds`` taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            end = time.perf_counter() + seconds
            while True:
                start = time.perf_counter()
                run()
                stop = time.perf_counter()
                times[name].append(stop - start)
                if stop > end:
                    break
    out = {}
    for name, values in times.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        out[name] = {"median": middle, "iqr": [low, high], "calls": len(values)}
    return out


def batch(pair: str, n: int, m: int, items: int, rounds: int = 5) -> dict[str, Any]:
    """Forward and backward of ``items`` QPs in one call, against one call for each."""
    layer = _layer(pair)
    problems = [make("qp", n, m, seed).data for seed in range(items)]
    together = {
        k: torch.from_numpy(np.stack([p[k] for p in problems])).requires_grad_()
        for k in problems[0]
    }
    alone = [{k: torch.from_numpy(v).requires_grad_() for k, v in p.items()} for p in problems]

    def single() -> None:
        for leaves in alone:
            layer(**leaves).sum().backward()

    runs = {"one call": lambda: layer(**together).sum().backward(), "single calls": single}
    return interleaved(runs, rounds, 0.0)


def overhead(pair: str, n: int, m: int, rounds: int = 10) -> dict[str, Any]:
    """The layer's forward pass against its solver's ``solve`` on a ready QP, same options.

    "layer" records for a backward pass, "no_grad" does not; both check and convert their tensors.
    """
    layer, data = _layer(pair), make("qp", n, m).data
    leaves = {k: torch.from_numpy(v) for k, v in data.items()}
    recording = {k: torch.from_numpy(v).requires_grad_() for k, v in data.items()}
    name = layer.solve(**leaves).solver
    solver, problem, options = get_solver(name), QP(**data), SolverOptions(tolerance=1e-8)

    def no_grad() -> None:
        with torch.no_grad():
            layer(**leaves)

    runs = {
        "solver": lambda: solver.solve(problem, options=options),
        "no_grad": no_grad,
        "layer": lambda: layer(**recording),
    }
    return {"chosen": name, **interleaved(runs, rounds, 0.1)}
