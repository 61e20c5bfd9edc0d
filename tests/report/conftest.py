"""A realistic synthetic run for the report's tests, and the browser they use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.runs.results import RunResults


def synthetic_run(days: int = 970, names: int = 40, seed: int = 0) -> RunResults:
    """A run of ``days`` test days that holds some ``names`` of 300, trading a slow signal."""
    rng = np.random.default_rng(seed)
    calendar = pd.bdate_range("2019-01-02", periods=days + 1)
    signal_days, trading_days = calendar[:-1], calendar[1:]
    universe = np.array([f"SH{600000 + 7 * i}" for i in range(300)])

    score = rng.normal(size=300)
    held, target_frames, realised_frames = np.zeros(300), [], []
    turnover, blocked, effective = np.zeros(days), np.zeros(days), np.zeros(days)
    for t in range(days):
        score = 0.97 * score + 0.25 * rng.normal(size=300)
        chosen = np.argsort(score)[-(names + int(rng.integers(-4, 5))) :]
        target = np.zeros(300)
        target[chosen] = np.minimum(rng.gamma(2.0, size=len(chosen)), 4)
        target /= target.sum()
        stuck = rng.random(300) < 0.01
        realised = np.where(stuck, held, target) * 0.98
        blocked[t] = np.sum(stuck & (np.abs(target - held) > 1e-4))
        turnover[t] = np.abs(realised - held).sum()
        effective[t] = 1 / np.sum(target**2)
        held = realised
        for frames, day, vector in (
            (target_frames, signal_days[t], target),
            (realised_frames, trading_days[t], realised),
        ):
            on = vector > 0
            frames.append(
                pd.DataFrame({"datetime": day, "instrument": universe[on], "weight": vector[on]})
            )

    market = rng.standard_t(5, size=days) * 0.009 + 0.0002
    equal = market + rng.normal(0.0001, 0.004, size=days)
    gross = equal + rng.normal(0.0006, 0.006, size=days)
    daily = pd.DataFrame(
        {
            "return": gross,
            "cost": turnover * 0.001,
            "turnover": turnover,
            "bench": market,
            "bench_equal": equal,
            "names_held": [float(len(frame)) for frame in realised_frames],
            "effective_names": effective,
            "blocked": blocked,
        },
        index=trading_days,
    )
    ic = rng.normal(0.025, 0.09, size=days)
    status = np.where(rng.random(days) < 0.01, "max_iterations", "solved")
    signal = pd.DataFrame(
        {
            "ic": ic,
            "rank_ic": ic + rng.normal(0.01, 0.02, size=days),
            "regret": rng.gamma(9.0, 0.006, size=days),
            "regret_equal": rng.gamma(9.0, 0.008, size=days),
            "regret_shuffled": rng.gamma(9.0, 0.009, size=days),
            "decision_value": gross - 0.0005,
            "kkt_norm": np.where(status == "solved", 10 ** rng.normal(-13, 0.8, size=days), 1e-5),
            "iterations": rng.poisson(7, size=days).astype(float),
            "status": status,
            "universe": rng.integers(270, 300, size=days).astype(float),
        },
        index=signal_days,
    )
    epoch = np.arange(1, 19)
    decay = np.exp(-epoch / 5)
    epochs = pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 1.0 + 0.25 * decay,
            "train_prediction": 0.985 + 0.05 * decay + rng.normal(0, 0.001, 18),
            "train_decision": 0.0021 + 0.0011 * decay + rng.normal(0, 0.00002, 18),
            "valid_prediction": 0.995 + 0.03 * decay + 0.0008 * epoch + rng.normal(0, 0.001, 18),
            "valid_decision": 0.0027 + 0.0006 * decay + rng.normal(0, 0.00004, 18),
            "valid_ic": 0.045 - 0.03 * decay - 0.0006 * epoch + rng.normal(0, 0.001, 18),
            "seconds": rng.uniform(2.1, 2.6, 18),
        }
    )
    limits = ["max_turnover 0.1", "max_tracking_error 0.06 a year", "max_weights 0.05"]
    limits += [f"groups: group {i + 1} ≤ 0.3" for i in range(3)]
    bound = rng.random((days, len(limits))) < [0.7, 0.4, 0.95, 0.2, 0.05, 0.0]
    activity = pd.DataFrame(
        {
            "datetime": np.repeat(signal_days, len(limits)),
            "constraint": np.tile(limits, days),
            "binding": bound.ravel().astype(float),
            "price": np.where(bound, rng.gamma(2.0, 0.001, bound.shape), 0.0).ravel(),
        }
    )
    failed = signal_days[:: max(1, days // 7)]
    events = pd.DataFrame(
        {
            "datetime": failed,
            "action": ["relaxed max_turnover", *["held"] * (len(failed) - 1)],
            "reason": "max_turnover 0.1 cannot meet groups: <group 1> ≤ 0.3",
        }
    )
    parts = {"drift": 0.01, "lots": 0.004, "unfilled": 0.006}
    gaps = {f"gap_{k}": rng.gamma(4.0, v / 4, days) for k, v in parts.items()}
    earned = {f"gap_return_{k}": rng.normal(-v / 200, v / 20, days) for k, v in parts.items()}
    shortfall = pd.DataFrame(
        {
            "gap": sum(gaps.values()),
            **gaps,
            "gap_return": sum(earned.values()),
            **earned,
            "orders": rng.integers(20, 60, days).astype(float),
            "unfilled": blocked,
            "cut": 0.0,
        },
        index=trading_days,
    )
    judged = ("True optimum", "End to end", "Two stages", "Equal weights")
    truth = pd.concat(
        pd.DataFrame(
            {
                "datetime": signal_days,
                "portfolio": name,
                "regret": rng.gamma(9.0, 1e-4 * rank, days) if rank else 0.0,
                "expected": rng.normal(1e-3 - 3e-4 * rank, 1e-4, days),
                "realised": rng.normal(1e-3 - 3e-4 * rank, 5e-3, days),
                "turnover": 0.2,
            }
        )
        for rank, name in enumerate(judged)
    )
    return RunResults(
        truth=truth,
        activity=activity,
        events=events,
        implementation_shortfall=shortfall,
        name="bpqp_csi300",
        run_id="5f0c1d2ab4e94c1f8c7b7d2e9a610f33",
        created="2025-03-14T15:09:26",
        config={
            "model": {
                "class": "BPQPModel",
                "kwargs": {
                    "predictor": {"name": "mlp", "hidden": [256, 256]},
                    "loss": {"name": "regret_squared_mse", "beta": 0.1},
                    "risk_aversion": 1.0,
                    "weight_cap": 0.05,
                },
            },
            "dataset": {"segments": {"train": ["2010-01-01", "2016-12-31"]}},
        },
        manifest={
            "source": "cn_csi300_2010_2022.tar.xz",
            "sha256": "9d2c7e0b51f4",
            "calendar": {"first": "2010-01-04", "last": "2022-12-30", "days": 3159},
            "universes": {"csi300": 300},
        },
        settings={
            "market": "csi300",
            "benchmark": "SH000300",
            "segments": {
                "train": "2010-01-01 to 2016-12-31",
                "valid": "2017-01-01 to 2018-12-31",
                "test": "2019-01-02 to 2022-12-30",
            },
            "costs": {"buy": 0.0005, "sell": 0.0015, "minimum": 5},
            "account": {"value": 1e8, "risk_degree": 0.98},
            "mandate": {"text": "max_weights 0.05\nmax_turnover 0.1", "sectors": "10 groups"},
            "seed": 0,
            "machine": {"cpu": "2 cores", "python": "3.11.9", "torch": "2.13.0"},
            "excluded_name_days": 41,
            "survivorship": "Index members are those of each day; delisted names are included.",
        },
        daily=daily,
        signal=signal,
        weights=pd.concat(target_frames, ignore_index=True),
        realised=pd.concat(realised_frames, ignore_index=True),
        epochs=epochs,
        best_epoch=12,
        timing={"data": 3.1, "features": 41.7, "risk": 11.2, "train": 38.4, "backtest": 21.9},
    )


@pytest.fixture(scope="session")
def run() -> RunResults:
    """A full run over 260 days, two calendar years."""
    return synthetic_run(days=260, names=25)


@pytest.fixture(scope="session")
def changed(run: RunResults) -> Callable[..., RunResults]:
    """The full run with other fields."""
    return lambda **fields: dataclasses.replace(run, **fields)
