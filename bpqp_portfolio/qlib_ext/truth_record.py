"""A Qlib record that judges the run's portfolio by the truth of a simulated market."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlib.workflow.record_temp import ACRecordTemp

from ..backtest.appraisal import decide
from ..backtest.truth import END_TO_END, TWO_STAGES, judge_by_truth
from ..config import check_keys
from ..data.provider.simulate import load_truth
from ..report.truth import truth_table
from ..runs.tracked import ARTIFACTS as RESULTS
from ..training import torch_threads
from .dataset import PortfolioDataset
from .kept_tables import keep, kept_targets
from .records import BacktestRecord


class TruthRecord(ACRecordTemp):
    """The run, the network before its decision loss, equal weights and the true optimum compared.

    Keeps ``bpqp/results/truth.parquet``, the table of
    :func:`~bpqp_portfolio.backtest.truth.judge_by_truth`,
    and tracks its means as ``bpqp.truth.<portfolio>.<figure>``. A model with ``pretrain`` is "End
    to end", and what its first stage learned, decided on by the same problem, is "Two stages".

    Parameters
    ----------
    skip_existing : leaves a run as it is that has been judged already.

    Raises
    ------
    ConfigError
        An unknown setting.
    DataError
        The provider is no simulated market.
    """

    artifact_path = "bpqp"
    depend_cls = BacktestRecord

    def __init__(
        self,
        recorder: Any,
        dataset: PortfolioDataset,
        model: Any,
        skip_existing: bool = False,
        **unknown: Any,
    ) -> None:
        self.check_settings(unknown)
        super().__init__(recorder=recorder, skip_existing=skip_existing)
        self.dataset, self.model = dataset, model
        self.truth = load_truth(dataset.provider.root)

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """Raise ConfigError for an unknown setting."""
        check_keys(settings, ("skip_existing",), "TruthRecord")

    @staticmethod
    def check_data(folder: Path) -> None:
        """Raise DataError where the provider in ``folder`` is no simulated market."""
        load_truth(folder)

    def _generate(self, **kwargs: Any) -> dict[str, Any]:
        dataset = self.dataset
        with dataset.clock("truth"), torch_threads(1):
            own = kept_targets(self.recorder)
            if "pretraining" in getattr(self.model, "stages", ()):
                before = self.model.predict(dataset, stage="pretraining")
                weights = {END_TO_END: own, TWO_STAGES: decide(dataset, before)[0]}
            else:
                weights = {"This run": own}
            costs = dataset.mandate.traded()[1]
            table = judge_by_truth(dataset, self.truth, weights, costs)
        figures = truth_table(table, dataset.days_per_year)
        self.recorder.log_metrics(
            **{
                f"bpqp.truth.{name.lower().replace(' ', '_')}.{figure}": float(row[figure])
                for name, row in figures.iterrows()
                for figure in ("regret", "expected", "realised", "turnover")
            }
        )
        keep(self.recorder, RESULTS, {"truth": table})
        return {}

    def list(self) -> list[str]:
        """Artifacts of this record."""
        return ["results/truth.parquet"]
