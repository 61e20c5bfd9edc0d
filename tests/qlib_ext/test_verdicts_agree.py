"""What `bpqp weights` does not believe on a later day is what the check of that day says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.provider.provider import write_provider
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.data.quality.exclusions import Exclusions
from bpqp_portfolio.data.universe.market import load_market
from bpqp_portfolio.live.snapshot import _exclusions

DAYS = pd.bdate_range("2020-01-01", periods=300)
NAMES = [f"SH6000{i:02d}" for i in range(6)]


def provider(folder, days: int, others_disagree: bool):
    """Six names, three of them in the universe; in the others $change may mean something else."""
    rng = np.random.default_rng(1)
    series = {}
    for i, name in enumerate(NAMES):
        moves = 0.02 * rng.uniform(-1, 1, len(DAYS))
        change = moves.copy()
        if i == 0:
            moves[260], moves[280] = -0.05, 0.06  # disputed
        if i == 1:
            moves[270] = change[270] = 0.2  # beyond the limit
        if i >= 3 and others_disagree:
            change[220:] = 0.3
        close = 20 * np.cumprod(1 + moves)
        columns = {"close": close, "high": close * 1.01, "low": close * 0.99, "change": change}
        frame = pd.DataFrame({**columns, "factor": 1.0}, DAYS)
        series[name] = frame.iloc[:days]
    spells = [(name, DAYS[0], DAYS[-1]) for name in NAMES]
    everything = pd.DataFrame(spells, columns=["instrument", "start", "end"])
    folder.mkdir()
    lists = {"all": everything, "mine": everything.iloc[:3]}
    return write_provider(folder, DAYS[:days], series, lists)


@pytest.mark.parametrize("others_disagree", [False, True])
def test_later_verdicts_are_those_of_the_check(tmp_path, others_disagree):
    whole = provider(tmp_path / "whole", 300, others_disagree)
    market = load_market(whole, "mine")
    run = SimpleNamespace(
        days=[f"{d:%Y-%m-%d}" for d in DAYS[:250]],
        facts={"exclusions": "check"},
        excluded=Exclusions(),
        risk=SimpleNamespace(window=60),
    )
    found = 0
    for day in (255, 262, 275, 299):
        until = provider(tmp_path / str(day), day + 1, others_disagree)
        said = {
            e
            for e in check_provider(until.root, market="mine").exclusions
            if e.instrument in NAMES[:3] and e.date > DAYS[249]
        }
        assert set(_exclusions(run, whole, market, day)) == said
        found = len(said)
    assert found == (1 if others_disagree else 3)
