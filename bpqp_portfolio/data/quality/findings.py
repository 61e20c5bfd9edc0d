"""What a check of a provider can find: the catalogue of faults, findings and their report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...config import build, nearest, title
from ...errors import ConfigError
from ..provider.provider import Provider
from .exclusions import Exclusions

ERROR, WARNING, INFO = "error", "warning", "info"
STYLES = {ERROR: "bold red", WARNING: "yellow", INFO: "cyan"}
OWN_CHECK = ("name", "severity", "what", "remedy")

EXCLUDE = "write the list of exclusions (--write-exclusions FILE) and name it in the workflow"
IMPORT = "`bpqp data import` this folder into a clean one"

# check → severity, what is wrong, remedy; the order is that of the report.
CHECKS: dict[str, tuple[str, str, str]] = {
    "calendar-order": (ERROR, "calendar days out of order or repeated", IMPORT),
    "calendar-gap": (WARNING, "no trading day for more than 20 days", "look for missing days"),
    "calendar-weekend": (
        WARNING, "trading days on a weekend: days may be one off, as those of stamps in UTC",
        "`bpqp data import` the source again with --timezone, if its stamps have a time",
    ),
    "code-notation": (
        WARNING, "code of a Chinese exchange that is not written as Qlib does (SH600000): no price "
        "limit and no least order applies to it", f"{IMPORT}: it writes them so",
    ),
    "list-unreadable": (ERROR, "instrument list cannot be read", "repair or remove the file"),
    "market-missing": (ERROR, "no such universe", "name one that exists, or import its list"),
    "folder-case": (
        ERROR, "feature folder not in lower case, which Qlib does not see",
        f"rename it, or {IMPORT}",
    ),
    "files-missing": (
        WARNING, "listed instrument without feature files",
        "its days are missing from every result: get its data or drop it from the lists",
    ),
    "unreadable": (ERROR, "series cannot be read", "get the file anew"),
    "past-calendar": (
        ERROR, "series runs past the calendar",
        "calendar and files are of different versions: get both anew",
    ),
    "close-missing": (ERROR, "feature folder without a close", "get its data or remove it"),
    "fields-missing": (
        INFO, "fields that are absent",
        "use features that need none of them; without change no price limit is seen",
    ),
    "empty": (WARNING, "no close on any day", "get its data or drop it from the lists"),
    "non-finite": (ERROR, "infinite values", IMPORT),
    "non-positive": (ERROR, "prices or factors of zero or less", "get the data anew"),
    "negative-volume": (ERROR, "negative volume", "get the data anew"),
    "ohlc": (WARNING, "low and high do not enclose open and close", "get the data anew"),
    "suspended-priced": (
        WARNING, "price on a day with zero volume: a backtest would trade a suspended stock",
        f"{IMPORT}: it makes suspended days NaN",
    ),
    "change-percent": (
        ERROR, "$change in percent: Qlib's limit_threshold is a fraction", IMPORT,
    ),
    "change-unadjusted": (
        WARNING, "$change is not the return of the adjusted close, in general", IMPORT,
    ),
    "move-disputed": (
        WARNING, "move that $change contradicts: one of factor and change is wrong", EXCLUDE,
    ),
    "move-impossible": (WARNING, "move beyond the board's price limit", EXCLUDE),
    "move-unadjusted": (
        WARNING, "fall beyond the limit on resuming with an unchanged factor: a distribution or "
        "share reform that the factor lacks", EXCLUDE,
    ),
    "move-unlimited": (
        INFO, "move beyond the limit on a day that had none: a stock resumed or listed again",
        "kept as valid; add it to the exclusions by hand if you know better",
    ),
    "move-large": (
        WARNING, "move of more than 75 % where no limit is known",
        "look at it; add it to the exclusions by hand if it is wrong",
    ),
    "universe-empty": (WARNING, "universe without members", "get a list that covers these days"),
    "universe-frozen": (
        WARNING, "membership does not change for more than two years: not point in time",
        "get a current list: one of today's members looks ahead",
    ),
    "universe-fixed": (
        INFO, "one list of names for the whole time: results carry survivorship bias",
        "state it beside the results",
    ),
    "universe-survivors": (
        INFO, "no name ever leaves the list: results carry survivorship bias",
        "state it beside the results",
    ),
    "coverage-low": (
        WARNING, "years in which less than 90 % of the members have data",
        "get the missing names, or state it beside the results: it is survivorship bias",
    ),
    "benchmark-traded": (
        ERROR, "the benchmark is a name of the universe, so a portfolio could hold it",
        "take it out of the list, or import the data again with `--benchmark CODE`",
    ),
    "benchmark-missing": (ERROR, "no data of the benchmark", "import it, or name another one"),
    "benchmark-unknown": (
        WARNING, "no data of the usual benchmark of a universe", "import it, or name another one",
    ),
    "benchmark-gaps": (WARNING, "days without a close of the benchmark", "name another one"),
}  # fmt: skip

SHOWN = 4


class OwnCheck(Protocol):
    """A check of the user's own: its ``name``, ``severity``, ``what`` is wrong and ``remedy``."""

    name: str
    severity: str
    what: str
    remedy: str

    def places(self, provider: Provider) -> Iterable[str]:
        """Each place of ``provider`` in which the fault is found, as the report names it."""
        ...


