"""Whatever changes after day t, in any field and any input table, nothing up to t moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.workflow import R
from qlib.workflow.record_temp import SignalRecord
from qlib_markets import MODEL, SEGMENTS, build, kept, lists

from bpqp_portfolio.backtest.segment import sectors_of
from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.data.universe.exposures import MarketExposures
from bpqp_portfolio.data.universe.index_weights import index_weights
from bpqp_portfolio.qlib_ext.handlers import feature_config
from bpqp_portfolio.qlib_ext.kept_tables import kept_table, kept_targets
from bpqp_portfolio.qlib_ext.mandate_records import MandateRecord
from bpqp_portfolio.qlib_ext.model import PortfolioModel

LAST = pd.Timestamp("2015-11-24")
TEST = ["2015-11-02", "2015-12-11"]
FIELDS = ("open", "high", "low", "close", "volume", "vwap")
KEPT = ("ROC5", "STD20", "KLEN", "VSTD10", "VWAP0", "CORR20")
HANDLER = {
    "kwargs": {
        "fields": list(FIELDS),
        "exclude": [name for name in feature_config(FIELDS, [])[1] if name not in KEPT],
    }
}
PLANTED = {
    # Invalid moves: one that $change disputes, one beyond the limit, one on resuming.
    "disputed": ("SH600002", "2015-05-20"),
    "impossible": ("SH600004", "2015-11-12"),
    "unadjusted": ("SH600006", "2015-09-16"),
}


def market_series(source: Provider) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """The simulated market under codes of the main board, with a vwap and the planted moves."""
    names = [n for n in source.names if n != "SIMIDX"]
    code = {name: f"SH6000{i:02d}" for i, name in enumerate(names)} | {"SIMIDX": "SIMIDX"}
    series = {}
    for name in (*names, "SIMIDX"):
        columns = {f: source.series(name, f).astype(float) for f in source.fields(name)}
        frame = pd.DataFrame(columns, index=source.calendar)
        if name != "SIMIDX":
            moves = (frame["close"] / frame["close"].ffill().shift() - 1).clip(-0.09, 0.09)
            scale = (1 + moves.fillna(0)).cumprod() * 20 / frame["close"]
            frame[["open", "high", "low", "close"]] = frame[["open", "high", "low", "close"]].mul(
                scale, axis=0
            )
            frame["change"] = moves
        frame["vwap"] = frame[["high", "low"]].mean(axis=1)
        series[code[name]] = frame
    prices = ["open", "high", "low", "close", "vwap"]

    def jump(planted: str, size: float, halt: int = 0, told: bool = True) -> None:
        name, day = PLANTED[planted]
        frame = series[name]
        i = frame.index.get_loc(pd.Timestamp(day))
        frame.iloc[i - halt : i] = np.nan
        before = frame["close"].iloc[: i - halt].dropna().iloc[-1]
        frame.loc[frame.index[i:], prices] *= (1 + size) * before / frame["close"].iloc[i]
        if told:
            frame.loc[frame.index[i], "change"] = size

    jump("disputed", -0.07, told=False)
    jump("impossible", 0.18)
    jump("unadjusted", -0.4, halt=25)
    spells = {k: v.assign(instrument=v["instrument"].map(code)) for k, v in lists(source).items()}
    return series, spells


def disturbed(
    series: dict[str, pd.DataFrame], spells: dict[str, pd.DataFrame]
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Every field of every name after ``LAST`` replaced, and who is a member then."""
    out = {}
    for name, frame in series.items():
        rng = np.random.default_rng(list(name.encode()))
        frame, later = frame.copy(), frame.index > LAST
        walk = np.exp(0.03 * rng.standard_normal(later.sum()).cumsum())
        for field in frame.columns:
            noise = np.exp(0.01 * rng.standard_normal(later.sum())) * walk
            frame.loc[later, field] = frame.loc[later, field].to_numpy() * noise
        # Half of it in percent, and wrong besides: neither unit nor trust may reach back.
        wrong = later & (rng.uniform(size=len(frame)) < 0.5)
        frame.loc[wrong, "change"] = 100 * rng.standard_normal(wrong.sum())
        gone = later & (rng.uniform(size=len(frame)) < 0.1)
        frame.loc[gone] = np.nan
        out[name] = frame
    members = spells["sim"]
    known = members["start"] <= LAST
    cut = members[known].assign(end=members.loc[known, "end"].clip(upper=LAST))
    others = sorted(set(series) - {"SIMIDX"})[::2]
    after = pd.DataFrame(
        {
            "instrument": others,
            "start": LAST + pd.Timedelta(days=1),
            "end": next(iter(series.values())).index[-1],
        }
    )
    return out, {**spells, "sim": pd.concat([cut, after], ignore_index=True)}


