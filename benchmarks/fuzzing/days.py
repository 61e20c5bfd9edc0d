"""Batches of factor portfolios: each day known by construction, in units of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

import bpqp_portfolio as bp
from bpqp_portfolio.layers.factor import factor_qp

from . import layouts
from .judge import GRADIENT, Finding, differs, judge_status, judge_z
from .problem import PRIMAL, SOLVED, Array, Problem, Random, spread, well
from .trial import guarded

_LAYOUTS = ("plain", "transposed", "strided", "read-only")
_FACTOR = ("q", "B", "d", "lower", "upper", "budget", "A", "b", "G", "h", "cost", "reference")
_LAYER = ("q", "B", "d", "A", "b", "G", "h", "reference")


@dataclass(frozen=True)
class Day:
    """One day: ``problem`` has its names that do not trade fixed, and its costs' slope in q.

    The first row of A is the budget. ``sign`` (n,) is the side of each trade, 0 without one.
    """

    problem: Problem
    cost: Array
    sign: Array
    lower: Array
    upper: Array
    z: float = 1.0
    objective: float = 1.0
    rows_A: Array = field(default_factory=lambda: np.ones(0))
    rows_G: Array = field(default_factory=lambda: np.ones(0))
    bad: bool = False

    @property
    def held(self) -> Array:
        return (self.cost > 0) & (self.sign == 0)

    def reference(self, gap: Array) -> Array:
        return self.problem.z - self.sign * gap

    def factors(self) -> dict[str, Any]:
        """Argument → what takes it from natural units to this day's."""
        c, s = self.z, self.objective
        return {
            "q": s / c,
            "B": s**0.5 / c,
            "d": s / c**2,
            "lower": c,
            "upper": c,
            "budget": c,
            "A": self.rows_A[:, None] / c,
            "b": self.rows_A,
            "G": self.rows_G[:, None] / c,
            "h": self.rows_G,
            "cost": s / c,
            "reference": c,
        }

    def natural(self, gap: Array) -> dict[str, Array]:
        p = self.problem
        assert p.B is not None and p.d is not None
        return {
            "q": p.q - self.cost * self.sign,
            "B": p.B,
            "d": p.d,
            "lower": self.lower,
            "upper": self.upper,
            "budget": p.b[0],
            "A": p.A[1:],
            "b": p.b[1:],
            "G": p.G,
            "h": p.h,
            "cost": self.cost,
            "reference": self.reference(gap),
        }

    def gradients(self, w: Array) -> dict[str, Array]:
        g = self.problem.gradients(w)
        return {
            "q": g["q"],
            "B": g["B"],
            "d": g["d"],
            "lower": g["lb"],
            "upper": np.where(self.held, 0.0, g["ub"]),
            "budget": g["b"][0],
            "A": g["A"][1:],
            "b": g["b"][1:],
            "G": g["G"],
            "h": g["h"],
            "cost": g["q"] * self.sign,
            "reference": np.where(self.held, g["ub"], 0.0),
        }


