"""Qlib records: the backtest of what is decided on the scores, and the report of the run."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import torch
import yaml
from qlib.contrib.evaluate import risk_analysis
from qlib.workflow import R
from qlib.workflow.record_temp import ACRecordTemp, PortAnaRecord, SignalRecord

from ..backtest.appraisal import appraise, decide, score_figures
from ..backtest.learned_risk import LearnedRisk, learned_risk_of, problem_of
from ..backtest.realised import held_by_signal, realised_weights
from ..backtest.references import regret_references
from ..config import check_keys, check_text, from_mapping
from ..files.atomic import replacing_file
from ..problems.solution import SolveStatus
from ..report.metrics import flatten, summarise
from ..report.terminal import print_summary
from ..report.tracked_metrics import tracked_once
from ..runs.artifact import ARTIFACTS
from ..runs.results import COLUMNS, NO_DECISION, STORED, RunResults, plain, save_results
from ..runs.tracked import ARTIFACTS as RESULTS
from ..training import torch_threads
from .dataset import PortfolioDataset
from .exchange import BoardExchange, exchange_of
from .facts import refuse_restated
from .kept_tables import keep, kept_facts, kept_table
from .preflight import trades_by_mandate
from .run_description import NOTE, code_tags, data_tags, method_of, note
from .save_run import parts_tag, save_run
from .strategy import TargetWeightStrategy

SURVIVORSHIP = (
    "Names that merged or delisted may be missing from the provider, so results can carry some "
    "survivorship bias; compare the universe coverage that `bpqp data check` prints."
)


def solver_metrics(days: pd.DataFrame | None) -> dict[str, float]:
    """The solver's health over days with ``kkt_norm``, ``iterations`` and ``status``."""
    if days is None or days.empty:
        return {}
    counts = days["status"].value_counts()
    return {
        "kkt_norm": float(days["kkt_norm"].max()),
        "iterations": float(days["iterations"].mean()),
        **{
            f"solver.{status.name.lower()}": float(counts.get(status.label, 0))
            for status in SolveStatus
        },
    }


@dataclass(frozen=True)
class NoSettings:
    """Settings of a record that has none: what it trades by is stated in the dataset."""