def build_checks(specs: Iterable[Mapping[str, Any]]) -> list[OwnCheck]:
    """The checks that ``specs`` name by ``class`` and ``module_path``.

    Raises
    ------
    ConfigError
        A class that cannot be loaded or is no :class:`OwnCheck`, or a name that is taken.
    """
    checks: list[OwnCheck] = []
    for spec in specs:
        check = build(spec, {}, "check")
        lacking = [key for key in (*OWN_CHECK, "places") if not hasattr(check, key)]
        if lacking:
            raise ConfigError(f"check {title(spec)!r}: has no {', '.join(lacking)}; see OwnCheck.")
        if check.severity not in STYLES:
            hint = nearest(check.severity, STYLES)
            raise ConfigError(f"check {title(spec)!r}: no severity {check.severity!r}.{hint}")
        if check.name in (*CHECKS, *(one.name for one in checks)):
            raise ConfigError(f"check {title(spec)!r}: the name {check.name!r} is taken.")
        checks.append(check)
    return checks


@dataclass(frozen=True)
class Finding:
    """One kind of fault: ``severity`` error, warning or info; ``places`` all of it, the largest
    first."""

    check: str
    severity: str
    what: str
    places: tuple[str, ...]
    count: int
    remedy: str

    @property
    def where(self) -> str:
        """The first places, one a line."""
        rest = len(self.places) - SHOWN
        return "\n".join(self.places[:SHOWN]) + (f"\nand {rest} more" if rest > 0 else "")


@dataclass(frozen=True)
class CheckReport:
    """What :func:`~.check.check_provider` found, in the order of ``CHECKS``.

    ``coverage``: columns ``market``, ``year``, ``members`` (average of a day), ``covered`` (share
    of them with data; of the index's full size where that is known). ``exclusions``: the moves
    that are invalid.
    """

    root: Path
    findings: tuple[Finding, ...]
    coverage: pd.DataFrame
    exclusions: Exclusions

    def count(self, severity: str) -> int:
        """Number of findings of ``severity``."""
        return sum(f.severity == severity for f in self.findings)

    @property
    def errors(self) -> int:
        """Number of findings that make the provider unfit for use."""
        return self.count(ERROR)

    @property
    def warnings(self) -> int:
        """Number of doubtful findings."""
        return self.count(WARNING)

    def __getitem__(self, check: str) -> Finding:
        """The finding of ``check``; KeyError where nothing was found."""
        return {f.check: f for f in self.findings}[check]

    def __contains__(self, check: str) -> bool:
        return any(f.check == check for f in self.findings)

    def to_dict(self) -> dict:
        """Everything, ready for JSON."""
        return {
            "root": str(self.root),
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [
                {"check": f.check, "severity": f.severity, "what": f.what, "count": f.count,
                 "places": list(f.places), "remedy": f.remedy}
                for f in self.findings
            ],
            "coverage": self.coverage.to_dict("records"),
            "exclusions": [[e.instrument, f"{e.date:%Y-%m-%d}", e.reason] for e in self.exclusions],
        }  # fmt: skip


@dataclass
class Notes:
    """Findings while they are being collected."""

    places: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    own: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def add(self, check: str, place: str, count: int = 1, size: float | None = None) -> None:
        """Another place where ``check`` found something, ``count`` times; none for a count of 0.

        Places are shown by ``size``, the largest first; it is ``count`` where nothing else is said.
        """
        if count:
            self.places.setdefault(check, []).append((count if size is None else size, place))
            self.counts[check] = self.counts.get(check, 0) + int(count)

    def findings(self) -> tuple[Finding, ...]:
        """What was found, in the order of :data:`CHECKS`."""
        return tuple(
            Finding(check, severity, what, self._sorted(check), self.counts[check], remedy)
            for check, (severity, what, remedy) in {**CHECKS, **self.own}.items()
            if check in self.places
        )

    def _sorted(self, check: str) -> tuple[str, ...]:
        ordered = sorted(self.places[check], key=lambda found: -found[0])
        return tuple(place for _, place in ordered)


def print_report(report: CheckReport, console: Console) -> None:
    """Print the table of findings, the coverage by year and the closing line."""
    if report.findings:
        table = Table("severity", "what", "where", "count", "remedy")
        for f in report.findings:
            style = STYLES[f.severity]
            table.add_row(
                f"[{style}]{f.severity}[/]", f.what, escape(f.where), str(f.count), f.remedy
            )
        console.print(table)
    if len(report.coverage):
        table = Table("year")
        console.print("members on an average day, and the share of them with data:")
        by_market = report.coverage.set_index(["year", "market"]).unstack()
        markets = by_market["covered"].columns
        for market in markets:
            table.add_column(market, justify="right")
        for year, row in by_market.iterrows():
            cells = [
                ""
                if pd.isna(row["covered", m])
                else f"{row['members', m]:.0f}  {row['covered', m]:.1%}"
                for m in markets
            ]
            table.add_row(str(year), *cells)
        console.print(table)
    counts = ((report.errors, "error"), (report.warnings, "warning"))
    console.print(", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts))