def tables(folder: Path, names: list[str], changed: bool) -> dict[str, str]:
    """Index weights, sectors, exposures and exclusions as CSV files; paths by what they are."""
    rng = np.random.default_rng(8)
    folder.mkdir()
    dates = ["2015-01-01", "2015-11-02", "2015-11-25", "2015-12-01"]
    weights, exposures = ["date,instrument,weight"], ["date,instrument,value"]
    for date in dates:
        for name in names:
            w, x = rng.uniform(0.5, 2), rng.standard_normal()
            if changed and pd.Timestamp(date) > LAST:
                w, x = 3 * w + 1, -5 * x
            weights.append(f"{date},{name},{w:.6f}")
            exposures.append(f"{date},{name},{x:.6f}")
    sectors = ["instrument,sector,from,to"]
    for i, name in enumerate(names):
        later = "a new one" if changed else f"s{i % 3}"
        sectors.append(f"{name},s{i % 3},,2015-11-24")
        sectors.append(f"{name},{later},2015-11-25,")
    excluded = ["instrument,date,reason", f"{names[1]},2015-11-10,looked at"]
    if changed:
        excluded += [f"{name},2015-12-0{1 + i % 7},later" for i, name in enumerate(names)]
    out = {}
    for what, lines in (
        ("index_weights", weights), ("exposure_table", exposures), ("sectors", sectors),
        ("exclusions", excluded),
    ):  # fmt: skip
        path = folder / f"{what}.csv"
        path.write_text("\n".join(lines) + "\n")
        out[what] = str(path)
    return out


def study(provider: Provider, files: dict[str, str], check: bool):
    """The dataset, the recorder of scores, weights and backtest, and the mandate's inputs by day.

    With ``check`` the moves are judged and the groups, weights and exposures are found from prices;
    otherwise all four are the files.
    """
    mandate = {
        "risk_aversion": 5.0,
        "constraints": {
            "max_weights": 0.4,
            "groups": {"limit": 0.8},
            "max_turnover": 0.3,
            "max_tracking_error": 0.3,
            "exposures": {"limit": {"beta" if check else "value": 1.5}},
        },
        "costs": {"buy": 0.001, "sell": 0.002, "minimum": 1.0},
        "account": {"value": 1e7, "risk_degree": 0.95},
        "on_failure": [{"relax": ["max_turnover", "groups", "exposures"]}, "hold"],
        "index_weights": "traded_value",
        "sectors": {"count": 3, "window": 60, "min_history": 30},
    }
    if not check:
        mandate |= {k: files[k] for k in ("index_weights", "sectors", "exposure_table")}
    data = build(
        provider.root,
        "cn",
        handler=HANDLER,
        mandate=mandate,
        segments={**SEGMENTS, "test": TEST},
        exclusions="check" if check else files["exclusions"],
    )
    model = PortfolioModel(**MODEL)
    with R.start(experiment_name="past"):
        model.fit(data)
        recorder = R.get_recorder()
        SignalRecord(model, data, recorder).generate()
        MandateRecord(recorder, data, model).generate()
        loaded = {name: kept(recorder, name) for name in ("realised", "daily")}
        loaded["scores"] = recorder.load_object("pred.pkl")
        loaded["weights"] = kept_targets(recorder)
        loaded["days"] = kept_table(recorder, "bpqp/mandate_days.parquet")
    return data, loaded


