"""Which names of a source are indices: levels to compare with, which cannot be held."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

# Codes that no share has: Chinese indices, Yahoo's mark of one, and the usual abbreviations.
_CODES = re.compile(
    r"SH000\d{3}|SZ399\d{3}|000300\.SH|\^.+|S&P500|SPX|SP500|GSPC|INX|DJI|DJIA|INDU|NDX|IXIC|RUT|VIX"
    r"|CSI\d+|HSI|N225|INDEX|BENCHMARK"
)
LEAST_NAMES = 10
EXPLAINED = 0.9
"""Share of a name's variance that the mean of at least ``LEAST_NAMES`` others explains for it to
look like an index; of a share it hardly ever is more than two thirds."""


def known_indices(names: Iterable[str]) -> list[str]:
    """Those of ``names`` whose code is that of an index.

    >>> known_indices(["SH600000", "SPX", "SH000300"])
    ['SH000300', 'SPX']
    """
    return sorted(name for name in names if _CODES.fullmatch(name))


def alike_indices(returns: Mapping[str, np.ndarray]) -> list[str]:
    """Names whose daily returns (T,), NaN where unknown, are nearly the mean of all others'."""
    names = sorted(returns)
    if len(names) <= LEAST_NAMES:
        return []
    # The mean of all others, as the total less the name's own, and its squared correlation.
    table = np.stack([returns[name] for name in names], axis=1)
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)
    count, total = known.sum(1), filled.sum(1)
    out = []
    for i, name in enumerate(names):
        others = count - known[:, i]
        days = known[:, i] & (others >= LEAST_NAMES)
        if days.sum() < 60:
            continue
        mean = (total - filled[:, i])[days] / others[days]
        own = table[days, i]
        if own.std() > 0 and mean.std() > 0 and np.corrcoef(own, mean)[0, 1] ** 2 > EXPLAINED:
            out.append(name)
    return out
