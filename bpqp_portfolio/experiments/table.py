"""The comparison's figures: each method's mean and spread over seeds, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd

from ..errors import DataError
from ..report.metrics import summarise
from ..report.statistics import Difference, holm, paired_difference
from ..runs.results import RunResults
from .columns import COLUMNS, cell_text, interval, p_text, points
from .plan import Comparison

DRAWS = 20_000
"""Of the bootstrap: with fewer, the smallest p-value times some forty comparisons is not small."""
NAMES_ALIKE = 0.1
"""Two methods hold the same number of names where they differ by no more than this part."""


OVER = {"index": "the index", "equal": "equal weights", "portfolio": ""}
"""The benchmark of a table → what it is called; the runs' own returns where they have none."""

LEARNED_ON = "Learned on"
"""A fact that may differ: a longer label ends train and valid earlier."""
EXCLUDED = "Name-days with invalid moves, left out at any label"
STATED = {
    "Universe and days": ("market", "benchmark", "days"),
    "Costs": ("costs",),
    "Account": ("account",),
    "Market rules": ("market",),
    "Data": ("data",),
    EXCLUDED: ("data", "market"),
}
"""What the table states of the runs → which of :data:`~.common_facts.FACTS` may make it differ."""


@dataclass(frozen=True)
class Paired:
    """A method against one of its controls on the same days.

    ``net`` and ``gross`` differences of annual return, ``saved`` the control's annual cost less the
    method's, so that net = gross + saved; ``p_value`` of ``net``, corrected for the number of
    comparisons in the table; ``levels`` annual net return of the method and of the control;
    ``names`` that they hold.
    """

    method: str
    control: str
    net: Difference
    gross: Difference
    saved: Difference
    p_value: float
    levels: tuple[float, float]
    names: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Is there a net gain at the interval's level, corrected for all comparisons?"""
        return self.net.annual > 0 and self.p_value < 1 - self.net.level

    @property
    def falls_short(self) -> bool:
        """Is the net return below the control's at the interval's level, corrected alike?"""
        return self.net.annual < 0 and self.p_value < 1 - self.net.level

    @property
    def as_many_names(self) -> bool:
        """Do both hold the same number of names, so that concentration explains nothing?"""
        first, second = self.names
        return abs(first - second) <= NAMES_ALIKE * second


