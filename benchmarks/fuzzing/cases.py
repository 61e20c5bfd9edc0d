"""Cases: a seed and a number give a kind, its data, units, layouts and door."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpqp_portfolio.solvers.registry import available_solvers

from .cone_kinds import CONE_KINDS
from .days import DAY_KINDS, infeasible_days
from .judge import Finding
from .mandates import MandateTrial
from .problem import Problem, Random
from .qp_kinds import QP_KINDS
from .smooth import SmoothTrial
from .trial import Trial


@dataclass(frozen=True)
class Kind:
    """A kind of case: what draws one, the solvers that it is put to, and how often it is drawn."""

    name: str
    draw: Callable[[Random], Any]
    solvers: tuple[str, ...]
    weight: float = 1.0


def _posed(make: Callable[[Random], Problem]) -> Callable[[Random], Trial]:
    return lambda rng: Trial.draw(rng, make(rng), ("kkt", *available_solvers("qp")))


def kinds() -> dict[str, Kind]:
    """Every kind by name."""
    found = {
        name: Kind(name, _posed(make), available_solvers("qp")) for name, make in QP_KINDS.items()
    }
    found |= {
        name: Kind(name, _posed(make), available_solvers("cone"))
        for name, make in CONE_KINDS.items()
    }
    found["smooth"] = Kind("smooth", SmoothTrial.draw, ("sqp", "slsqp", "trust-constr"), 0.1)
    found["mandate"] = Kind("mandate", MandateTrial.draw, ("structured",), 0.2)
    factor, general = ("structured",), ("structured", *available_solvers("qp"))
    found["factor_days"] = Kind("factor_days", DAY_KINDS["factor_days"], factor)
    found["infeasible_days"] = Kind("infeasible_days", infeasible_days, factor)
    found["portfolio_layer"] = Kind("portfolio_layer", DAY_KINDS["portfolio_layer"], general)
    return found


@dataclass(frozen=True)
class Outcome:
    """How one solver did at one case; ``finding`` None where it is right."""

    solver: str
    finding: Finding | None


@dataclass(frozen=True)
class Case:
    """Case ``number`` of ``seed`` among the kinds in ``among``."""

    seed: int
    number: int
    kind: Kind
    trial: Any

    @classmethod
    def draw(cls, seed: int, number: int, among: Sequence[Kind]) -> Case:
        """The data depend on seed, number and kind alone, not on what else is drawn from."""
        share = np.cumsum([kind.weight for kind in among])
        at = np.random.default_rng([seed, number]).random() * share[-1]
        kind = among[int(np.searchsorted(share, at, side="right"))]
        rng = np.random.default_rng([seed, number, zlib.crc32(kind.name.encode())])
        return cls(seed, number, kind, kind.draw(rng))

    def solvers(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of ``wanted`` that this kind is put to; unless told, the first and two more."""
        own = self.kind.solvers
        if wanted:
            return own if "all" in wanted else tuple(s for s in own if s in wanted)
        rng = np.random.default_rng([self.seed, self.number, 1])
        return (own[0], *rng.permutation(own[1:])[:2].tolist())

    def told(self, solver: str, finding: Finding) -> str:
        """A report from which the case can be run again."""
        return "\n".join(
            [
                f"{finding.fault}: {self.kind.name}, solver {solver}: {finding.told}",
                f"  {self.trial.describe()}",
                f"  python -m benchmarks.fuzz --seed {self.seed} --first {self.number} --cases 1 "
                f"--kinds {self.kind.name} --solvers {solver}",
                *("  " + line for line in self.trial.snippet(solver).splitlines()),
            ]
        )
