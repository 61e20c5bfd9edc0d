"""A network's output on a batch, and the decision problem that it leads to."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..data.features.panel import DailyPanel, DayBatch
from ..portfolio.problem import PortfolioProblem
from ..predictors import Predictor, PredictorOutput


def network_output(network: nn.Module, batch: DayBatch) -> PredictorOutput:
    """The output of ``network`` on the batch; of a module that is no predictor, its scores (R,)."""
    if isinstance(network, Predictor):
        return network.predictor_output(batch.features, batch.mask.sum(-1))
    return PredictorOutput(network(batch.features))


def decision_inputs(
    predictor_output: PredictorOutput, batch: DayBatch, problem: PortfolioProblem
) -> tuple[Tensor, DayBatch, PortfolioProblem]:
    """Scores (T, n), and batch and problem with the risk and the κ of ``predictor_output``."""
    if predictor_output.log_specific is not None:
        batch = replace(batch, log_specific=batch.pad(predictor_output.log_specific.double()))
    if predictor_output.log_factors is not None:
        batch = replace(batch, log_factors=predictor_output.log_factors.double())
    return (
        batch.pad(predictor_output.scores),
        batch,
        problem.with_signal_scale(predictor_output.log_kappa),
    )


@torch.no_grad()
def predict(
    network: nn.Module, panel: DailyPanel, days: Tensor, rows: int = 20_000
) -> PredictorOutput:
    """The output on ``days`` and all their rows in evaluation mode, in the panel's order.

    In float64, so that a score does not depend on how many others are computed with it; on the
    device of the network, and back on that of the panel.
    """
    if not len(days):
        return PredictorOutput(torch.empty(0, dtype=torch.float64))
    exact = copy.deepcopy(network).double().eval()
    device = next(exact.parameters()).device
    parts: list[list[Tensor | None]] = []
    for part in panel.chunks(days, rows):
        batch = panel.batch(part)
        output = network_output(exact, replace(batch, features=batch.features.to(device).double()))
        parts.append([None if value is None else value.to(panel.device) for value in output])
    scores, specific, factors, kappas = zip(*parts, strict=True)
    return PredictorOutput(torch.cat(scores), _joined(specific), _joined(factors), kappas[0])


def predict_scores(
    network: nn.Module, panel: DailyPanel, days: Tensor, rows: int = 20_000
) -> Tensor:
    """The scores (R',) float64 of :func:`predict`."""
    return predict(network, panel, days, rows).scores


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return torch.cat(given) if given else None
