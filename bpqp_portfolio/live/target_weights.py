"""What to hold tomorrow: a tracked run's target weights and trades for one day."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..backtest.holdings import check_cash, plan_trades, quotes, read_holdings
from ..backtest.rebalance import BookRules
from ..data.provider.provider import Provider
from ..errors import ConfigError
from ..files.atomic import replacing_file
from ..markets.trading_year import QLIB
from ..portfolio.problem import PortfolioProblem
from ..problems.solution import SolveStatus
from ..runs.artifact import ARTIFACTS, PARTS, RunArtifact, load_run
from ..runs.tracked import download_artifacts, find_run, tag_of
from .mandate import decide_mandate, mandate_facts, mandate_table
from .snapshot import Snapshot, snapshot

BINDING = 1e-12  # a smaller dual is rounding
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


@dataclass(frozen=True, eq=False)
class Target:
    """What :func:`target_weights` decided.

    ``table`` : one row a name that is in the target, held, or left out of the problem, the largest
    weight first: ``instrument``, ``weight``, ``score``, ``expected_return`` (fraction per day),
    ``reason`` (why a name is not in the problem, or does not trade freely), and where holdings or
    cash were given ``price``, ``shares``, ``trade``, ``target_shares``, ``value``; under a mandate
    then also the ``previous`` weight.

    ``summary`` : JSON values: run, dates, expected return and risk, binding constraints with their
    prices in daily return, the solver's status, and the account; of a mandate also its words and
    the ways out that a day took that was not solved.
    """

    table: pd.DataFrame
    summary: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all; numbers are read back exactly."""
        with replacing_file(path) as scratch:
            self.table.to_csv(scratch, index=False, lineterminator="\n")

    def to_json(self) -> str:
        """Summary and table as one JSON object."""
        rows = json.loads(self.table.to_json(orient="records", double_precision=15))
        return json.dumps({**self.summary, "table": rows}, indent=2)


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
    saved = tracked_model(run, tracking_uri)
    source = Provider(Path(provider or saved.facts["data"]["folder"]))
    source.require()
    held = read_holdings(holdings, source) if holdings is not None else {}
    if holdings is not None and cash is None:
        raise ConfigError(
            "holdings: the account's cash is missing, and weights are fractions of shares and cash "
            "together; give it by --cash (cash= in Python), as --cash 0 where there is none."
        )
    rules = saved.rules if sized else None
    settings = saved.mandate
    day = snapshot(saved, source, date)
    if settings is None:
        weights, facts = decide_single(saved.problem, day, saved.days_per_year)
        table = _table(saved.problem, day, weights, held)
        facts["left_out"] = day.left_out
        if rules is not None:
            table, account = _sized(table, held, money, rules, source, day)
            facts |= account
    else:
        plan = decide_mandate(saved, settings, source, day, held if sized else None, money)
        table = mandate_table(plan, saved.problem, day, sized)
        facts = mandate_facts(settings.build(), plan, day, sized, saved.days_per_year)
    summary = {
        "run": saved.run_id,
        "date": f"{day.date:%Y-%m-%d}",
        "trade_on": None if day.next_day is None else f"{day.next_day:%Y-%m-%d}",
        "universe": saved.facts["market"],
        "provider": str(source.root),
        "in_sample": f"{day.date:%Y-%m-%d}" <= saved.facts["segments"]["valid"][1],
        "names_in_problem": len(day.names),
        "names_in_target": int((table["weight"] > 0).sum()),
        **facts,
    }
    return Target(table, summary)


def tracked_model(run: str, tracking_uri: str | None = None) -> RunArtifact:
    """The saved model of a tracked run; see :func:`target_weights` for ``run`` and errors."""
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