def _day(
    rng: Random, w: Array, cap: Array, k: int, rows: tuple[int, int, int], costs: Array
) -> Day:
    """The day on which ``w`` (n,) is right within 0 ≤ w ≤ ``cap``, with (p, m, active) rows."""
    n = len(w)
    p, m, active = rows
    B, d = 0.5 * rng.normal(size=(n, k)), spread(rng, (0.1, 1.0), n)
    P = B @ B.T + np.diag(d)
    A = np.concatenate([np.ones((1, n)), rng.normal(size=(p, n))])
    G = rng.normal(size=(m, n))
    nu, on = rng.normal(size=p + 1), np.arange(m) < active
    lam = np.where(on, spread(rng, (0.1, 2.0), m), 0.0)
    free = (w > 0) & (w < cap)
    sign = np.where((costs > 0) & ~(free & (rng.random(n) < 0.3)), rng.choice([-1.0, 1.0], n), 0.0)
    # A name at a bound with a cost trades: its two reasons to stay could not be told apart.
    held = (costs > 0) & (sign == 0)
    small = (1e-4, 1e-2) if rng.random() < 0.2 else (0.1, 2.0)
    lower = np.where(w == 0, spread(rng, small, n), 0.0)
    upper = np.where(w == cap, spread(rng, small, n), 0.0)
    stay = np.where(held, costs * rng.uniform(-0.9, 0.9, n), 0.0)
    q = -(P @ w + A.T @ nu + G.T @ lam - lower + upper + stay)
    h = G @ w + np.where(on, 0.0, spread(rng, (0.1, 2.0), m))
    lb, ub = np.where(held, w, 0.0), np.where(held, w, cap)
    problem = Problem(
        P, q, A, A @ w, G, h, lb, ub, w, nu, lam, lower, upper, on, B=B, d=d,
        smooth=frozenset({"q", "A", "b", "G", "h", "lb", "ub", "B", "d"}),
    )  # fmt: skip
    return Day(problem, costs, sign, np.zeros(n), cap)


def _weights(rng: Random, n: int) -> tuple[Array, float]:
    """Weights (n,) and their cap; at least three names are free."""
    zero, capped = (int(v) for v in rng.multinomial(int(rng.integers(0, n - 2)), [0.6, 0.4]))
    w = spread(rng, (0.2, 1.0), n)
    cap = w.max() * 1.2 if capped else w.sum()
    w[:zero] = 0.0
    w[zero : zero + capped] = cap
    return w, float(cap)


