"""Markets, an example of every constraint and cost, and the same problems in cvxpy."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import torch

from bpqp_portfolio.portfolio.mandate.parts import Bound, Of, Row, Sense
from bpqp_portfolio.portfolio.mandate.terms import CONSTRAINTS, COSTS

EXAMPLES = {name: dict(term.example) for name, term in {**CONSTRAINTS, **COSTS}.items()}


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
        "traded_value": tensor(np.random.default_rng(seed).uniform(1e7, 4e7, (T, n))),
        "account": torch.full((T,), 1e8, dtype=torch.float64),
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
        target = config.get("exposure_target")
        if target:
            miss = d["exposures"][:, 0] @ w - target["targets"]["size"]
            goal += 0.5 * target["strength"] * cp.square(miss)
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
        if "max_participation" in config:
            most = config["max_participation"] * d["traded_value"]
            rows.append(cp.abs(trade) * d["account"] <= most)
        if "max_leverage" in config:
            rows.append(cp.norm1(w) <= config["max_leverage"])
        if "max_tracking_error" in config:
            rows.append(cp.norm(active) <= config["max_tracking_error"] / 252**0.5)
        out.append(solved(goal, rows, w))
    return out


def of_parts(program) -> list[tuple[float | None, torch.Tensor | None]]:
    """The optima of a program by cvxpy, from the fields of its typed parts alone."""

    def norm2(form, day, w):
        e = w if form.centre is None else w - form.centre[day].numpy()
        blocks = []
        if form.loadings is not None:
            g = 0.0 if form.target is None else form.target[day].numpy()
            blocks.append(form.loadings[day].numpy().T @ e - g)
        if form.specific is not None:
            blocks.append(cp.multiply(form.specific[day].sqrt().numpy(), e))
        return cp.hstack(blocks)

    out = []
    for day in range(len(program.q)):
        w = cp.Variable(program.q.shape[1])
        trade = w - program.previous[day].numpy()
        goal = program.q[day].numpy() @ w
        goal += 0.5 * float(program.gamma[day]) * cp.sum_squares(norm2(program.risk, day, w))
        for cost in program.costs:
            goal += 0.5 * float(cost.weight[day]) * cp.sum_squares(norm2(cost.form, day, w))
        for cost in program.trading:
            goal += cost.buy[day].numpy() @ cp.pos(trade) + cost.sell[day].numpy() @ cp.neg(trade)
        rows = []
        for one in program.constraints:
            limit = None if isinstance(one, Bound) else float(one.limit[day])
            if isinstance(one, Bound):
                rows += [] if one.lower is None else [w >= one.lower[day].numpy()]
                rows += [] if one.upper is None else [w <= one.upper[day].numpy()]
            elif isinstance(one, Row):
                of = {Of.WEIGHTS: w, Of.GROSS: cp.abs(w), Of.TRADES: cp.abs(trade)}[one.of]
                value = one.matrix[day].numpy() @ of
                rows.append(
                    {Sense.LOWER: value >= limit, Sense.UPPER: value <= limit}.get(one.sense)
                    if one.sense is not Sense.EQUAL
                    else value == limit
                )
            else:
                rows.append(cp.norm(norm2(one.form, day, w)) <= limit)
        out.append(solved(goal, rows, w))
    return out


def solved(goal, rows, w) -> tuple[float | None, torch.Tensor | None]:
    """Value and solution of one cvxpy problem, or None and None where it is infeasible."""
    problem = cp.Problem(cp.Minimize(1e3 * goal), rows)
    with warnings.catch_warnings():
        # Clarabel stops short of 1e-12 where it stalls, and its point is good to 1e-9 there.
        warnings.filterwarnings("ignore", "Solution may be inaccurate")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    if not problem.status.startswith("optimal"):
        return None, None
    return float(goal.value), torch.tensor(w.value)