@torch.no_grad()
def decide_single(
    problem: PortfolioProblem, day: Snapshot, days_per_year: float = QLIB
) -> tuple[pd.Series, dict[str, Any]]:
    """Target weights (n,) of the day by name, and what is worth knowing about them."""
    mu = day.forecasts(problem)
    solution = problem.solve_forecast(torch.from_numpy(mu)[None], day.batch)
    w = solution.w[0].numpy()
    loadings, specific = day.covariance_root
    risk = _risk(w, loadings, specific)
    at_most = solution.lam_ub[0].numpy()
    capped = np.flatnonzero(at_most > BINDING)
    facts = {
        "expected_return": float(mu @ w),
        "risk": risk,
        "risk_annual": risk * days_per_year**0.5,
        "annual_days": days_per_year,
        "binding": {
            "budget": {"limit": 1.0, "price": float(solution.nu[0])},
            "max_weight": {
                "limit": problem.config.max_weight,
                "price": {str(day.names[i]): float(at_most[i]) for i in capped},
            },
        },
        "status": SolveStatus.from_code(solution.status[0]).label,
        "kkt_norm": float(solution.kkt_norm[0]),
    }
    if (decided := day.batch.with_learned_risk()) is not day.batch:
        # The risk above is the statistical one, which a network cannot talk down.
        facts["risk_learned"] = _risk(w, decided.loadings[0].numpy(), decided.specific[0].numpy())
    return pd.Series(w, index=day.names, name="weight"), facts


def _risk(w: np.ndarray, loadings: np.ndarray, specific: np.ndarray) -> float:
    """√(wᵀΣw), a day."""
    return float(np.sqrt(np.square(w @ loadings).sum() + (specific * w * w).sum()))


def _table(
    problem: PortfolioProblem, day: Snapshot, weights: pd.Series, held: dict[str, float]
) -> pd.DataFrame:
    scores = pd.Series(day.scores, index=day.names)
    forecasts = pd.Series(day.forecasts(problem), index=day.names)
    reasons = dict(day.left_out)
    for name in held:
        if name not in weights.index and name not in reasons:
            reasons[name] = "not in the universe"
    names = [*weights.index[weights > 0], *(n for n in held if n in weights.index), *reasons]
    names = list(dict.fromkeys(names))
    table = pd.DataFrame(
        {
            "instrument": names,
            "weight": weights.reindex(names, fill_value=0.0).to_numpy(),
            "score": scores.reindex(names).to_numpy(),
            "expected_return": forecasts.reindex(names).to_numpy(),
            "reason": [reasons.get(name, "") for name in names],
        }
    )
    return table.sort_values(["weight", "instrument"], ascending=[False, True], ignore_index=True)


def _sized(
    table: pd.DataFrame,
    held: dict[str, float],
    cash: float,
    rules: BookRules,
    provider: Provider,
    day: Snapshot,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table with prices, shares and trades, and the account before and after."""
    names = list(table["instrument"])
    quote = quotes(provider, names, int(provider.calendar.get_loc(day.date)))
    shares = pd.Series(held, dtype=float)
    weights = table.set_index("instrument")["weight"]
    plan, account = plan_trades(weights, shares, cash, quote, rules)
    columns = {
        "price": quote["price"].to_numpy(),
        "shares": shares.reindex(names, fill_value=0.0).to_numpy(),
        **{c: plan[c].to_numpy() for c in ("trade", "target_shares", "value")},
    }
    kept = [n for n in held if held[n] > 0 and not quote.loc[n, "traded"]]
    return table.assign(**columns), {"account": account, "kept_without_price": kept}


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
    for words in _bound(summary):
        console.print(words, highlight=False)
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
    """Lines on what binds, and on how a mandate's day ended that was not solved."""
    if "mandate" not in summary:
        capped = summary["binding"]["max_weight"]
        return [f"at max_weight {capped['limit']:g}: {len(capped['price'])} names"]
    lines = [f"not solved: {end['reason']}; taken: {end['way']}" for end in summary["fallback"]]
    if not summary["mandate"]["from_holdings"]:
        lines.append(
            "nothing is held: solved as an account's first purchase, to which limits of turnover "
            "and costs of trading do not apply"
        )
    return lines + [
        f"binding: {row['constraint']} (price {row['price']:.3g} a day)"
        for row in summary["binding"]
    ]
