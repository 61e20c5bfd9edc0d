"""One trial: a known problem in drawn units and layouts, through one door, by one solver."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

import bpqp_portfolio as bp
from bpqp_portfolio.problems.qp import QP
from bpqp_portfolio.problems.socp import SOCP
from bpqp_portfolio.solvers.registry import get_solver

from . import layouts
from .judge import Finding, judge_gradients, judge_status, judge_z
from .problem import SOLVED, Array, Problem, Random
from .units import Units

SLOW = 20.0
_DIRECT = ("auto", "kkt")
_VECTORS = ("q", "b", "h", "lb", "ub")
_BAD = ("NaN in q", "infinite b or h", "lb above ub")


def guarded(call: Callable[[], Finding | None], direct: bool = True) -> Finding | None:
    """What ``call`` finds; its exceptions and long waits are findings too.

    A solver that is asked for the backward QP, not ``direct``, may say that it cannot.
    """
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            found = call()
        except bp.SolverNotInstalledError:
            raise
        except Exception as error:
            admitted = isinstance(error, bp.SolverError) and not direct
            fault = "backward" if admitted else "exception"
            found = Finding(fault, f"{type(error).__name__}: {str(error)[:300]}")
    # Of the processor: a busy machine is no hang.
    seconds = time.process_time() - start
    if seconds > SLOW and (found is None or not found.wrong):
        return Finding("hang", f"{seconds:.0f} s")
    return found


@dataclass(frozen=True)
class Trial:
    """How a problem is posed: everything but the solver.

    ``door`` is "layer" (one problem), "solver" (numpy arrays, no layer), "batch" (moved copies of
    the problem, whose matrices are shared) or "cache" (a moved copy is solved before).
    """

    problem: Problem
    units: Units
    door: str
    layouts: dict[str, str]
    dtype: torch.dtype
    backward: str
    form: str
    w: Array
    moves: Array
    expand: bool = False
    bad: str = ""
    natural: list[Problem] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: Random, problem: Problem, backwards: tuple[str, ...]) -> Trial:
        units = Units.draw(rng, problem)
        door = str(rng.choice(["layer", "solver", "batch", "cache"], p=[0.5, 0.2, 0.2, 0.1]))
        kinds = layouts.ARRAYS if door == "solver" else layouts.TENSORS
        single = rng.random() < 0.1 and problem.unique and not problem.precise
        forms = ["dense"]
        if problem.B is not None:
            forms.append("factor")
        if not np.any(problem.P - np.diag(np.diag(problem.P))):
            forms.append("diagonal")
        if not problem.P.any():
            forms += ["none", "none"]
        form = str(rng.choice(forms))
        backward = "auto" if rng.random() < 0.6 else str(rng.choice(backwards))
        items = int(rng.integers(2, 4)) if door == "batch" else 2
        moves = rng.normal(size=(items, problem.n)) * (rng.random() < 0.9)
        moves[0] = 0.0
        bad = ""
        if door == "batch" and rng.random() < 0.3:
            bad = str(rng.choice(_BAD))
            if bad == "infinite b or h" and not (len(problem.b) or len(problem.h)):
                bad = "NaN in q"
        trial = cls(
            problem, units, door, {k: layouts.draw(rng, kinds, k) for k in "PqAbGh"},
            torch.float32 if single and door != "solver" else torch.float64, backward, form,
            rng.normal(size=(items, problem.n)), moves, bool(rng.random() < 0.5), bad,
        )  # fmt: skip
        natural = [problem.moved(by) for by in moves]
        return replace(trial, natural=natural if door in ("batch", "cache") else natural[:1])

    @property
    def conic(self) -> bool:
        return bool(self.problem.cones)

    @property
    def judged(self) -> list[int]:
        """The items whose answers are known."""
        if self.door != "batch":
            return [0]
        last = len(self.natural) - 1 if self.bad else len(self.natural)
        return list(range(last))

    def arguments(self, items: list[Problem]) -> dict[str, Array]:
        """Scaled arrays by name, cones' parts as "0.F"; vectors (T, ·) of several items."""
        factors = self.units.factors(self.problem)
        first = items[0]
        out: dict[str, Array] = {}
        if self.form == "factor":
            out["B"], out["d"] = first.B, first.d
        elif self.form == "diagonal":
            out["P"] = np.diag(first.P)
        elif self.form == "dense":
            out["P"] = first.P

        def each(name: str) -> Array:
            values = [np.asarray(getattr(item, name)) for item in items]
            return values[0] if len(items) == 1 else np.stack(values)

        out["q"] = each("q")
        if len(first.b):
            out |= {"A": first.A, "b": each("b")}
        if len(first.h):
            out |= {"G": first.G, "h": each("h")}
        if first.bounded:
            out |= {"lb": each("lb"), "ub": each("ub")}
        for i, cone in enumerate(first.cones):
            if cone.F is not None:
                out[f"{i}.F"] = cone.F
            for part in ("g", "d"):
                values = [np.asarray(getattr(item.cones[i], part)) for item in items]
                out[f"{i}.{part}"] = values[0] if len(items) == 1 else np.stack(values)
            out[f"{i}.c"] = cone.c
        scaled = {}
        for name, value in out.items():
            factor = factors[name]
            if name == "P" and self.form == "diagonal":
                factor = factors["d"]
            scaled[name] = np.asarray(value) * factor
        if self.bad and len(items) > 1:
            _spoil(scaled, self.bad)
        return scaled

    def _layout(self, name: str) -> str:
        layout = self.layouts.get(name, "plain")
        vector = name == "P" and self.form == "diagonal"
        return "plain" if vector and layout in ("coo", "csr", "csc") else layout

    def run(self, solver: str) -> Finding | None:
        """What is wrong with ``solver`` here, or what it honestly did not reach; None if right."""
        call = self._solver if self.door == "solver" else self._layer
        return guarded(lambda: call(solver), self.backward in _DIRECT)

    def _solver(self, name: str) -> Finding | None:
        given = self.arguments(self.natural)
        laid = {k: layouts.array(v, self._layout(k)) for k, v in given.items()}
        n = self.problem.n
        P = laid.get("P", np.zeros((n, n)))
        if self.form == "diagonal":
            P = np.diag(P)
        elif self.form == "factor":
            from bpqp_portfolio.problems.matrices import FactorMatrix

            P = FactorMatrix(laid["B"], laid["d"])
        if self.problem.ridge:
            P = P + 2 * self.problem.ridge * self.units.factors(self.problem)["P"] * np.eye(n)
        qp = QP(P, *(laid.get(k) for k in ("q", "A", "b", "G", "h", "lb", "ub")))
        if self.conic:
            cones = [
                tuple(laid.get(f"{i}.{k}") for k in "Fgcd") for i in range(len(self.problem.cones))
            ]
            found: Any = get_solver(name, "cone").solve(SOCP(qp, cones))
        else:
            found = get_solver(name).solve(qp)
        status = judge_status(self.problem, found.status, found.z)
        if status is not None or self.problem.expect != SOLVED:
            return status
        return judge_z(self.problem, found.z / self.units.z)

    def _tensors(self, items: list[Problem]) -> dict[str, Any]:
        out = {}
        for name, value in self.arguments(items).items():
            layout = self._layout(name)
            made = layouts.tensor(value, layout, self.dtype)
            if len(items) > 1 and self.expand and layout not in ("coo", "csr"):
                shared = name not in _VECTORS and name.split(".")[-1] not in ("g", "d")
                shared = shared or name == "d"
                if shared and not (name == "P" and self.form == "diagonal"):
                    made = made.expand(len(items), *made.shape)
            out[name] = made.requires_grad_(made.is_leaf and self.problem.expect == SOLVED)
        return out

    def _layer(self, name: str) -> Finding | None:
        cache = bp.SolverCache() if self.door == "cache" else None
        if cache is not None:
            self._call(name, self._tensors([self.natural[1]]), cache)
        items = self.natural if self.door == "batch" else self.natural[:1]
        tensors = self._tensors(items)
        found = self._call(name, tensors, cache)
        statuses = np.atleast_1d(np.array(found.status, dtype=object))
        z = found.z.detach().double().numpy().reshape(-1, self.problem.n) / self.units.z
        honest = None
        for i in self.judged:
            status = judge_status(self.natural[i], statuses[i], z[i])
            if status is not None and status.wrong:
                return status
            honest = honest or status
            if status is None and self.problem.expect == SOLVED:
                wrong = judge_z(self.natural[i], z[i], self.dtype)
                if wrong is not None:
                    return wrong
        if self.bad and len(items) > 1 and statuses[-1] is not bp.SolveStatus.BAD_DATA:
            return Finding("bad item", f"{self.bad}: status {statuses[-1].name}")
        if honest is not None or self.problem.expect != SOLVED or not self.problem.unique:
            return honest
        return self._gradients(items, tensors, found)

    def _call(self, name: str, tensors: dict[str, Any], cache: Any) -> Any:
        given = dict(tensors)
        P = (given.pop("B"), given.pop("d")) if self.form == "factor" else given.pop("P", None)
        if self.conic:
            cones = [
                tuple(given.pop(f"{i}.{k}", None) for k in "Fgcd")
                for i in range(len(self.problem.cones))
            ]
            layer: Any = bp.SOCPLayer(name, self.backward, on_failure="nan")
            return layer.solve(P, cones=cones, cache=cache, **given)
        ridge = self.problem.ridge * self.units.factors(self.problem)["P"]
        layer = bp.QPLayer(name, self.backward, on_failure="nan", ridge=float(ridge))
        return layer.solve(P, cache=cache, **given)

    def _gradients(self, items: list[Problem], tensors: dict[str, Any], found: Any) -> Any:
        weights = torch.tensor(self.w[: len(items)] / self.units.z)
        z = found.z.double().reshape(len(items), -1)
        good = self.judged
        loss = (z[good] * weights[good]).sum()
        names = [k for k, v in tensors.items() if v.requires_grad]
        raw = torch.autograd.grad(loss, [tensors[k] for k in names], allow_unused=True)
        factors = self.units.factors(self.problem)
        natural: dict[str, Array] = {}
        for name, value in zip(names, raw, strict=True):
            if value is None:
                return Finding("gradient", f"none in {name}")
            dense = value.to_dense() if value.layout is not torch.strided else value
            factor = factors["d" if name == "P" and self.form == "diagonal" else name]
            natural[name] = dense.double().numpy() * factor
        return judge_gradients(self, [self.natural[i] for i in good], natural, len(items))

    def describe(self) -> str:
        used = {k: v for k, v in self.layouts.items() if v != "plain"}
        parts = [f"door {self.door}", f"units: {self.units}", f"P as {self.form}"]
        if used:
            parts.append("layouts " + ", ".join(f"{k} {v}" for k, v in used.items()))
        if self.dtype is torch.float32:
            parts.append("float32")
        if self.door != "solver":
            parts.append(f"backward {self.backward}")
        if self.bad and self.door == "batch":
            parts.append(f"last item: {self.bad}")
        return "; ".join(parts)

    def snippet(self, solver: str) -> str:
        """Python that poses this problem to ``solver``, plainly laid out."""
        items = self.natural if self.door == "batch" else self.natural[:1]
        lines = [
            "import torch, bpqp_portfolio as bp",
            "inf, nan = float('inf'), float('nan')",
            "t = lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True)",
        ]
        given = self.arguments(items)
        cones = []
        for i in range(len(self.problem.cones)):
            parts = [given.pop(f"{i}.{k}", None) for k in "Fgcd"]
            text = ", ".join("None" if v is None else f"t({v.tolist()})" for v in parts)
            cones.append(f"({text})")
        lines += [f"{name} = t({value.tolist()})" for name, value in given.items()]
        P = "(B, d)" if self.form == "factor" else "P" if "P" in given else "None"
        rest = ", ".join(f"{k}={k}" for k in given if k not in ("P", "B", "d"))
        if self.conic:
            lines.append(f"cones = [{', '.join(cones)}]")
            lines.append(f"layer = bp.SOCPLayer({solver!r}, {self.backward!r}, on_failure='nan')")
            lines.append(f"s = layer.solve({P}, cones=cones, {rest})")
        else:
            ridge = self.problem.ridge * self.units.factors(self.problem)["P"]
            ridge = f", ridge={float(ridge)!r}" if ridge else ""
            lines.append(
                f"layer = bp.QPLayer({solver!r}, {self.backward!r}, on_failure='nan'{ridge})"
            )
            lines.append(f"s = layer.solve({P}, {rest})")
        lines.append("print(s.status, s.z, s.kkt_norm)")
        if self.problem.expect == SOLVED and self.problem.unique:
            right = (self.natural[0].z * self.units.z).tolist()
            lines.append(f"# right: {right}")
            lines.append(f"# loss: (z * {(self.w[0] / self.units.z).tolist()}).sum()")
            if self.problem.smooth and self.door != "batch":
                factors = self.units.factors(self.problem)
                for name, value in self.natural[0].gradients(self.w[0]).items():
                    if name in ("q", "b", "h", "lb", "ub") and value.size:
                        lines.append(
                            f"# right d loss / d {name}: {(value / factors[name]).tolist()}"
                        )
        else:
            lines.append(f"# expected: {self.problem.expect}")
        return "\n".join(lines)


def _spoil(scaled: dict[str, Array], how: str) -> None:
    """Make the last item's vectors bad."""
    if how == "NaN in q":
        scaled["q"][-1, 0] = np.nan
    elif how == "infinite b or h":
        scaled["b" if "b" in scaled else "h"][-1, 0] = -np.inf
    else:
        like = scaled["q"]
        scaled.setdefault("lb", np.full_like(like, -np.inf))
        scaled.setdefault("ub", np.full_like(like, np.inf))
        scale = np.abs(like).max() or 1.0
        scaled["lb"][-1, 0], scaled["ub"][-1, 0] = scale, -scale
