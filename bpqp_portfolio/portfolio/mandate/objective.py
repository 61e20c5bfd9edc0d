"""What a mandate minimises of return and risk, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """−μᵀw (``returns``) + ½ ``variance`` γ wᵀΣw + κ‖Σ^½w‖ (``robust``); ``label`` with {gamma} and
    {kappa} to fill in. Without returns γ is 1."""

    label: str
    returns: bool = True
    variance: float = 1.0
    robust: bool = False


OBJECTIVES = {
    "mean_variance": Objective("maximise return - {gamma}/2 x variance"),
    "minimum_variance": Objective("minimise variance", returns=False),
    "maximum_utility": Objective("maximise return - {gamma} x variance", variance=2.0),
    "robust": Objective("maximise return - {kappa} x risk - {gamma}/2 x variance", robust=True),
}
