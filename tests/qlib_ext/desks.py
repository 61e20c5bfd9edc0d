"""Runs under a mandate that several files test, on a market with suspensions and price limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from qlib_markets import MODEL, SEGMENTS, lists

from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.live.target_weights import target_weights
from bpqp_portfolio.qlib_ext.kept_tables import kept_table, kept_targets

OURS = "bpqp_portfolio.qlib_ext"
GROUPS = {"count": 3, "window": 60, "min_history": 30, "months": 1}
MANDATE = {
    "risk_aversion": 5.0,
    "constraints": {"max_weights": 0.3, "groups": {"limit": 0.6}, "max_turnover": 0.2},
    "costs": {"buy": 0.001, "sell": 0.002, "minimum": 5.0},
    "account": {"value": 1e7, "risk_degree": 0.95},
    "on_failure": [{"relax": ["max_turnover", "groups"]}, "hold"],
    "sectors": GROUPS,
    "index_weights": "traded_value",
}
RULES = {"lot": 100, "price_limits": "boards"}
BACKTEST = {
    "class": "MandateRecord",
    "module_path": f"{OURS}.mandate_records",
}
NETWORK = {"class": "PortfolioModel", "module_path": f"{OURS}.model", "kwargs": MODEL}


def trading(source: Provider, to: Path) -> Provider:
    """``source`` with codes of the main board, and days in the test on which names do not trade.

    Each name closes on its upper and on its lower limit now and then, and is suspended for a day
    or two.
    """
    names = [f.upper() for f in source.folders if f.upper() != "SIMIDX"]
    code = {name: f"SH6000{i:02d}" for i, name in enumerate(names)} | {"SIMIDX": "SIMIDX"}
    rng, days = np.random.default_rng(3), source.calendar
    first = int(days.searchsorted(pd.Timestamp(SEGMENTS["test"][0])))
    series = {}
    for name in (*names, "SIMIDX"):
        columns = {f: source.series(name, f).astype(float) for f in source.fields(name)}
        frame = pd.DataFrame(columns, index=days)
        if name != "SIMIDX":
            prices = ["open", "high", "low", "close"]
            for day, move in zip(rng.integers(first, len(days), 4), (0.1, -0.1) * 2, strict=True):
                jump = (1 + move) * frame["close"].iloc[day - 1] / frame["close"].iloc[day]
                frame.iloc[day:, frame.columns.get_indexer(prices)] *= jump
            for day in rng.integers(first, len(days), 3):
                frame.iloc[day : day + int(rng.integers(1, 3))] = np.nan
            frame["change"] = frame["close"] / frame["close"].ffill().shift() - 1
            frame["factor"] = frame["factor"] * 0.8
        series[code[name]] = frame
    spells = {k: v.assign(instrument=v["instrument"].map(code)) for k, v in lists(source).items()}
    to.mkdir(parents=True)
    return write_provider(to, days, series, spells)


@dataclass(frozen=True)
class Desk:
    """A finished run under a mandate, and what its backtest held and decided."""

    id: str
    uri: str
    market: Provider
    folder: Path
    positions: dict
    targets: pd.Series
    days: pd.DataFrame

    @classmethod
    def of(cls, recorder, file: Path, market: Provider) -> Desk:
        """The desk of a finished run that is tracked in ``file``, on ``market``."""
        return cls(
            recorder.id,
            f"sqlite:///{file}",
            market,
            file.parent,
            recorder.load_object("portfolio_analysis/positions_normal_1day.pkl"),
            kept_targets(recorder),
            kept_table(recorder, "bpqp/mandate_days.parquet"),
        )

    def shares(self, date: pd.Timestamp) -> dict[str, float]:
        """Shares of the exchange that were held at the close of ``date``."""
        if date not in self.positions:
            return {}
        at = self.market.calendar.get_loc(date)
        held = self.positions[date].get_stock_amount_dict()
        factor = {n: pd.Series(self.market.series(n, "factor")[: at + 1]).dropna() for n in held}
        return {n: float(amount) * float(factor[n].iloc[-1]) for n, amount in held.items()}

    def decide(self, date: pd.Timestamp, tmp_path: Path, **changes):
        """``target_weights`` with the backtest's holdings and cash of ``date``."""
        held = tmp_path / f"{date:%Y%m%d}.csv"
        lines = [f"{name},{amount!r}" for name, amount in self.shares(date).items()]
        held.write_text("\n".join(["instrument,shares", *lines]) + "\n")
        cash = float(self.positions[date].get_cash()) if date in self.positions else 1e7
        options = {"holdings": held, "cash": cash, "tracking_uri": self.uri, **changes}
        return target_weights(self.id, f"{date:%Y-%m-%d}", **options)


def decided(target) -> pd.Series:
    table = target.table[target.table["weight"] > 0]
    return table.set_index("instrument")["weight"]
