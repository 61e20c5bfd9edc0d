"""Random mandates on one day, against the same problem in cvxpy by Clarabel."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch

import bpqp_portfolio as bp

from .judge import Finding
from .problem import Array, Random
from .trial import guarded

# Clarabel's own accuracy; objective relative to the sum of its terms, weights where d says so.
_OBJECTIVE, _FEASIBLE, _WEIGHTS = 1e-6, 1e-7, 1e-3
_DAYS = 252.0


@dataclass(frozen=True)
class MandateTrial:
    """``config`` as ``Mandate.from_config`` takes it, in natural units (fractions a day).

    Returns and variances are multiplied by ``objective``, with costs and κ to match, so that the
    weights stay; exposures by ``exposure``.
    """

    config: dict[str, Any]
    market: dict[str, Array]
    objective: float
    exposure: float

    @classmethod
    def draw(cls, rng: Random) -> MandateTrial:
        n, k = int(rng.integers(5, 13)), int(rng.integers(1, 4))
        codes = np.arange(n) % 3
        held = rng.uniform(0.2, 1.0, n) * np.where(codes == 0, 2.0, 1.0)
        benchmark = rng.uniform(0.2, 1.0, n)
        market = {
            "mu": 0.002 * rng.normal(size=n),
            "loadings": 0.01 * rng.normal(size=(n, k)) / k**0.5,
            "specific": 1e-4 * rng.uniform(0.5, 1.5, n),
            "previous": held / held.sum(),
            "benchmark": benchmark / benchmark.sum(),
            "groups": codes,
            "exposures": rng.normal(size=(n, 1)),
        }
        config: dict[str, Any] = {"risk_aversion": float(10.0 ** rng.uniform(0, 2))}
        neutral = rng.random() < 0.15
        choices: dict[str, Any] = {
            "max_weights": rng.uniform(1.2 / n, 0.6),
            "groups": rng.uniform(0.34, 0.6),
            "exposures": {"limit": {"size": 0.2}, "lower": {"size": -rng.uniform(0.05, 0.4)}},
            "max_turnover": rng.uniform(0.05, 0.5),
            "active_weights": rng.uniform(0.05, 0.3),
            "max_tracking_error": rng.uniform(0.02, 0.2),
            "linear_cost": {"buy": rng.uniform(0, 1e-3), "sell": rng.uniform(0, 2e-3)},
            "quadratic_cost": rng.uniform(0, 0.01),
            "tracking_penalty": rng.uniform(1, 30),
        }
        for name, value in choices.items():
            if rng.random() < 0.3 and not (neutral and name in ("max_turnover", "active_weights")):
                config[name] = value
        if neutral:
            config |= {"market_neutral": True, "min_weights": -0.3, "max_leverage": 1.2}
        elif rng.random() < 0.2:
            config |= {"min_weights": -0.2, "max_leverage": rng.uniform(1.1, 1.6)}
        if rng.random() < 0.2:
            config |= {"objective": "robust", "kappa": rng.uniform(0.02, 0.2)}
        units = 10.0 ** rng.uniform(-4, 4, 2) if rng.random() < 0.4 else np.ones(2)
        return cls(config, market, float(units[0]), float(units[1]))

    def scaled(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Config and market in the drawn units."""
        s, config, market = self.objective, dict(self.config), dict(self.market)
        market["mu"] = market["mu"] * s
        market["loadings"], market["specific"] = market["loadings"] * s**0.5, market["specific"] * s
        market["exposures"] = market["exposures"] * self.exposure
        for name, factor in (("quadratic_cost", s), ("max_tracking_error", s**0.5)):
            if name in config:
                config[name] = config[name] * factor
        if "kappa" in config:
            config["kappa"] = config["kappa"] * s**0.5
        if "linear_cost" in config:
            config["linear_cost"] = {k: v * s for k, v in config["linear_cost"].items()}
        if "exposures" in config:
            config["exposures"] = {
                side: {k: v * self.exposure for k, v in limits.items()}
                for side, limits in config["exposures"].items()
            }
        return config, market

    def run(self, solver: str) -> Finding | None:
        return guarded(lambda: self._run())

    def _run(self) -> Finding | None:
        variable, goal, rows, right, value = self._reference()
        config, market = self.scaled()
        fields = {k: torch.tensor(v[None]) for k, v in market.items()}
        fields["mask"] = torch.ones_like(fields["mu"], dtype=torch.bool)
        names = {"group_names": ["a", "b", "c"], "exposure_names": ["size"]}
        mandate = bp.Mandate.from_config(config)
        try:
            w = mandate.solve(bp.Market(**fields, **names)).w[0].numpy()
        except bp.SolverError as error:
            told = f"feasible, but: {error}"[:400]
            return None if value is None else Finding("status", told)
        if value is None:
            return Finding("status", "weights for what Clarabel says is infeasible")
        if not np.isfinite(w).all():
            return Finding("solution", "not finite")
        variable.value = w
        violation = max(float(np.max(row.violation())) for row in rows)
        if violation > _FEASIBLE:
            return Finding("solution", f"violates a limit by {violation:.1e}")
        size = float(np.abs(self.market["mu"]) @ np.abs(w)) + abs(value)
        gap = (float(goal.value) - value) / size
        if gap > _OBJECTIVE:
            return Finding("solution", f"the objective is worse by {gap:.1e} of its terms")
        if (off := float(np.abs(w - right).max())) > _WEIGHTS:
            return Finding("solution", f"weights are off by {off:.1e}")
        return None

    def _reference(self) -> tuple[Any, Any, list[Any], Any, float | None]:
        """Variable, goal, rows, right weights and their value; None where it is infeasible."""
        c, m = self.config, self.market
        w = cp.Variable(len(m["mu"]))
        half = np.hstack([m["loadings"], np.diag(np.sqrt(m["specific"]))]).T
        trade, active = w - m["previous"], half @ (w - m["benchmark"])
        goal = -m["mu"] @ w + c["risk_aversion"] / 2 * cp.sum_squares(half @ w)
        if c.get("objective") == "robust":
            goal = goal + c["kappa"] * cp.norm(half @ w)
        if cost := c.get("linear_cost"):
            goal += cp.sum(cost["buy"] * cp.pos(trade) + cost["sell"] * cp.neg(trade))
        goal += c.get("quadratic_cost", 0.0) * cp.sum_squares(trade)
        goal += 0.5 * c.get("tracking_penalty", 0.0) * cp.sum_squares(active)
        rows = [w >= c.get("min_weights", 0.0), w <= c.get("max_weights", 1.0)]
        rows.append(cp.sum(w) == (0.0 if "market_neutral" in c else 1.0))
        if "active_weights" in c:
            rows.append(cp.abs(w - m["benchmark"]) <= c["active_weights"])
        if "groups" in c:
            rows += [cp.sum(w[m["groups"] == code]) <= c["groups"] for code in range(3)]
        if "exposures" in c:
            rows += [m["exposures"][:, 0] @ w <= c["exposures"]["limit"]["size"]]
            rows += [m["exposures"][:, 0] @ w >= c["exposures"]["lower"]["size"]]
        if "max_turnover" in c:
            rows.append(0.5 * cp.norm1(trade) <= c["max_turnover"])
        if "max_leverage" in c:
            rows.append(cp.norm1(w) <= c["max_leverage"])
        if "max_tracking_error" in c:
            rows.append(cp.norm(active) <= c["max_tracking_error"] / _DAYS**0.5)
        problem = cp.Problem(cp.Minimize(1e3 * goal), rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
            problem.solve(solver=cp.CLARABEL, **tight)
        solved = problem.status.startswith("optimal")
        return w, goal, rows, w.value, float(goal.value) if solved else None

    def describe(self) -> str:
        return f"{self.config}; units: objective {self.objective:.1e}, exposure {self.exposure:.1e}"

    def snippet(self, solver: str) -> str:
        config, market = self.scaled()
        lines = ["import torch, bpqp_portfolio as bp", f"config = {_plain(config)}"]
        lines += [f"{k} = torch.tensor({[v.tolist()]})" for k, v in market.items()]
        fields = ", ".join(f"{k}={k}" for k in market)
        lines.append(f"market = bp.Market({fields}, mask=torch.ones_like(mu, dtype=torch.bool),")
        lines.append("    group_names=['a', 'b', 'c'], exposure_names=['size'])")
        lines.append("print(bp.Mandate.from_config(config).solve(market))")
        _, _, _, right, value = self._reference()
        lines.append(f"# right: {None if value is None else right.tolist()}")
        return "\n".join(lines)


def _plain(config: Any) -> Any:
    if isinstance(config, dict):
        return {k: _plain(v) for k, v in config.items()}
    return float(config) if isinstance(config, np.floating) else config
