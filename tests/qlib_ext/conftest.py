"""One small simulated market for the tests of the adapters, each with a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from qlib_markets import build

from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.data.provider.simulate import simulate_market
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """These problems are too small for more."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own with a cache, in which the runs of a file are tracked."""
    path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("BPQP_CACHE", str(path / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("BPQP_PROVIDER_URI", raising=False)
        yield path


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Provider:
    """The provider of 14 simulated names (read only)."""
    return simulate_market(
        tmp_path_factory.mktemp("sim") / "market",
        names=14,
        years=1.25,
        seed=5,
        factors=2,
        signal_ic=0.2,
        churn=0.15,
        suspended=0.01,
    )


@pytest.fixture(scope="session")
def dataset(market: Provider, tmp_path_factory: pytest.TempPathFactory) -> PortfolioDataset:
    """The small dataset with its panel; a test that asks Qlib for prices connects first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPQP_CACHE", str(tmp_path_factory.mktemp("cache")))
        built = build(market.root)
        built.panel()
        return built