@dataclass(frozen=True)
class ComparisonTable:
    """Everything the comparison shows.

    ``runs`` indexed by (method, seed) with a column for each of :data:`COLUMNS` (fractions; returns
    a year of ``days_per_year`` trading days, arithmetic); ``net`` by method a frame of daily net
    returns, one column a seed; ``benchmark`` daily return of what they are shown over, which is
    ``over`` in :data:`OVER`; ``paired`` in the order of the methods and of their controls;
    ``missing`` by name of a run the reason why it is not here; ``other_code`` names of runs that
    code other than that of now made; ``facts`` of the data and the exchange.
    """

    comparison: Comparison
    runs: pd.DataFrame
    net: dict[str, pd.DataFrame]
    benchmark: pd.Series
    over: str
    paired: list[Paired]
    days_per_year: float
    missing: Mapping[str, str] = field(default_factory=dict)
    other_code: Sequence[str] = ()
    facts: Sequence[str] = ()

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have runs, each followed by its controls."""
        return methods_in_order(self.comparison, list(self.net))

    @property
    def benchmark_name(self) -> str:
        """What returns are shown over, empty where the runs have no benchmark."""
        return OVER[self.over]

    def beats_all(self, method: str) -> bool:
        """Has the method a gain over each of its controls, all of which have runs?"""
        gains = self.gains(method)
        controls = self.comparison.methods[method].controls
        return bool(gains) and len(gains) == len(controls) and all(p.holds for p in gains)

    def title(self, method: str) -> str:
        """As the table prints the method."""
        return str(self.comparison.methods[method].title)

    def gains(self, method: str) -> list[Paired]:
        """The method against each of its controls that has runs."""
        return [p for p in self.paired if p.method == method]

    def verdict(self, method: str) -> str:
        """Over which of its controls the method gains, and over which it does not."""
        controls = self.comparison.methods[method].controls
        if not controls:
            return ""
        gains = self.gains(method)
        against = [p.control for p in gains if not p.holds]
        absent = [name for name in controls if name not in {p.control for p in gains}]
        if not against and not absent:
            return "yes" if len(controls) == 1 else f"yes, over all {len(controls)}"
        parts = []
        if against:
            parts.append("vanishes against " + "; ".join(map(self.title, against)))
        if absent:
            parts.append("no runs of " + "; ".join(map(self.title, absent)))
        return ", ".join(parts)

    def text(self) -> pd.DataFrame:
        """Mean ± standard deviation over seeds (ddof 1) as text, one row a method."""
        shown = [name for name in COLUMNS if self.runs[name].notna().any()]
        rows = {}
        for name in self.methods:
            own = self.runs.loc[name]
            cells = {COLUMNS[column].header: cell_text(column, own[column]) for column in shown}
            rows[self.title(name)] = {"Seeds": str(len(own)), **cells}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("Method")

    def groups(self) -> dict[str, pd.DataFrame]:
        """:meth:`text` in parts that fit a page, by group of figures; the first has the gains."""
        text = self.text()
        gain = pd.Series({self.title(name): self.verdict(name) for name in self.methods})
        over = dict.fromkeys((f"net_{self.over}", f"ratio_net_{self.over}", "net_equal"))
        chief = [*over, "turnover", "names_held"]
        columns = [COLUMNS[name].header for name in chief if COLUMNS[name].header in text]
        first = text[["Seeds", *columns]].copy()
        if self.paired:
            first["A gain over its controls?"] = gain
        out = {"Methods": first}
        for group in dict.fromkeys(column.group for column in COLUMNS.values()):
            own = [f.header for f in COLUMNS.values() if f.group == group and f.header in text]
            if own:
                short = {h: _capital(h.removeprefix(f"{group}, ")) for h in own}
                out[group] = text[own].rename(columns=short)
        return out

    def paired_text(self) -> pd.DataFrame:
        """The paired differences as text, % or points a year, one row for each pair."""
        levels = f"Net over {self.benchmark_name}" if self.benchmark_name else "Net"
        rows = [
            {
                "Method": self.title(p.method),
                "Control": self.title(p.control),
                f"{levels}, its / control's": " / ".join(map(points, p.levels)),
                "Difference": points(p.net.annual, sign=True),
                f"{p.net.level:.0%} interval": interval(p.net),
                "p, corrected": p_text(p.p_value),
                "of it gross": f"{points(p.gross.annual, sign=True)} ({interval(p.gross)})",
                "of it cost saved": f"{points(p.saved.annual, sign=True)} ({interval(p.saved)})",
                "Names held, its / control's": _names(p),
                "A gain?": "yes" if p.holds else "no",
            }
            for p in self.paired
        ]
        return pd.DataFrame(rows)


def build_table(
    comparison: Comparison,
    results: Mapping[tuple[str, int], RunResults],
    *,
    seconds: Mapping[tuple[str, int], float] | None = None,
    missing: Mapping[str, str] | None = None,
    other_code: Sequence[str] = (),
) -> ComparisonTable:
    """The table of all runs' results, by (method, seed).

    ``seconds`` that each took; ``missing`` and ``other_code`` see :class:`ComparisonTable`.

    Raises
    ------
    DataError
        The runs were not made on the same days, count other days a year, or differ in a fact that
        the comparison does not name in its ``compare``.
    """
    years = {result.days_per_year for result in results.values()}
    if len(years) > 1:
        raise DataError(
            f"the runs count {' and '.join(f'{n:g}' for n in sorted(years))} trading days a year: "
            "their markets differ, or some were saved before the market's year was kept; make them "
            "again."
        )
    year = years.pop()
    rows: dict[tuple[str, int], dict[str, float]] = {}
    daily: dict[str, dict[str, dict[int, pd.Series]]] = {"gross": {}, "cost": {}}
    for (method, seed), result in results.items():
        summary = summarise(result)
        row = {
            name: summary.loc[column.place[:2], column.place[2]] if column.place else math.nan
            for name, column in COLUMNS.items()
        }
        if len(result.epochs):
            row["epochs"] = float(len(result.epochs))
            row["epoch_seconds"] = result.epochs["seconds"].mean()
        row["run_seconds"] = (seconds or {}).get((method, seed), math.nan)
        rows[method, seed] = row
        for name, column in (("gross", "return"), ("cost", "cost")):
            daily[name].setdefault(method, {})[seed] = result.series("daily", column)
    runs = pd.DataFrame.from_dict(rows, orient="index").astype(float)
    runs.index = pd.MultiIndex.from_tuples(runs.index, names=["method", "seed"])
    runs = runs.sort_index()
    gross, cost = ({m: _frame(m, c) for m, c in frames.items()} for frames in daily.values())
    first = next(iter(results.values()))
    known = [
        (k, first.series("daily", c)) for k, c in (("index", "bench"), ("equal", "bench_equal"))
    ]
    over, benchmark = next(
        ((key, series) for key, series in known if series.notna().any()),
        ("portfolio", 0.0 * first.daily["return"]),
    )
    return ComparisonTable(
        comparison,
        runs,
        {name: gross[name] - cost[name] for name in gross},
        benchmark,
        over,
        _paired(comparison, gross, cost, runs, year, f"net_{over}"),
        year,
        dict(missing or {}),
        list(other_code),
        _facts(results, comparison.compare),
    )


def _frame(method: str, columns: Mapping[int, pd.Series]) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    if frame.isna().to_numpy().any():
        day = frame.index[frame.isna().any(axis=1)][0]
        raise DataError(f"the runs of {method!r} were not made on the same days, see {day}.")
    return frame


def _paired(
    comparison: Comparison,
    gross: Mapping[str, pd.DataFrame],
    cost: Mapping[str, pd.DataFrame],
    runs: pd.DataFrame,
    days_per_year: float,
    level: str,
) -> list[Paired]:
    """Each method against its controls; ``level`` is the column of ``runs`` shown beside."""
    paired = partial(
        paired_difference,
        days_per_year=days_per_year,
        block=comparison.block,
        level=comparison.level,
    )
    net = {name: gross[name] - cost[name] for name in gross}
    found = {}
    for name, method in comparison.methods.items():
        for control in method.controls:
            if name in gross and control in gross:
                found[f"{name} {control}"] = (
                    (name, control),
                    paired(net[name], net[control], draws=DRAWS),
                    paired(gross[name], gross[control]),
                    paired(-cost[name], -cost[control]),
                )
    corrected = holm({key: gain.p_value for key, (_, gain, _, _) in found.items()})
    means = runs.groupby(level="method").mean()
    out = []
    for key, (pair, gain, before, saved) in found.items():
        levels, names = (
            (float(means.loc[pair[0], column]), float(means.loc[pair[1], column]))
            for column in (level, "names_held")
        )
        out.append(Paired(*pair, gain, before, saved, corrected[key], levels, names))
    return out


def _facts(results: Mapping[tuple[str, int], RunResults], compared: Sequence[str]) -> list[str]:
    """What the runs state of their data and exchange, the same for all but what is compared."""
    stated: dict[str, dict[str, list[tuple[str, int]]]] = {}
    for run, result in results.items():
        for fact, value in _settings(result).items():
            stated.setdefault(fact, {}).setdefault(value, []).append(run)
    lines = []
    for fact, values in stated.items():
        if len(values) == 1 or fact == LEARNED_ON or set(STATED[fact]) & set(compared):
            found = "; or ".join(sorted(values, key=lambda value: -len(values[value])))
            lines.append(f"{fact}: {found}.")
        else:
            rarest = min(values, key=lambda value: len(values[value]))
            odd = ", ".join(f"{method}-seed{seed}" for method, seed in values[rarest][:3])
            raise DataError(
                f"{fact} differs between the runs ({odd}: {rarest}; the others: "
                f"{max(values, key=lambda value: len(values[value]))}). Give all methods the same, "
                f"or add `compare: [{', '.join(STATED[fact])}]` to the comparison if exactly that "
                "is compared."
            )
    return lines


def _settings(result: RunResults) -> dict[str, str]:
    known, out = result.settings, {}
    if known.get("market"):
        segments = dict(known.get("segments", {}))
        test = [f"test {segments.pop('test')}"] if "test" in segments else []
        universe = str(known["market"])
        if result.has_index:
            universe += f" against {result.benchmark}"
        out["Universe and days"] = ", ".join([universe, *test])
        if segments:
            out[LEARNED_ON] = ", ".join(f"{name} {days}" for name, days in segments.items())
    for fact, key in (("Costs", "costs"), ("Account", "account"), ("Market rules", "market_rules")):
        if key in known:
            pairs = dict(known[key]).items()
            out[fact] = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in pairs)
    if result.manifest:
        about = [result.manifest.get(key) for key in ("source", "start", "end", "instruments")]
        about.append(str(result.manifest.get("sha256", ""))[:12] or None)
        out["Data"] = ", ".join(str(value) for value in about if value is not None)
    if "excluded_name_days" in known:
        out[EXCLUDED] = str(known["excluded_name_days"])
    return out


def _names(paired: Paired) -> str:
    if not all(map(math.isfinite, paired.names)):
        return "–"
    first, second = paired.names
    return f"{first:.0f} / {second:.0f}" + ("" if paired.as_many_names else " ≠")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def methods_in_order(comparison: Comparison, present: Sequence[str]) -> list[str]:
    """Names of the methods that have runs, each followed by its controls."""
    out: list[str] = []
    for name, method in comparison.methods.items():
        for one in (name, *method.controls):
            if one in present and one not in out:
                out.append(one)
    return out