@dataclass(frozen=True)
class Decided:
    """What a strategy decided in a backtest.

    ``targets`` > 0 by (signal day, instrument), fractions of the invested part; ``solver`` its
    ``kkt_norm``, ``iterations`` and ``status`` by signal day, None where nothing was solved;
    ``blocked`` and ``orders`` by trading day. To be kept besides: ``tables`` of
    :class:`~bpqp_portfolio.runs.results.RunResults`, ``details`` that are none of its (tables, or
    mappings), and ``metrics``.
    """

    targets: pd.Series
    solver: pd.DataFrame | None
    blocked: Mapping[pd.Timestamp, float]
    orders: Mapping[pd.Timestamp, float]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class BacktestRecord(PortAnaRecord):
    """Decide each test day once, trade it in Qlib's backtest, and appraise what was held.

    The weights are those that the dataset's problem makes of the scores, blind to what is held.
    Costs and account are the dataset's mandate's, lots and price limits its market's. Compared
    with the index, where there is one, and equal weights. Keeps Qlib's artifacts and metrics, and
    adds

    - ``bpqp/results/``: ``daily``, ``signal``, ``weights`` (the targets) and ``realised``, Parquet
      tables as in :class:`~bpqp_portfolio.runs.results.RunResults`. ``regret`` and
      ``decision_value`` of ``signal`` are of what was held at the close at which the signal was
      traded, beside ``regret_equal`` and ``regret_shuffled`` (see
      :func:`~bpqp_portfolio.backtest.references.regret_references`); their means are
      ``bpqp.regret``, ``bpqp.decision_value`` and so on;
    - of a model that learned its risk ``bpqp/log_specific.parquet`` and ``log_factors.parquet``
      (see :class:`~bpqp_portfolio.backtest.learned_risk.LearnedRisk`), whose mean sizes are
      ``bpqp.learned.specific`` and ``bpqp.learned.factors``; a learned κ is
      ``bpqp.learned.kappa``.

    Parameters
    ----------
    skip_existing : leaves a run as it is that has these artifacts already.

    Raises
    ------
    ConfigError
        The mandate states no costs or no account, or a setting is unknown.
    """

    depend_cls = SignalRecord
    trades: ClassVar[bool] = True
    by_mandate: ClassVar[bool] = False
    config_class: ClassVar[type[Any]] = NoSettings

    def __init__(
        self,
        recorder: Any,
        dataset: PortfolioDataset,
        model: Any = None,
        skip_existing: bool = False,
        **settings: Any,
    ) -> None:
        self.check_settings(settings)
        self.settings = from_mapping(self.config_class, settings, type(self).__name__)
        self.dataset, self.model = dataset, model
        self.rules = dataset.mandate.book_rules(dataset.market_rules)
        start, end = dataset.span_names["test"]
        backtest = {
            "start_time": start,
            "end_time": end,
            "account": dataset.mandate.traded()[0].value,
            "benchmark": dataset.benchmark,
        }
        config: dict[str, Any] = {"strategy": {}, "backtest": backtest}
        analysis: list[str] | None = None
        if dataset.benchmark is None:
            # Qlib would take CSI 300 for none, and analyses only what is over a benchmark.
            backtest["benchmark"] = pd.Series(0.0, pd.DatetimeIndex([start, end]))
            analysis = []
        super().__init__(
            recorder, config=config, risk_analysis_freq=analysis, skip_existing=skip_existing
        )

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError for an unknown setting or one outside its range."""
        refuse_restated("record", settings, cls.__name__)
        given = {k: v for k, v in settings.items() if k != "skip_existing"}
        from_mapping(cls.config_class, given, cls.__name__)

    def _generate(self, **kwargs: Any) -> dict[str, Any]:
        clock, scores = self.dataset.clock, self.load("pred.pkl").iloc[:, 0]
        self.recorder.set_tags(**code_tags(), **data_tags(self.dataset))
        if "task" in self.recorder.list_artifacts():  # none where records are run one by one
            method = method_of(self.recorder.load_object("task"))
            self.recorder.set_tags(**{"bpqp.method": method})
        exchange = exchange_of(self.dataset, self.rules)
        with clock("weights"), torch_threads(1):
            learned = learned_risk_of(self.model, self.dataset, recorder=self.recorder)
            self.strategy_config = self._strategy(scores, learned, exchange)
        self.backtest_config["exchange_kwargs"] = {"exchange": exchange}
        with clock("backtest"), torch_threads(1):
            artifacts = self._simulate(**kwargs)
            report = artifacts["report_normal_1day.pkl"]
            realised = realised_weights(artifacts["positions_normal_1day.pkl"])
            decided = self._decided(realised, artifacts, exchange)
            daily = self._daily(report, realised, decided)
            signal = self._signal(scores, learned, decided, realised, daily.index)
        tables = {
            "daily": daily,
            "signal": signal,
            "weights": decided.targets.rename("weight").reset_index(),
            "realised": realised,
            **{name: table for name, table in decided.tables.items() if len(table)},
        }
        keep(self.recorder, RESULTS, {STORED.get(k, k): table for k, table in tables.items()})
        keep(self.recorder, "bpqp", {**learned.tables(), **decided.details})
        metrics = {
            "excluded_name_days": float(self.dataset.excluded_name_days),
            **learned.figures(self.dataset.problem),
            **solver_metrics(decided.solver),
            **signal[["regret", "decision_value"]].mean().dropna(),
            "turnover": daily["turnover"].mean() / 2,
            "names_held": daily["names_held"].mean(),
            "blocked": daily["blocked"].mean(),
            **decided.metrics,
        }
        self.recorder.log_metrics(**{f"bpqp.{k}": float(v) for k, v in metrics.items()})
        return artifacts

    def _simulate(self, **kwargs: Any) -> dict[str, Any]:
        """Qlib's backtest and its artifacts; without an index, none that compares with one."""
        artifacts = PortAnaRecord._generate(self, **kwargs)
        if self.dataset.benchmark is None:
            report = artifacts["report_normal_1day.pkl"]
            report["bench"] = float("nan")
            books = {
                "without_cost": report["return"],
                "with_cost": report["return"] - report["cost"],
            }
            analysis = {f"return_{k}": risk_analysis(v, freq="day") for k, v in books.items()}
            artifacts["port_analysis_1day.pkl"] = pd.concat(analysis)
        return artifacts

    def _strategy(
        self, scores: pd.Series, learned: LearnedRisk, exchange: BoardExchange
    ) -> dict[str, Any]:
        """Configuration of the strategy that decides; :meth:`_decided` reads what it did."""
        self._weights, self._solver = decide(self.dataset, scores, learned_risk=learned)
        self._blocked: dict[pd.Timestamp, int] = {}
        self._orders: dict[pd.Timestamp, int] = {}
        options = {
            "signal": self._weights,
            "risk_degree": self.rules.risk_degree,
            "blocked": self._blocked,
            "orders": self._orders,
        }
        return {"class": TargetWeightStrategy, "kwargs": options}

    def _decided(
        self, realised: pd.DataFrame, artifacts: Mapping[str, Any], exchange: BoardExchange
    ) -> Decided:
        return Decided(self._weights, self._solver, self._blocked, self._orders)

    def _signal(
        self,
        scores: pd.Series,
        learned: LearnedRisk,
        decided: Decided,
        realised: pd.DataFrame,
        days: pd.DatetimeIndex,
    ) -> pd.DataFrame:
        """By signal day: what the scores said, how it was solved, what was held was worth."""
        held = held_by_signal(realised, days) / self.rules.risk_degree
        table = score_figures(self.dataset, scores)
        table = table.join(appraise(self.dataset, held, days=days[:-1]))
        references = regret_references(self.dataset, scores, learned_risk=learned, days=days[:-1])
        table = table.join(references)
        if decided.solver is not None:
            table = table.join(decided.solver)
            table["status"] = table["status"].fillna(NO_DECISION)
        return table

    def _daily(
        self, report: pd.DataFrame, realised: pd.DataFrame, decided: Decided
    ) -> pd.DataFrame:
        days = report.index
        equal = self.dataset.market_data.equal_weight_returns().reindex(days)
        squares = decided.targets.groupby("datetime").apply(lambda w: (w**2).sum())
        # Targets are shown on the day they are traded, the trading day after their signal.
        effective = (1 / squares).reindex(days).shift(1)
        counts = {
            name: pd.Series(count, dtype=float).reindex(days, fill_value=0.0)
            for name, count in (("blocked", decided.blocked), ("orders", decided.orders))
        }
        return pd.DataFrame(
            {
                "return": report["return"],
                "cost": report["cost"],
                "turnover": report["turnover"],
                "bench": report["bench"],
                "bench_equal": equal,
                "names_held": realised.groupby("datetime").size().reindex(days, fill_value=0),
                "effective_names": effective,
                **counts,
            }
        ).astype(float)

    def list(self) -> list[str]:
        """Artifacts of this record."""
        # Qlib asks this of a later record cast to this class, which has no attributes of ours.
        names = ("report_normal", "positions_normal", "port_analysis")
        return [f"{name}_1day.pkl" for name in names]


