"""A small provider of real prices, without a network: 20 US stocks that skfolio carries."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.resources
import io
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ...errors import ConfigError
from ...files.atomic import replacing_folder
from .manifest import extent
from .provider import Provider, check_target, write_provider

UNIVERSE = "sp20"
BENCHMARK = "SPX"
PRICES, LEVELS = "sp500_dataset.csv.gz", "sp500_index.csv.gz"


def build_us20(to: Path, *, progress: bool = False) -> Provider:
    """Write a provider of 20 S&P 500 stocks, 1990 to 2022, and the index ``SPX`` to ``to``.

    The prices are adjusted closes in dollars, rounded to 0.001 at the source, so the fields are
    ``close``, ``change`` (a fraction) and ``factor`` (1: no quoted prices are known); there is no
    open, high, low or volume. Lists: ``sp20`` and ``all``, the same 20 names throughout. They were
    chosen with hindsight, so a backtest on them flatters.

    Raises
    ------
    ConfigError
        The package skfolio, which carries the data (BSD licence), is not installed.
    """
    check_target(to)
    try:
        folder = importlib.resources.files("skfolio.datasets.data")
        raw = {name: (folder / name).read_bytes() for name in (PRICES, LEVELS)}
        version = importlib.metadata.version("skfolio")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ConfigError(
            f"these prices come with the package skfolio ({error}): "
            "run `pip install 'bpqp-portfolio[demo]'`."
        ) from error
    stocks, index = (_read(raw[name]) for name in (PRICES, LEVELS))
    calendar = stocks.index.union(index.index)
    closes = stocks.join(index.set_axis([BENCHMARK], axis=1), how="outer")

    series = {}
    for name in tqdm(closes.columns, "names", disable=None if progress else True):
        close = closes[name].dropna()
        series[name] = pd.DataFrame({"close": close, "change": close.pct_change(), "factor": 1.0})
    spells = pd.DataFrame(
        [(name, stocks[name].first_valid_index(), stocks[name].last_valid_index())
         for name in stocks.columns],
        columns=["instrument", "start", "end"],
    )  # fmt: skip
    universes = {UNIVERSE: spells, "all": spells}
    manifest = {
        "kind": "us20",
        "source": f"20 US stocks chosen with hindsight, from skfolio {version} (BSD-3-Clause)",
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in raw.items()},
        **extent(calendar, universes, series),
        "fields": dict.fromkeys(("close", "change", "factor"), len(series)),
        "benchmark": BENCHMARK,
    }
    to = Path(to).expanduser()
    with replacing_folder(to) as scratch:
        write_provider(scratch, calendar, series, universes, manifest)
    return Provider(to)


def _read(content: bytes) -> pd.DataFrame:
    table = gzip.decompress(content)
    return pd.read_csv(io.BytesIO(table), index_col="Date", parse_dates=["Date"])
