"""Days for the portfolio benchmarks: real CSI 300 risk models or simulated ones, and their QPs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bpqp_portfolio.risk import RiskConfig, rolling_risk

from .instances import Array, Instance
from .risk_model import WINDOW, real_market

FACTORS, GROUPS = 10, 30
FORECAST = 0.02  # cross-sectional standard deviation of μ, a fraction per day


@dataclass(frozen=True)
class Days:
    """T days of n names: Σ = B Bᵀ + diag(d), forecasts, loss r·w, the previous day's forecasts.

    ``loadings`` (T, n, k); all others (T, n); ``groups`` (T, 30, n) of zeros and ones.
    """

    loadings: Tensor
    specific: Tensor
    mask: Tensor
    mu: Tensor
    before: Tensor
    loss: Tensor
    groups: Tensor

    @classmethod
    def of(cls, loadings: Tensor, specific: Tensor, mask: Tensor, seed: int = 0) -> Days:
        """With random forecasts, correlated 0.7 from one day to the next."""
        draw = torch.Generator().manual_seed(seed)
        shape, dtype = mask.shape, torch.float64
        before, news, loss = torch.randn(3, *shape, generator=draw, dtype=dtype)
        mu = 0.7 * before + 0.51**0.5 * news
        group = torch.randint(GROUPS, shape, generator=draw)
        groups = torch.nn.functional.one_hot(group, GROUPS).to(dtype).mT * mask.unsqueeze(1)
        return cls(loadings, specific, mask, FORECAST * mu, FORECAST * before, loss, groups)

    def limits(self) -> Tensor:
        """Largest weight of each group (T, 30): its share of names and five points more."""
        return self.groups.sum(-1) / self.mask.sum(-1, keepdim=True) + 0.05

    def qp(self, t: int, risk_aversion: float) -> tuple[Instance, Array, dict[str, Array]]:
        """Day t as a dense QP with rows 1ᵀw = 1, −w ≤ 0; its loss; and B, d times γ."""
        inside = self.mask[t]
        B = (self.loadings[t][inside] * risk_aversion**0.5).numpy()
        d = (self.specific[t][inside] * risk_aversion).numpy()
        n = len(d)
        data = {
            "P": B @ B.T + np.diag(d),
            "q": -self.mu[t][inside].numpy(),
            "A": np.ones((1, n)),
            "b": np.ones(1),
            "G": -np.eye(n),
            "h": np.zeros(n),
        }
        return Instance("qp", n, 1, t, data), self.loss[t][inside].numpy(), {"B": B, "d": d}


def real(path: Path, days: int) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings, specific variances and mask of ``days`` days evenly spread over the data."""
    returns, member = real_market(path)
    chosen = np.linspace(WINDOW - 1, len(returns) - 1, days).astype(int)
    panel = rolling_risk(returns, member, np.unique(chosen), RiskConfig(factors=FACTORS))
    parts = [panel.rows(i) for i in range(len(panel.days))]
    keep = [panel.modelled[rows] for rows in parts]
    width = max(int(k.sum()) for k in keep)
    loadings = torch.zeros(len(parts), width, FACTORS, dtype=torch.float64)
    specific = torch.ones(len(parts), width, dtype=torch.float64)
    mask = torch.zeros(len(parts), width, dtype=torch.bool)
    for t, (rows, kept) in enumerate(zip(parts, keep, strict=True)):
        n = int(kept.sum())
        loadings[t, :n] = torch.from_numpy(panel.loadings[rows][kept])
        specific[t, :n] = torch.from_numpy(panel.specific[rows][kept])
        mask[t, :n] = True
    return loadings, specific, mask


def simulated(days: int, names: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A market factor of 1.3 % a day, nine smaller ones, specific volatility of 1 to 3 %."""
    rng = np.random.default_rng(seed)
    scale = np.array([0.004, *np.geomspace(0.006, 0.002, FACTORS - 1)])
    loadings = scale * rng.normal(size=(days, names, FACTORS))
    loadings[..., 0] += 0.013
    specific = rng.uniform(0.01, 0.03, (days, names)) ** 2
    mask = torch.ones(days, names, dtype=torch.bool)
    return torch.from_numpy(loadings), torch.from_numpy(specific), mask
