"""Differentiable layers on one day's portfolio QP: those of the paper's tables and two more."""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .instances import Array, Instance
from .peers import PEERS, build
from .peers.base import TorchPeer
from .portfolio_days import Days

_OWN = {"cvxpylayers": "cvxpylayers (factor form)", "osqp_torch": "osqp.nn.torch"}
METHODS = ("authors", "proxsuite", "dqp", "qpth", "cvxpylayers", "osqp_torch")
_PATIENCE = 3.0  # seconds of repeats of a cell


def name_of(method: str) -> str:
    return _OWN.get(method) or PEERS[method].label


class FactorCvxpy(TorchPeer):
    """cvxpylayers on ½‖Bᵀw‖² + ½‖√d w‖² + qᵀw; building the layer is not timed."""

    built: tuple[int, int] | None = None

    def build(self, instance: Instance) -> None:
        n, k = self.leaves["B"].shape
        if self.built == (n, k):
            return
        cp = importlib.import_module("cvxpy")
        layer = importlib.import_module("cvxpylayers.torch").CvxpyLayer
        w, q, root, factor = cp.Variable(n), cp.Parameter(n), cp.Parameter(n), cp.Parameter((k, n))
        risk = cp.sum_squares(factor @ w) + cp.sum_squares(cp.multiply(root, w))
        problem = cp.Problem(cp.Minimize(0.5 * risk + q @ w), [cp.sum(w) == 1, w >= 0])
        self.layer = layer(problem, parameters=[factor, root, q], variables=[w])
        self.built = (n, k)

    def solve(self, B: Tensor, d: Tensor, q: Tensor, **_: Tensor) -> Tensor:
        return self.layer(B.mT, d.sqrt(), q)[0]


class OsqpTorch(TorchPeer):
    """osqp.nn.torch.OSQP with the whole P and OSQP at 1e-5, as the authors' way."""

    def build(self, instance: Instance) -> None:
        module = importlib.import_module("osqp.nn.torch")
        n = instance.n
        P_at = np.divmod(np.arange(n * n), n)
        rows = np.concatenate([np.zeros(n, dtype=int), np.arange(1, n + 1)])
        A_at = (rows, np.concatenate([np.arange(n)] * 2))
        self.layer = module.OSQP(P_at, (n, n), A_at, (n + 1, n), eps_abs=1e-5, eps_rel=1e-5)

    def solve(self, P: Tensor, q: Tensor, **_: Tensor) -> Tensor:
        n = len(q)
        low = torch.cat([q.new_ones(1), q.new_zeros(n)])
        high = torch.cat([q.new_ones(1), q.new_full((n,), 1e20)])
        return self.layer(P.reshape(-1), q, q.new_ones(2 * n), low, high).reshape(-1)


def adapter(method: str) -> Any:
    """Raises what importing it raises where it is not installed."""
    if method == "cvxpylayers":
        importlib.import_module("cvxpylayers.torch")
        return FactorCvxpy()
    if method == "osqp_torch":
        importlib.import_module("osqp.nn.torch")
        return OsqpTorch()
    return build(method)


class Timed:
    """One method on some days: seconds of forward + backward, or why there are none."""

    def __init__(self, method: str, days: Days, risk_aversion: float, count: int) -> None:
        self.method, self.times, self.problem = method, [], ""
        chosen = np.linspace(0, len(days.mu) - 1, count).astype(int)
        self.qps = [days.qp(int(t), risk_aversion) for t in chosen]
        self.errors: list[float] = []
        try:
            self.peer = adapter(method)
        except ImportError as error:
            self.problem = f"not installed: {error.name}"

    def turn(self, number: int, truth: Array) -> None:
        """One day, a call to warm up and one that counts; nothing once time is spent."""
        if self.problem or sum(self.times) > _PATIENCE:
            return
        instance, loss, factors = self.qps[number % len(self.qps)]
        try:
            if self.method == "cvxpylayers":
                instance = Instance(
                    "qp", instance.n, 1, instance.seed, {**factors, "q": instance.data["q"]}
                )
            self.peer.load(instance, loss)
            for last in (False, True) if not self.times or self.times[-1] < 1 else (True,):
                start = time.perf_counter()
                self.peer.backward(self.peer.forward())
                if last:
                    self.times.append(time.perf_counter() - start)
            found = np.asarray(self.peer.gradients()["q"], dtype=float)
            scale = max(float(np.linalg.norm(truth)), 1e-12)
            self.errors.append(float(np.linalg.norm(found - truth)) / scale)
        except Exception as error:  # whatever a peer raises is its cell's text
            lines = str(error).strip().splitlines() or [""]
            self.problem = f"{type(error).__name__}: {lines[-1]}"[:90]

    def cell(self) -> dict[str, Any]:
        if self.problem or not self.times:
            return {"problem": self.problem or "no time left"}
        return {
            "ms": 1000 * float(np.median(self.times)),
            "calls": len(self.times),
            "gradient_error": float(np.median(self.errors)),
        }
