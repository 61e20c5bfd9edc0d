"""What these tests share: Qlib sessions, datasets of a small market, and providers changed."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import qlib
from qlib.backtest import backtest
from qlib.model.trainer import task_train

from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.markets.rules import market_rules
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.exchange import BoardExchange
from bpqp_portfolio.qlib_ext.handlers import feature_config
from bpqp_portfolio.qlib_ext.kept_tables import kept_table
from bpqp_portfolio.qlib_ext.strategy import TargetWeightStrategy

# For simulate_market(names=14, years=1.25): 2015-01-01 to 2016-04-01, without holidays.
SEGMENTS = {
    "train": ["2015-03-02", "2015-07-31"],
    "valid": ["2015-08-03", "2015-10-30"],
    "test": ["2015-11-02", "2016-03-15"],
}
SETTINGS = {
    "market": "sim",
    "benchmark": "SIMIDX",
    "segments": SEGMENTS,
    "risk": {"factors": 2, "window": 60, "min_history": 30},
    "mandate": {
        "risk_aversion": 5.0,
        "constraints": {"max_weights": 0.25},
        "costs": {"buy": 0.0005, "sell": 0.0015, "minimum": 5.0},
        "account": {"value": 1e7, "risk_degree": 0.95},
    },
}
MODEL = {
    "predictor": {"name": "mlp", "hidden": [16]},
    "loss": {"name": "squared_regret"},
    "trainer": {"epochs": 2, "learning_rate": 1e-2, "batch_days": 20},
}
KEPT = ("ROC5", "ROC20", "STD20", "RSQR10")
# A handler of four features of the close, which is built in a moment.
FEW = {
    "kwargs": {
        "fields": ["close"],
        "exclude": [name for name in feature_config(["close"], [])[1] if name not in KEPT],
    }
}


def connect(root: Path, region: str = "us", tracking: Path | None = None) -> None:
    """Point Qlib at the provider ``root``; nothing is tracked unless a file is given."""
    file = tracking or Path(root).parent / "mlflow.db"
    qlib.init(
        provider_uri=str(root),
        region=region,
        kernels=1,
        logging_level=logging.WARNING,
        exp_manager={
            "class": "MLflowExpManager",
            "module_path": "qlib.workflow.expm",
            "kwargs": {"uri": f"sqlite:///{file}", "default_exp_name": "test"},
        },
    )


def build(root: Path, region: str = "us", **changes: object) -> PortfolioDataset:
    """The small dataset on the provider ``root`` with ``changes`` to its settings."""
    connect(root, region)
    return PortfolioDataset(**{**SETTINGS, **changes})


def run_task(
    market: Provider, file: Path, name: str, model: Mapping, backtest: Mapping, **changes: object
) -> Any:
    """The recorder of a finished task of the experiment ``name``, tracked in ``file``.

    ``backtest`` is the record between the weights and the report.
    """
    connect(market.root, tracking=file)
    ours = "bpqp_portfolio.qlib_ext"
    task = {
        "model": model,
        "dataset": {
            "class": "PortfolioDataset",
            "module_path": f"{ours}.dataset",
            "kwargs": {**SETTINGS, **changes},
        },
        "record": [
            {"class": "SignalRecord", "kwargs": {"model": "<MODEL>", "dataset": "<DATASET>"}},
            backtest,
            {"class": "ReportRecord", "module_path": f"{ours}.records"},
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        return task_train(task, experiment_name=name)


def kept(recorder: Any, table: str) -> pd.DataFrame:
    """A table of the results that a run's records kept."""
    return kept_table(recorder, f"bpqp/results/{table}.parquet")


def mandate(**changes: object) -> dict[str, Any]:
    """The small dataset's mandate with ``changes``."""
    return {**SETTINGS["mandate"], **changes}


def lists(provider: Provider) -> dict[str, pd.DataFrame]:
    """Spells of every instrument list."""
    return {market: provider.spells(market) for market in provider.markets}


def rewrite(
    source: Provider,
    to: Path,
    change: Callable[[str, pd.DataFrame], pd.DataFrame] | None = None,
    universes: Mapping[str, pd.DataFrame] | None = None,
) -> Provider:
    """A copy of ``source`` with each name's frame passed through ``change``."""
    series = {}
    for folder in source.folders:
        name = folder.upper()
        columns = {f: source.series(name, f).astype(float) for f in source.fields(name)}
        frame = pd.DataFrame(columns, index=source.calendar)
        series[name] = frame if change is None else change(name, frame)
    to.mkdir(parents=True)
    return write_provider(to, source.calendar, series, universes or lists(source))


def with_outsider(source: Provider, to: Path) -> Provider:
    """A copy of ``source`` with a stock ``SIMOUT`` that was never in a universe."""
    shutil.copytree(source.root, to)
    shutil.copytree(to / "features" / "simidx", to / "features" / "simout")
    return Provider(to)


def from_closes(to: Path, closes: pd.DataFrame, **universes: pd.DataFrame) -> Provider:
    """A provider of closing prices (T, n), NaN where suspended, with the index ``IDX``."""
    series = {}
    index = closes.pct_change(fill_method=None).mean(axis=1).fillna(0.0).add(1).cumprod()
    for name, close in closes.assign(IDX=1000 * index).items():
        change = close / close.ffill().shift() - 1
        fields = dict.fromkeys(("open", "high", "low", "close"), close)
        series[name] = pd.DataFrame({**fields, "volume": 1e6, "change": change, "factor": 1.0})
    spells = [(name, closes.index[0], closes.index[-1]) for name in closes]
    everything = pd.DataFrame(spells, columns=["instrument", "start", "end"])
    to.mkdir(parents=True)
    return write_provider(to, closes.index, series, {"all": everything, **universes})


def trade(
    provider: Provider,
    weights: pd.DataFrame,
    *,
    region: str = "us",
    exchange: Mapping = {},
    rules: Mapping = {},
    **more,
) -> tuple[pd.DataFrame, dict[pd.Timestamp, dict[str, float]], dict[pd.Timestamp, int]]:
    """Qlib's backtest of the target weights (T, n), free of cost and lots unless told.

    The provider needs a day after the last of them.
    Returns Qlib's report by day, the shares held at each close, and the blocked names by day.
    """
    connect(provider.root, region)
    start, end = weights.index[0], weights.index[-1]
    signal = weights.stack().rename_axis(["datetime", "instrument"])
    blocked: dict[pd.Timestamp, int] = {}
    strategy = {"signal": signal[signal > 0], "risk_degree": 0.9, "blocked": blocked, **more}
    free = {"open_cost": 0.0, "close_cost": 0.0, "min_cost": 0.0}
    quotes = BoardExchange(
        freq="day",
        start_time=start,
        end_time=end,
        codes=list(weights.columns),
        deal_price="close",
        rules=market_rules(region, {"lot": None, "price_limits": "boards", **rules}),
        **{**free, **exchange},
    )
    portfolio, _ = backtest(
        start_time=start,
        end_time=end,
        strategy={"class": TargetWeightStrategy, "kwargs": strategy},
        executor={
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        account=1e6,
        benchmark="IDX",
        exchange_kwargs={"exchange": quotes},
    )
    report, positions = portfolio["1day"]
    shares = {
        pd.Timestamp(day): position.get_stock_amount_dict() for day, position in positions.items()
    }
    return report, shares, blocked
