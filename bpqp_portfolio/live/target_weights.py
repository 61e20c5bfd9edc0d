"""What to hold next: a tracked run's target weights and trades for one day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backtest.holdings import COLUMNS, check_cash, read_holdings
from ..data.provider.provider import Provider
from ..errors import ConfigError, DataError
from ..files.dates import FORM, iso_day
from ..runs.artifact import ARTIFACTS, PARTS, RunArtifact, load_run
from ..runs.tracked import download_artifacts, find_run, tag_of
from .decision import decide, target_facts, target_table
from .snapshot import snapshot
from .target import Target

SHOWN = {
    "instrument": "{}",
    "weight": "{:.3%}",
    "previous": "{:.3%}",
    "expected_return": "{:.3%}",
    "price": "{:,.6g}",
    "shares": "{:,.10g}",
    "trade": "{:+,.10g}",
    "reason": "{}",
}
"""Columns that the terminal has room for, and their formats."""


def target_weights(
    run: str,
    date: str | None = None,
    *,
    provider: Path | None = None,
    holdings: Path | None = None,
    cash: float | None = None,
    tracking_uri: str | None = None,
) -> Target:
    """Decide at the close of ``date`` as the tracked run ``run`` would have in its backtest.

    Parameters
    ----------
    run : id or unique name of a tracked run, or the name of an experiment with one finished run.
    date : trading day, YYYY-MM-DD; by default the last day of the provider with data.
    provider : folder of the Qlib provider; by default the one the run was trained on.
    holdings : CSV file ``instrument,shares``, which needs ``cash``; cash : currency. With either,
        the weights become shares in lots and trades at the quoted closes of the day. A mandate is
        solved from them; without any, as the first purchase of an empty account.
    tracking_uri : MLflow's address, by default ``sqlite:///mlflow.db``.

    Raises
    ------
    DataError, ConfigError
        An unknown run or one that keeps no model, a provider or columns that do not fit it, a day
        without data, malformed holdings, holdings without cash, or negative cash.
    SolverError
        The day's problem cannot be solved, and a mandate's ``on_failure`` says to raise.
    """
    sized = holdings is not None or cash is not None
    money = check_cash(cash) if cash is not None else 0.0
    _check_asked(date, holdings, cash)
    run_artifact = tracked_model(run, tracking_uri)
    source = Provider(Path(provider or run_artifact.facts["data"]["folder"])).require()
    held = (
        None
        if not sized
        else {}
        if holdings is None
        else read_holdings(holdings, source, run_artifact.facts.get("benchmark"))
    )
    day = snapshot(run_artifact, source, date)
    decision = decide(run_artifact, source, day, held, money)
    table = target_table(decision, day)
    summary = {
        "run": run_artifact.run_id,
        "date": f"{day.date:%Y-%m-%d}",
        "trade_on": None if day.next_day is None else f"{day.next_day:%Y-%m-%d}",
        "universe": run_artifact.facts["market"],
        "provider": str(source.root),
        "currency": run_artifact.market_rules.currency,
        "lot": run_artifact.market_rules.lot,
        "in_sample": f"{day.date:%Y-%m-%d}" <= run_artifact.facts["segments"]["valid"][1],
        "names_in_target": int((table["weight"] > 0).sum()),
        **target_facts(decision, day, run_artifact.days_per_year),
    }
    return Target(table, summary)


def _check_asked(date: str | None, holdings: Path | None, cash: float | None) -> None:
    """Refuse what is wrong with the question itself, before the run is looked for."""
    if date is not None and iso_day(date) is None:
        raise DataError(f"date: {date!r} is no date of the form {FORM}.")
    if holdings is not None and not Path(holdings).expanduser().is_file():
        raise DataError(
            f"cannot read the holdings: no file {holdings}; write one with `{','.join(COLUMNS)}`."
        )
    if holdings is not None and cash is None:
        raise ConfigError(
            "holdings: the account's cash is missing, and weights are fractions of shares and cash "
            "together; give it by --cash (cash= in Python), as --cash 0 where there is none."
        )


def tracked_model(run: str, tracking_uri: str | None = None) -> RunArtifact:
    """What a tracked run keeps of its model; see :func:`target_weights` for ``run`` and errors."""
    run_id = find_run(run, tracking_uri)
    with download_artifacts(
        run_id,
        ARTIFACTS,
        tracking_uri,
        missing=(
            "keeps no model under {where}/: it did not finish, was made before models were kept "
            "for new days, or its model class saves none (PortfolioModel and LGBModel do). Run its "
            "workflow again, with a ReportRecord."
        ),
    ) as folder:
        return load_run(folder, run_id, tag_of(run_id, PARTS, tracking_uri))


def print_target(target: Target) -> None:
    """A few lines for the terminal: the day, the figures, and the largest targets."""
    from rich.console import Console
    from rich.table import Table

    summary, console = target.summary, Console()
    console.print(
        f"{summary['date']}, trade on {summary['trade_on'] or 'the next trading day'}: "
        f"{summary['names_in_target']} of {summary['names_in_problem']} names; expected return "
        f"{summary['expected_return']:.3%} a day, risk {summary['risk']:.3%} a day, "
        f"{summary['risk_annual']:.1%} a year of {summary['annual_days']:g} days",
        highlight=False,
    )
    rows = target.table[(target.table["weight"] > 0) | (target.table.get("shares", 0) > 0)]
    rows = rows[[column for column in SHOWN if column in rows]]
    shown = Table(box=None, header_style="bold")
    for column in rows:
        number = column not in ("instrument", "reason")
        title = "return" if column == "expected_return" else column
        shown.add_column(title, justify="right" if number else "left", no_wrap=column != "reason")
    for row in rows.itertuples(index=False):
        cells = zip(row, rows, strict=True)
        shown.add_row(*("–" if value != value else SHOWN[c].format(value) for value, c in cells))
    console.print(shown)
    for line in _bound(summary):
        console.print(line, highlight=False)
    for name, reason in summary["left_out"].items():
        console.print(f"left out: {name} ({reason})", highlight=False)
    if "account" in summary:
        console.print(
            "value {value:,.2f}, cash after the trades {cash:,.2f}, their cost {cost:,.2f}".format(
                **summary["account"]
            ),
            highlight=False,
        )


def _bound(summary: dict[str, Any]) -> list[str]:
    """Lines on what binds, and on the fallback of a day that was not solved."""
    lines = [f"not solved: {end['reason']}; taken: {end['action']}" for end in summary["fallback"]]
    if "mandate" in summary and summary["first_purchase"]:
        lines.append(
            "nothing is held: solved as an account's first purchase, to which limits of turnover "
            "and costs of trading do not apply"
        )
    return lines + [
        f"binding: {row['constraint']} (shadow price {row['shadow_price']:.3g} a day)"
        for row in summary["binding"]
    ]
