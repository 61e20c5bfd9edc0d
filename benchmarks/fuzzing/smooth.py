"""Smooth convex programs in torch callables: entropy and its like, known by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import bpqp_portfolio as bp

from .judge import GRADIENT, Finding, differs, judge_status, judge_z
from .problem import Array, Problem, Random, spread, well
from .trial import guarded

_NEAR = (1e-4, 1e-2)


@dataclass(frozen=True)
class SmoothTrial:
    """min cᵀz + s Σ φ(z)  s.t.  1ᵀz = b, lo ≤ z ≤ hi; φ(z) = z log z, or ½z² + ¼z⁴.

    ``problem`` is its quadratic model at the solution: P = s φ″(z). z is in units of ``z``, the
    objective of ``objective``, the limits of ``rows`` (2n,).
    """

    problem: Problem
    entropy: bool
    c: Array
    s: float
    lo: Array
    hi: Array
    z: float
    objective: float
    rows: Array
    start: Array
    w: Array

    @classmethod
    def draw(cls, rng: Random) -> SmoothTrial:
        entropy = bool(rng.random() < 0.6)
        kept: list[Any] = []

        def make() -> Problem:
            n = int(rng.integers(3, 8))
            z = spread(rng, (0.05, 0.5), n) if entropy else rng.normal(size=n)
            z = z / z.sum() if entropy else z
            s = float(spread(rng, (0.3, 2.0), 1)[0])
            slope = 1.0 + np.log(z) if entropy else z + z**3
            curve = 1.0 / z if entropy else 1.0 + 3.0 * z**2
            small = rng.random() < 0.4
            duals, slacks = (_NEAR, _NEAR) if small else ((0.1, 2.0), (0.1, 2.0))
            low, high = (int(v) for v in rng.multinomial(int(rng.integers(0, n)), [0.5, 0.5]))
            order = rng.permutation(n)
            lower, upper = np.zeros(n), np.zeros(n)
            lower[order[:low]] = spread(rng, duals, low)
            upper[order[low : low + high]] = spread(rng, duals, high)
            room = (
                z * np.minimum(spread(rng, slacks, n), 0.9) if entropy else spread(rng, slacks, n)
            )
            lo = np.where(lower > 0, z, z - room)
            hi = np.where(upper > 0, z, z + spread(rng, slacks, n))
            nu = rng.normal(size=1)
            c = -(s * slope + nu - lower + upper)
            A, none = np.ones((1, n)), np.zeros(0)
            kept[:] = [c, s, lo, hi]
            P = np.diag(s * curve)
            return Problem(
                P, c, A, A @ z, np.zeros((0, n)), none, lo, hi, z, nu, none, lower, upper,
                none.astype(bool), smooth=frozenset({"q", "b", "lb", "ub"}),
            )  # fmt: skip

        problem = well(make)
        n = problem.n
        units = 10.0 ** rng.uniform(-6, 6, 2) if rng.random() < 0.5 else np.ones(2)
        rows = 10.0 ** rng.uniform(-4, 4, 2 * n) if rng.random() < 0.3 else np.ones(2 * n)
        inside = np.full(n, problem.b[0] / n) if entropy else problem.z + 0.3 * rng.normal(size=n)
        c, s, lo, hi = kept
        return cls(
            problem, entropy, c, s, lo, hi, float(units[0]), float(units[1]), rows, inside,
            rng.normal(size=n),
        )  # fmt: skip

    def run(self, solver: str) -> Finding | None:
        return guarded(lambda: self._run(solver))

    def _run(self, solver: str) -> Finding | None:
        unit, objective, rows = self.z, self.objective, torch.tensor(self.rows)

        def f(z: Any, c: Any, s: Any, b: Any, lo: Any, hi: Any) -> Any:
            u = z / unit
            phi = u * torch.log(u) if self.entropy else 0.5 * u**2 + 0.25 * u**4
            return objective * (c @ u + s * phi.sum())

        def equality(z: Any, c: Any, s: Any, b: Any, lo: Any, hi: Any) -> Any:
            return z.sum().reshape(1) - b * unit

        def limits(z: Any, c: Any, s: Any, b: Any, lo: Any, hi: Any) -> Any:
            return rows * torch.cat([lo * unit - z, z - hi * unit])

        values = (self.c, self.s, self.problem.b, self.lo, self.hi)
        given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
        layer = bp.ConvexLayer(f, equality, limits, forward=solver, on_failure="nan")
        found = layer.solve(torch.tensor(self.start * unit), *given)
        fault = judge_status(self.problem, found.status, None)
        if fault is None:
            fault = judge_z(self.problem, found.z.detach().numpy() / unit)
        if fault is not None:
            return fault
        loss = (found.z * torch.tensor(self.w / unit)).sum()
        got = torch.autograd.grad(loss, given)
        right = self.problem.gradients(self.w)
        slope = 1.0 + np.log(self.problem.z) if self.entropy else self.problem.z + self.problem.z**3
        exact = {
            "c": right["q"],
            "s": np.array(right["q"] @ slope),
            "b": right["b"],
            "lo": right["lb"],
            "hi": right["ub"],
        }
        size = max(float(np.abs(v).max()) for v in (*exact.values(), self.w))
        for (name, value), own in zip(exact.items(), got, strict=True):
            tolerance = GRADIENT * max(1.0, self.problem.condition / 100)
            wrong = differs(name, own.numpy(), value, size, tolerance)
            if wrong is not None:
                return wrong
        return None

    def describe(self) -> str:
        rows = (
            "" if (self.rows == 1).all() else f", rows {self.rows.min():.0e}..{self.rows.max():.0e}"
        )
        kind = "s Σ z log z" if self.entropy else "s Σ ½z² + ¼z⁴"
        return f"cᵀz + {kind}; units: z {self.z:.1e}, objective {self.objective:.1e}{rows}"

    def snippet(self, solver: str) -> str:
        phi = "u * torch.log(u)" if self.entropy else "0.5 * u**2 + 0.25 * u**4"
        numbers = f"c={self.c.tolist()}, s={self.s!r}, b={self.problem.b.tolist()}"
        return "\n".join(
            [
                "import torch, bpqp_portfolio as bp",
                f"# {numbers}",
                f"# lo={self.lo.tolist()}, hi={self.hi.tolist()}",
                f"# unit={self.z!r}, objective={self.objective!r}, rows={self.rows.tolist()}",
                f"# f = objective * (c @ u + s * ({phi}).sum()), u = z / unit; z.sum() = b * unit;",
                "# rows * cat(lo * unit - z, z - hi * unit) <= 0",
                f"# start {(self.start * self.z).tolist()}, solver {solver}",
                f"# right {(self.problem.z * self.z).tolist()}",
                f"# loss weights {(self.w / self.z).tolist()}",
                f"# right d loss / d c {self.problem.gradients(self.w)['q'].tolist()}",
            ]
        )
