"""Markets, an example of every constraint and cost, and the same problems in cvxpy."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import torch

EXAMPLES = {
    "min_weights": {"min_weights": 0.01},
    "long_only": {"long_only": False},
    "max_weights": {"max_weights": 0.15},
    "active_weights": {"active_weights": 0.05},
    "budget": {"budget": 0.9},
    "market_neutral": {"market_neutral": True, "min_weights": -0.2},
    "groups": {"groups": 0.3},
    "exposures": {"exposures": {"limit": {"size": 0.1}, "lower": {"size": -0.1}}},
    "max_turnover": {"max_turnover": 0.1},
    "max_leverage": {"max_leverage": 1.4, "min_weights": -0.3},
    "max_tracking_error": {"max_tracking_error": 0.03},
    "linear_cost": {"linear_cost": {"buy": 0.0005, "sell": 0.0015}},
    "quadratic_cost": {"quadratic_cost": 0.005},
    "tracking_penalty": {"tracking_penalty": 20.0},
}


def market(T=3, n=12, k=3, seed=0) -> dict:
    """Fields of a Market of T days, n names, k factors; the first group holds half of the money."""
    rng = np.random.default_rng(seed)

    def tensor(value):
        return torch.tensor(np.ascontiguousarray(value))

    codes = np.broadcast_to(np.arange(n) % 4, (T, n))
    held = rng.uniform(0.2, 1, (T, n)) * np.where(codes == 0, 3.0, 1.0)
    bench = rng.uniform(0.2, 1, (T, n))
    return {
        "mu": tensor(0.002 * rng.normal(size=(T, n))),
        "loadings": tensor(0.01 * rng.normal(size=(T, n, k)) / k**0.5),
        "specific": tensor(1e-4 * rng.uniform(0.5, 1.5, (T, n))),
        "mask": torch.ones(T, n, dtype=torch.bool),
        "previous": tensor(held / held.sum(-1, keepdims=True)),
        "benchmark": tensor(bench / bench.sum(-1, keepdims=True)),
        "groups": tensor(codes),
        "group_names": ["banks", "food", "mines", "chips"],
        "exposures": tensor(rng.normal(size=(T, n, 1))),
        "exposure_names": ["size"],
    }


def best(config: dict, data: dict) -> list[float | None]:
    """The optimal value of each day by cvxpy and Clarabel; None where it is infeasible."""
    return [value for value, _ in optima(config, data)]


def optima(config: dict, data: dict) -> list[tuple[float | None, torch.Tensor | None]]:
    """Value and weights (n,) of each day's optimum by cvxpy and Clarabel, or None and None."""
    out: list[tuple[float | None, torch.Tensor | None]] = []
    for day in range(len(data["mu"])):
        d = {k: v[day].numpy() for k, v in data.items() if isinstance(v, torch.Tensor)}
        n = len(d["mu"])
        w = cp.Variable(n)
        half = np.hstack([d["loadings"], np.diag(np.sqrt(d["specific"]))]).T
        risk, active = cp.norm(half @ w), half @ (w - d["benchmark"])
        g = config.get("risk_aversion", 1.0)
        trade = w - d["previous"]
        goal = -d["mu"] @ w + g / 2 * cp.sum_squares(half @ w)
        objective = config.get("objective")
        if objective == "minimum_variance":
            goal = 0.5 * cp.sum_squares(half @ w)
        elif objective == "maximum_utility":
            goal = -d["mu"] @ w + g * cp.sum_squares(half @ w)
        elif objective == "robust":
            goal = goal + config["kappa"] * risk
        cost = config.get("linear_cost")
        if cost:
            goal += cp.sum(cost["buy"] * cp.pos(trade) + cost["sell"] * cp.neg(trade))
        goal += config.get("quadratic_cost", 0.0) * cp.sum_squares(trade)
        goal += 0.5 * config.get("tracking_penalty", 0.0) * cp.sum_squares(active)
        low = config.get("min_weights", 0.0 if config.get("long_only", True) else -1.0)
        rows = [w >= low, w <= config.get("max_weights", 1.0)]
        rows.append(cp.sum(w) == (0 if "market_neutral" in config else config.get("budget", 1.0)))
        if "active_weights" in config:
            rows.append(cp.abs(w - d["benchmark"]) <= config["active_weights"])
        if "groups" in config:
            rows += [cp.sum(w[d["groups"] == c]) <= config["groups"] for c in range(4)]
        if "exposures" in config:
            x = d["exposures"][:, 0] @ w
            rows += [x <= config["exposures"]["limit"]["size"]]
            rows += [x >= config["exposures"]["lower"]["size"]]
        if "max_turnover" in config:
            rows.append(0.5 * cp.norm1(trade) <= config["max_turnover"])
        if "max_leverage" in config:
            rows.append(cp.norm1(w) <= config["max_leverage"])
        if "max_tracking_error" in config:
            rows.append(cp.norm(active) <= config["max_tracking_error"] / 252**0.5)
        problem = cp.Problem(cp.Minimize(1e3 * goal), rows)
        with warnings.catch_warnings():
            # Clarabel stops short of 1e-12 where it stalls, and its point is good to 1e-9 there.
            warnings.filterwarnings("ignore", "Solution may be inaccurate")
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        solved = problem.status.startswith("optimal")
        out.append((float(goal.value), torch.tensor(w.value)) if solved else (None, None))
    return out
