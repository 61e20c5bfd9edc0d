"""Milliseconds a day of the rolling risk models, against a scikit-learn PCA for each day.

Run ``BPQP_REAL_DATA=ARCHIVE_OR_FOLDER python benchmarks/risk_model.py`` for real CSI 300 returns,
without the variable for simulated ones (300 names). Prints a Markdown table.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from joblib import cpu_count
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.risk import RISK_MODELS, RiskConfig, daily_returns, rolling_risk

ARCHIVE = "cn_csi300_2010_2022.tar.xz"
WINDOW, FACTORS = 240, 10


def real_market(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns and CSI 300 membership, (T, N), from the archive, its folder, or a provider."""
    if (path / "calendars").is_dir():
        return read_provider(path)
    archive = path / ARCHIVE if path.is_dir() else path
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        return read_provider(next(Path(folder).iterdir()))


def read_provider(root: Path) -> tuple[np.ndarray, np.ndarray]:
    provider = Provider(root).require()
    names = sorted(set(provider.spells("csi300")["instrument"]))
    returns = daily_returns(provider.frame("close", names).to_numpy())
    return returns, provider.membership("csi300", provider.calendar, names)


def simulated_market(days: int = 1000, names: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    returns = rng.standard_t(5, (days, FACTORS)) @ rng.normal(0, 0.004, (FACTORS, names))
    returns += 0.015 * rng.standard_t(5, (days, names))
    returns[rng.random(returns.shape) < 0.03] = np.nan
    return returns, np.ones(returns.shape, dtype=bool)


def scikit_learn(returns: np.ndarray, member: np.ndarray, days: np.ndarray) -> None:
    """What a user would write: impute, fit, keep components and residual variance."""
    with threadpool_limits(1):
        for day in days:
            window = returns[day + 1 - WINDOW : day + 1, member[day]]
            window = window[:, np.isfinite(window).sum(axis=0) >= 60]
            window = np.where(np.isnan(window), np.nanmean(window, axis=0), window)
            pca = PCA(FACTORS, svd_solver="full").fit(window)
            loadings = pca.components_.T * np.sqrt(pca.explained_variance_)
            window.var(axis=0, ddof=1) - np.square(loadings).sum(axis=1)


def milliseconds(run: Callable[[np.ndarray], object], days: np.ndarray) -> str:
    run(days[:2])  # imports and warm-up
    start = time.perf_counter()
    run(days)
    seconds = time.perf_counter() - start
    return f"{len(days)} | {seconds:.1f} | {1000 * seconds / len(days):.2f}"


def main() -> None:
    path = os.environ.get("BPQP_REAL_DATA")
    returns, member = real_market(Path(path).expanduser()) if path else simulated_market()
    days = np.arange(WINDOW - 1, len(returns))
    few = days[:: max(1, len(days) // 30)]
    market, names = "CSI 300" if path else "simulated", member[days].sum(axis=1).mean()
    print(f"{market}: {names:.0f} names a day, {WINDOW} days, k = {FACTORS}, {cpu_count()} cores\n")
    print("| model | jobs | days | seconds | ms a day |\n|---|---|---|---|---|")

    def ours(model: str, jobs: int) -> Callable[[np.ndarray], object]:
        config = RiskConfig(model=model, factors=FACTORS, window=WINDOW)
        return lambda days: rolling_risk(returns, member, days, config, jobs=jobs, progress=False)

    for jobs in sorted({1, cpu_count()}):
        print(f"| pca | {jobs} | {milliseconds(ours('pca', jobs), days)} |")
    peer = milliseconds(lambda days: scikit_learn(returns, member, days), few)
    print(f"| scikit-learn PCA for each day | 1 | {peer} |")
    for model in RISK_MODELS:
        if model != "pca":
            print(f"| {model} | 1 | {milliseconds(ours(model, 1), few)} |")


if __name__ == "__main__":
    main()