def until(table: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    if "datetime" in getattr(table, "columns", ()):
        return table[table["datetime"] <= LAST].reset_index(drop=True)
    days = table.index
    if isinstance(days, pd.MultiIndex):
        days = days.get_level_values("datetime")
    return table[days <= LAST]


@pytest.mark.parametrize("check", [True, False], ids=["from prices", "from tables"])
def test_nothing_up_to_the_day_moves(market, tmp_path, monkeypatch, check):
    monkeypatch.chdir(tmp_path)
    original = market_series(market)
    names = sorted(set(original[0]) - {"SIMIDX"})
    found = []
    for changed in (False, True):
        series, spells = disturbed(*original) if changed else original
        folder = tmp_path / str(changed)
        folder.mkdir()
        root = folder / "market"
        root.mkdir()
        provider = write_provider(root, market.calendar, series, spells)
        found.append((*study(provider, tables(folder / "csv", names, changed), check), provider))
    (ours, mine, at), (other, theirs, there) = found

    past = [[e for e in data.excluded if e.date <= LAST] for data in (ours, other)]
    assert past[0] == past[1]
    if check:
        assert {(e.instrument, f"{e.date:%Y-%m-%d}") for e in past[0]} == set(PLANTED.values())
        assert len(other.excluded) != len(ours.excluded)

    (index, *left), (index_, *right) = (data.handler.arrays() for data in (ours, other))
    days = ours.market_data.dates
    for table, known in zip((0, 1, 2), (LAST, days[days.get_loc(LAST) - 2], None), strict=True):
        known = known or days[days.get_loc(LAST) - 2]
        rows = [i.get_level_values("datetime") <= known for i in (index, index_)]
        assert index[rows[0]].equals(index_[rows[1]])
        assert left[table][rows[0]].tobytes() == right[table][rows[1]].tobytes()
        assert left[table][~rows[0]].tobytes() != right[table][~rows[1]].tobytes()

    end = int(days.get_loc(LAST)) + 1
    common = ours.market_data.names.intersection(other.market_data.names)
    shown = []
    for data, provider in ((ours, at), (other, there)):
        whole = data.market_data
        column = whole.names.get_indexer(common)
        weights = index_weights(data.mandate.index_weights, whole, provider).weights
        sectors = sectors_of(data.mandate, whole, data.data_key)
        exposures = data.mandate.exposures(whole, provider, data.risk.window)
        assert isinstance(exposures, MarketExposures)
        member = whole.member[:end][:, column]
        shown.append(
            {
                "returns": np.where(member, whole.returns[:end][:, column], 0),
                "member": member,
                "weights": weights[:end][:, column],
                "sectors": [sectors.of_day(d)[column].tolist() for d in range(end)],
                "exposures": np.stack(
                    [
                        np.where(member[d][:, None], exposures.of_day(d)[column], 0)
                        for d in range(60, end)
                    ]
                ),
            }
        )
    for what in shown[0]:
        a, b = (np.asarray(s[what]) for s in shown)
        if what == "sectors" and check:
            a, b = (np.where(s["member"], np.asarray(s[what]), "") for s in shown)
        assert a.tobytes() == b.tobytes(), what

    for name in mine:
        a, b = until(mine[name]), until(theirs[name])
        check_frame = (
            pd.testing.assert_series_equal
            if isinstance(a, pd.Series)
            else pd.testing.assert_frame_equal
        )
        check_frame(a, b, check_exact=True, obj=name)
        assert len(a) and not mine[name].equals(theirs[name]), name