class ReportRecord(ACRecordTemp):
    """Gather the run's tables, write its HTML report, track both, and print the final table.

    Parameters
    ----------
    name : title of the report; by default the experiment's name.
    out : file to which the report is copied as well; null keeps it among the artifacts alone.
    skip_existing : leaves a run as it is that has a report already.
    """

    artifact_path = "bpqp"
    depend_cls = BacktestRecord

    def __init__(
        self,
        recorder: Any,
        dataset: PortfolioDataset,
        model: Any,
        name: str | None = None,
        out: str | None = None,
        skip_existing: bool = False,
        **unknown: Any,
    ) -> None:
        self.check_settings(unknown)
        super().__init__(recorder=recorder, skip_existing=skip_existing)
        self.dataset, self.model, self.name, self.out = dataset, model, name, out

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """Raise ConfigError for an unknown setting, or one that is no text."""
        check_keys(settings, ("name", "out", "skip_existing"), "ReportRecord")
        for key, what in (("name", "a title"), ("out", "the path of a file")):
            if settings.get(key) is not None:
                check_text(settings[key], f"ReportRecord.{key}", what)

    def _generate(self, **kwargs: Any) -> dict[str, Any]:
        # Matplotlib takes longer to import than a workflow's slip to be found.
        from ..report.figures import write_figures
        from ..report.page import write_report

        clock = self.dataset.clock
        with tempfile.TemporaryDirectory() as scratch, clock("report"):
            results = self._results()
            summary = summarise(results)
            folder = Path(scratch)
            save_results(results, folder / "results")
            write_figures(results, folder / "figures")
            page = write_report(results, folder / "report.html")
            summary.to_csv(folder / "summary.csv", lineterminator="\n")
            text = yaml.safe_dump(plain(results.config), sort_keys=False, allow_unicode=True)
            (folder / "task.yaml").write_text(text, encoding="utf-8")
            self.recorder.save_objects(local_path=str(folder), artifact_path="bpqp")
            by_mandate = trades_by_mandate(results.config)
            # New days are solved; a run that traded by another rule keeps no model.
            if "status" in results.signal and save_run(
                folder / "model", self.model, self.dataset, by_mandate
            ):
                self.recorder.save_objects(
                    local_path=str(folder / "model"), artifact_path=ARTIFACTS
                )
                if tag := parts_tag(folder / "model"):
                    self.recorder.set_tags(**tag)
            if self.out:
                written, page = page, Path(self.out).expanduser().absolute()
                with replacing_file(page) as copy:
                    shutil.copyfile(written, copy)
        figures = flatten(summary) | {f"bpqp.seconds.{k}": v for k, v in clock.seconds.items()}
        # The records before have tracked some of them.
        known = self.recorder.list_metrics()
        new = tracked_once(figures, known)
        self.recorder.log_metrics(**new)
        self.recorder.set_tags(**{NOTE: note(results, summary, {**known, **new})})
        print_summary(summary, results)
        print(f"report: {page if self.out else self._tracked_page()}", flush=True)
        return {}

    def list(self) -> list[str]:
        """Artifacts of this record."""
        return ["report.html"]

    def _tables(self) -> dict[str, pd.DataFrame]:
        """The tables that the record of the backtest kept, by their names in the results."""
        there = {Path(name).stem for name in self.recorder.list_artifacts(RESULTS)}
        return {
            name: kept_table(self.recorder, f"{RESULTS}/{stored}.parquet")
            for name in COLUMNS
            if (stored := STORED.get(name, name)) in there
        }

    def _tracked_page(self) -> str:
        """Where the report is among the artifacts; of a server's, the command that writes it."""
        place = urlsplit(self.recorder.artifact_uri)
        if place.scheme in ("", "file"):
            return str(
                Path(url2pathname(place.path)).absolute() / self.artifact_path / "report.html"
            )
        return f"`bpqp report {self.recorder.id}`"

    def _results(self) -> RunResults:
        dataset, task = self.dataset, self.recorder.load_object("task")
        mandate = {}
        if trades_by_mandate(task):
            mandate = {"mandate": kept_facts(self.recorder, "bpqp/mandate_facts.json")}
        account, costs = dataset.mandate.traded()
        history = getattr(self.model, "history", pd.DataFrame())
        columns = [
            c
            for c in ("epoch", "member", "train_loss", "train_prediction", "train_decision",
                      "valid_prediction", "valid_decision", "valid_ic", "seconds")
            if c in history
        ]  # fmt: skip
        return RunResults(
            name=self.name or str(R.get_exp(experiment_id=self.recorder.experiment_id).name),
            run_id=str(self.recorder.id),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=task,
            manifest=dataset.manifest,
            settings={
                "market": dataset.market,
                "benchmark": dataset.benchmark,
                "days_per_year": dataset.days_per_year,
                "segments": {k: " to ".join(v) for k, v in dataset.span_names.items()},
                "score_scale": dataset.problem.scale,
                "risk": asdict(dataset.risk),
                "problem": asdict(problem_of(self.model, dataset).config),
                "account": asdict(account),
                "costs": asdict(costs),
                "market_rules": asdict(dataset.market_rules),
                **mandate,
                "excluded_name_days": dataset.excluded_name_days,
                "rows_without_risk_model": dataset.unmodelled_rows,
                "survivorship": SURVIVORSHIP,
                "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                "software": f"Python {platform.python_version()}, torch {torch.__version__}",
            },
            **self._tables(),
            epochs=history[columns] if columns else pd.DataFrame({"epoch": []}),
            best_epoch=getattr(self.model, "best_epoch", None),
            timing=dict(dataset.clock.seconds),
        )