@dataclass(frozen=True)
class DaysTrial:
    """Days of one shape through ``factor_qp`` or the portfolio layer."""

    days: list[Day]
    door: str
    layouts: dict[str, str]
    gap: Array
    w: Array
    budget: float
    masked: int
    use_rows: tuple[bool, bool]
    costs: bool

    @classmethod
    def draw(cls, rng: Random, door: str) -> DaysTrial:
        n, k, T = int(rng.integers(4, 13)), int(rng.integers(0, 4)), int(rng.integers(1, 5))
        with_rows = rng.random() < 0.4
        rows = (int(rng.integers(0, 2)), int(rng.integers(1, 3)), int(rng.integers(0, 2)))
        rows = rows if with_rows else (0, 0, 0)
        weights, cap = _weights(rng, n)
        if door == "portfolio_layer":
            cap, weights = cap / weights.sum(), weights / weights.sum()
            cap = min(cap, 1.0)
        costed = rng.random() < 0.4
        one = float(spread(rng, (0.02, 0.3), 1)[0])
        natural = rng.random() < 0.3
        same = 10.0 ** rng.uniform(-6, 6)

        def make() -> Day:
            w = rng.permutation(weights)
            costs = np.zeros(n)
            if costed:
                costs = np.full(n, one) if door != "factor_days" else spread(rng, (0.02, 0.3), n)
            return _day(rng, w, np.full(n, cap), k, rows, costs)

        days = []
        for _ in range(T):
            found: list[Day] = []

            def problem(found: list[Day] = found) -> Problem:
                found.append(make())
                return found[-1].problem

            while not well(problem, 200.0).regular:
                pass
            day = found[-1]
            day = replace(day, rows_A=np.ones(rows[0]), rows_G=np.ones(rows[1]))
            if not natural:
                z, objective = (float(v) for v in 10.0 ** rng.uniform(-6, 6, 2))
                free = door == "factor_days"
                day = replace(
                    day,
                    z=z if free else 1.0,
                    objective=objective if free or not costed else float(same),
                    rows_A=10.0 ** rng.uniform(-6, 6, rows[0]),
                    rows_G=10.0 ** rng.uniform(-6, 6, rows[1]),
                )
            days.append(day)
        if rng.random() < 0.2 and door == "factor_days":
            last = days[-1]
            days[-1] = replace(last, bad=True)
        return cls(
            days, door, {k: layouts.draw(rng, _LAYOUTS, k) for k in _FACTOR},
            spread(rng, (0.05, 0.5), n), rng.normal(size=(T, n)),
            1.0 if rng.random() < 0.5 else float(10.0 ** rng.uniform(-2, 2)),
            int(rng.integers(1, 3)) * int(rng.random() < 0.3), (rows[0] > 0, rows[1] > 0), costed,
        )  # fmt: skip

    def run(self, solver: str) -> Finding | None:
        return guarded(lambda: self._run(solver))

    def tensors(self) -> dict[str, Any]:
        """Scaled tensors (T, ...), masked names in front, whose numbers are large."""
        out = {}
        for name in _FACTOR:
            values = []
            for day in self.days:
                value = np.asarray(day.natural(self.gap)[name] * day.factors()[name])
                axis = {"B": 0, "A": 1, "G": 1}.get(name, 0)
                if self.masked and name not in ("budget", "b", "h"):
                    pad = [(0, 0)] * value.ndim
                    pad[axis] = (self.masked, 0)
                    value = np.pad(value, pad, constant_values=1.0)
                if day.bad and name == "q":
                    value = np.where(np.arange(len(value)) == self.masked, np.nan, value)
                values.append(value)
            made = layouts.tensor(np.stack(values), self.layouts[name], torch.float64)
            out[name] = made.requires_grad_()
        return out

    def _run(self, solver: str) -> Finding | None:
        given = self.tensors()
        T, n = given["q"].shape
        mask = torch.ones(T, n, dtype=torch.bool)
        mask[:, : self.masked] = False
        rows = {k: given[k] for k in "AbGh" if self.use_rows["AbGh".index(k) // 2]}
        if self.door == "factor_days":
            cost = {"cost": given["cost"], "reference": given["reference"]} if self.costs else {}
            found = factor_qp(
                given["q"], given["B"], given["d"], lb=given["lower"], ub=given["upper"],
                budget=given["budget"], mask=mask, on_failure="nan", **rows, **cost,
            )  # fmt: skip
        else:
            g = self.budget
            layer = bp.PortfolioLayer(
                g, float(given["upper"][0, -1]), forward=solver, on_failure="nan",
                turnover_cost=float(given["cost"][0, -1]) if self.costs else 0.0,
            )  # fmt: skip
            found = layer.solve(
                -given["q"], given["B"] / g**0.5, given["d"] / g, mask,
                given["reference"] if self.costs else None,
                **rows,
            )  # fmt: skip
        statuses = list(found.status)
        w = found.w.detach().numpy()
        if (w[:, : self.masked][~np.isnan(w[:, : self.masked])] != 0).any():
            return Finding("solution", "a masked name has weight")
        honest, good = None, []
        for t, (day, status) in enumerate(zip(self.days, statuses, strict=True)):
            if day.bad:
                if status is not bp.SolveStatus.BAD_DATA:
                    return Finding("bad item", f"day {t}: NaN in q: status {status.name}")
                continue
            fault = judge_status(day.problem, status, w[t])
            if fault is None and day.problem.expect == SOLVED:
                fault = judge_z(day.problem, w[t, self.masked :] / day.z)
                good.append(t)
            if fault is not None and fault.wrong:
                return Finding(fault.fault, f"day {t}: {fault.told}")
            honest = honest or fault
        if honest is not None or not good:
            return honest
        return self._gradients(given, found.w, good)

    def _gradients(self, given: dict[str, Any], w: Any, good: list[int]) -> Finding | None:
        loss = sum(
            (w[t, self.masked :] * torch.tensor(self.w[t] / self.days[t].z)).sum() for t in good
        )
        names = list(_FACTOR if self.door == "factor_days" else _LAYER)
        names = [n for n in names if (n not in "Ab" or self.use_rows[0])]
        names = [n for n in names if (n not in "Gh" or self.use_rows[1])]
        if not self.costs:
            names = [n for n in names if n not in ("cost", "reference")]
        raw = torch.autograd.grad(loss, [given[n] for n in names], allow_unused=True)
        for t in good:
            day = self.days[t]
            right, factors = day.gradients(self.w[t]), day.factors()
            unit = max(float(np.abs(v).max(initial=0.0)) for v in right.values())
            unit = max(unit, float(np.abs(self.w[t]).max()))
            for name, value in zip(names, raw, strict=True):
                if value is None:
                    return Finding("gradient", f"none in {name}")
                got = value[t].numpy()
                if self.masked and name not in ("budget", "b", "h"):
                    got = got[:, self.masked :] if name in "AG" else got[self.masked :]
                fault = differs(name, got * factors[name], right[name], unit,
                                GRADIENT * max(1.0, day.problem.condition / 100))  # fmt: skip
                if fault is not None:
                    return Finding(fault.fault, f"day {t}: {fault.told}")
        return None

    def describe(self) -> str:
        used = ", ".join(f"{k} {v}" for k, v in self.layouts.items() if v != "plain")
        units = "; ".join(f"z {d.z:.1e}, objective {d.objective:.1e}" for d in self.days)
        extra = f", {self.masked} masked" if self.masked else ""
        bad = ", last day NaN in q" if self.days[-1].bad else ""
        return f"{self.door}{extra}{bad}; units of the days: {units}; layouts {used or 'plain'}"

    def snippet(self, solver: str) -> str:
        lines = [
            "import torch, bpqp_portfolio as bp",
            "from bpqp_portfolio.layers.factor import factor_qp",
            "nan = float('nan')",
            "t = lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True)",
        ]
        given = {k: v.detach().numpy() for k, v in self.tensors().items()}
        lines += [f"{k} = t({v.tolist()})" for k, v in given.items() if v.size]
        lines.append(f"mask = torch.arange(q.shape[1]).expand(q.shape) >= {self.masked}")
        rows = "A=A, b=b, " if self.use_rows[0] else ""
        rows += "G=G, h=h, " if self.use_rows[1] else ""
        if self.door == "factor_days":
            cost = "cost=cost, reference=reference, " * self.costs
            lines.append("s = factor_qp(q, B, d, lb=lower, ub=upper, budget=budget, "
                         f"{rows}{cost}mask=mask, on_failure='nan')")  # fmt: skip
        else:
            g = self.budget
            cost = float(given["cost"][0, -1]) if self.costs else 0.0
            lines.append(f"layer = bp.PortfolioLayer({g!r}, {float(given['upper'][0, -1])!r}, "
                         f"forward={solver!r}, turnover_cost={cost!r}, "
                         "on_failure='nan')")  # fmt: skip
            lines.append(f"s = layer.solve(-q, B / {g!r}**0.5, d / {g!r}, mask, "
                         f"{'reference' if self.costs else None}, {rows})")  # fmt: skip
        lines.append("print(s.status, s.w, s.kkt_norm)")
        for day, weights in zip(self.days, self.w, strict=True):
            lines.append(f"# right: {(day.problem.z * day.z).tolist()}")
            lines.append(f"# loss weights: {(weights / day.z).tolist()}")
            for name, value in day.gradients(weights).items():
                if name in ("q", "budget", "b", "h", "reference") and np.size(value):
                    natural = (value / day.factors()[name]).tolist()
                    lines.append(f"#   right d loss / d {name}: {natural}")
        return "\n".join(lines)


def infeasible_days(rng: Random) -> DaysTrial:
    """A budget beyond all caps on the last day."""
    trial = DaysTrial.draw(rng, "factor_days")
    last = trial.days[-1]
    b = last.problem.b.copy()
    b[0] = last.upper.sum() * 1.5
    problem = replace(last.problem, b=b, expect=PRIMAL, unique=False)
    trial.days[-1] = replace(last, problem=problem, bad=False)
    return trial


DAY_KINDS: dict[str, Callable[[Random], Any]] = {
    "factor_days": lambda rng: DaysTrial.draw(rng, "factor_days"),
    "portfolio_layer": lambda rng: DaysTrial.draw(rng, "portfolio_layer"),
}
