"""Soft targets for factor exposures: a quadratic cost of missing them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ....config import lookup
from ....errors import ConfigError
from ..parts import Form, Quadratic
from .base import ByName, MarketView, Term, by_title, check_each, shown


@dataclass(frozen=True, eq=False)
class ExposureTarget(Term):
    """Adds ½ ``strength`` (xᵀw − target)² for each exposure x of ``targets``, name → target.

    Parameters
    ----------
    targets : [the exposure's own] exposure → target; in Python tensors (T,) too.
    strength : [return per day for a squared unit of the exposure] one for all or by exposure: a
        miss by a unit costs half of it.
    relative : whether targets are of w − w_b instead of w.

    Raises
    ------
    ConfigError
        A number that is not finite or out of range, or an exposure without a target or strength.
    """

    targets: Mapping[str, Any]
    strength: ByName
    relative: bool = False
    name: ClassVar[str] = "exposure_target"
    unit: ClassVar[str] = "return for a squared unit of the exposure"
    example: ClassVar[Mapping[str, Any]] = {
        "exposure_target": {"targets": {"size": 0.1}, "strength": 0.01}
    }
    is_cost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.targets, dict) or not self.targets:
            raise ConfigError(
                f"exposure_target.targets: expected a mapping exposure: target, "
                f"got {self.targets!r}."
            )
        check_each(self.targets, "exposure_target.targets")
        check_each(self.strength, "exposure_target.strength", low=0)
        if isinstance(self.strength, dict):
            for title in self.targets:
                lookup(self.strength, title, "strength of an exposure target")

    def __str__(self) -> str:
        each = ", ".join(f"{title} {shown(one)}" for title, one in self.targets.items())
        tail = " (relative to the benchmark)" if self.relative else ""
        return f"exposure_target: {each}, strength {shown(self.strength)}{tail}"

    @property
    def benchmarked(self) -> bool:
        return self.relative

    @property
    def exposures_named(self) -> tuple[str, ...]:
        return tuple(map(str, self.targets))

    def parts(self, view: MarketView) -> Iterator[Quadratic]:
        known = view.exposures(self.name)
        centre = view.needed("benchmark", self.name) if self.relative else None
        for title, target in by_title(self.targets, known, "exposure").items():
            label = f"exposure_target: {title} {shown(target)}"
            strength = self.strength[title] if isinstance(self.strength, dict) else self.strength
            goal = view.per_day(target, label).unsqueeze(-1)
            form = Form(known[title].unsqueeze(-1), centre=centre, target=goal)
            yield Quadratic(*self.head(label), form, view.per_day(strength, label))
