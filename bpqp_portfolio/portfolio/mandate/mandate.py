"""The mandate: objective, constraints and costs as small objects; start with `Mandate.solve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...config import check_number, lookup
from ...errors import ConfigError
from ...layers.transforms import eager
from ..costs import ASK_COSTS, TradingCosts
from .config import arguments, in_order
from .explain import explain
from .fallbacks import Fallback, with_fallbacks
from .faults import faults
from .market import Market
from .objective import OBJECTIVES
from .program import MandateProgram
from .solution import ConstraintRow, MandateSolution
from .solve import solve
from .terms.base import Number, Term, number, shown
from .terms.linear_cost import LinearCost

__all__ = ["Mandate", "MandateSolution", "Market"]


class Mandate(nn.Module):
    """min −μᵀw + (γ/2)wᵀΣw + costs, under constraints; long only and fully invested by default.

    Parameters
    ----------
    risk_aversion : [1/(return per day)] γ, in Python a tensor too, which carries gradients. A
        workflow states it unless the objective is ``minimum_variance``.
    constraints : limits by name, of :data:`~.terms.CONSTRAINTS`, in Python their objects.
    costs : what trades cost, and other costs by name, of :data:`~.terms.COSTS`; in Python their
        objects, where a :class:`TradingCosts` is a linear cost.
    objective : ``mean_variance``; ``minimum_variance`` (½wᵀΣw alone); ``maximum_utility``
        (μᵀw − γ wᵀΣw); ``robust`` (mean_variance less κ‖Σ^½w‖, a cone).
    on_failure : one of these, or several, tried in order on a day that was not solved: ``raise``;
        ``relax`` or ``{"relax": [names], "penalty": return a unit}`` for soft constraints (see
        :class:`~.fallbacks.Relaxation`); ``hold`` the drifted weights; ``equal_weights``.
    tolerance : [no unit] scaled KKT residual at which a day counts as solved.
    kappa : [return per unit of daily risk] κ of the robust objective.

    Raises
    ------
    ConfigError
        An unknown objective, constraint or fallback, or a parameter outside its range.

    Examples
    --------
    >>> import torch
    >>> import bpqp_portfolio as bp
    >>> from bpqp_portfolio.portfolio import Groups, MaxTurnover, TradingCosts
    >>> mandate = bp.Mandate(
    ...     risk_aversion=5.0,
    ...     constraints=[Groups({"banks": 0.5}), MaxTurnover(0.05)],
    ...     costs=TradingCosts(buy=0.0005, sell=0.0015, minimum=5.0),
    ... )
    >>> print(mandate)
    maximise return - 5/2 x variance
    long only: weights >= 0
    budget: weights sum to 1
    groups: banks <= 0.5
    max_turnover 0.05
    linear_cost: buy 0.0005, sell 0.0015
    if a day fails: raise
    >>> market = bp.Market(
    ...     mu=torch.tensor([[0.004, 0.003, 0.001]]),
    ...     loadings=torch.full((1, 3, 1), 0.01),
    ...     specific=torch.full((1, 3), 1e-4),
    ...     mask=torch.ones(1, 3, dtype=torch.bool),
    ...     previous=torch.tensor([[0.2, 0.2, 0.6]]),
    ...     groups={"banks": torch.tensor([[1, 1, 0]])},
    ... )
    >>> solution = mandate.solve(market)
    >>> [[round(x, 4) for x in day] for day in solution.w.tolist()]
    [[0.25, 0.2, 0.55]]
    >>> for row in mandate.explain(solution, 0):
    ...     print(f"{row.label}, now {row.value:.4g}: a unit more is worth {row.dual:.4g} a day")
    budget = 1, now 1: a unit more is worth 0.0023 a day
    max_turnover 0.05, now 0.05: a unit more is worth 0.00115 a day
    """

    def __init__(
        self,
        risk_aversion: Number = 1.0,
        constraints: Sequence[Any] = (),
        costs: Any = (),
        objective: str = "mean_variance",
        on_failure: str | Mapping[str, Any] | Sequence[Any] = "raise",
        tolerance: float = 1e-10,
        kappa: Number = 0.0,
    ) -> None:
        super().__init__()
        own = lookup(OBJECTIVES, objective, "objective")
        number(risk_aversion, "risk_aversion", low=0, open_low=not own.robust)
        number(kappa, "kappa", low=0, open_low=own.robust)
        check_number(tolerance, "tolerance", low=0, open_low=True)
        self.risk_aversion, self.kappa = risk_aversion, kappa
        self.objective, self.tolerance = objective, float(tolerance)
        costs = [costs] if isinstance(costs, TradingCosts) else list(costs)
        self.trading = next((c for c in costs if isinstance(c, TradingCosts)), None)
        terms = [LinearCost(c.buy, c.sell) if isinstance(c, TradingCosts) else c for c in costs]
        self.terms: list[Term] = in_order([*constraints, *terms])
        steps = [on_failure] if isinstance(on_failure, str | Mapping) else on_failure
        if not isinstance(steps, list | tuple):
            raise ConfigError(
                f"on_failure: expected a name, a mapping or a list of them, got {on_failure!r}."
            )
        self.fallbacks = [Fallback.of(one, self.terms) for one in steps]

    @property
    def costs(self) -> TradingCosts:
        """What an order costs, for the simulator and for orders.

        Raises
        ------
        ConfigError
            Nothing states it.
        """
        if self.trading is None:
            raise ConfigError(f"mandate.costs: missing. {ASK_COSTS}")
        return self.trading

    @property
    def benchmarked(self) -> bool:
        """Whether a constraint or cost rests on the benchmark's weights."""
        return any(term.benchmarked for term in self.terms)

    def needs(self, field: str) -> bool:
        """Whether a constraint or cost wants the market's ``field``."""
        return any(field in term.needs for term in self.terms)

    @property
    def long_only(self) -> bool:
        """Whether no weight can be below zero and no more than the account is invested."""
        forced = any(term.forbids_short for term in self.terms)
        short = any(term.allows_short for term in self.terms) and not forced
        return not short and not any(term.allows_leverage for term in self.terms)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Mandate:
        """A mandate from a mapping: settings of the constructor, and constraints and costs by name.

        A constraint's value is its limit or a mapping of its fields; it may stand beside the
        settings or under ``constraints`` and ``costs`` (mappings, or lists of names and mappings).

        Raises
        ------
        ConfigError
            An unknown name (the nearest is named), a name that is stated twice, or a bad value.
        """
        settings = arguments(config)
        try:
            return cls(**settings)
        except ConfigError as error:
            raise ConfigError(f"mandate: {error}") from error

    def extra_repr(self) -> str:
        return str(self)

    def __str__(self) -> str:
        gamma, kappa = shown(self.risk_aversion), shown(self.kappa)
        lines = [OBJECTIVES[self.objective].label.format(gamma=gamma, kappa=kappa)]
        if not any(term.sets_lower for term in self.terms):
            lines.append("long only: weights >= 0")
        if not any(term.sets_budget for term in self.terms):
            lines.append("budget: weights sum to 1")
        lines += [str(term) for term in self.terms]
        lines.append("if a day fails: " + ", then ".join(map(str, self.fallbacks)))
        return "\n".join(lines)

    def forward(self, market: Market) -> Tensor:
        """Weights (T, n), differentiable in the market and in the mandate's tensors."""
        return self.solve(market).w

    @eager
    def solve(self, market: Market) -> MandateSolution:
        """Weights with status, what binds, and the fallbacks that were taken.

        Raises
        ------
        ProblemError
            The market lacks what a constraint needs, or shapes do not match.
        SolverError
            Days that were not solved, where ``on_failure`` says to raise: their constraints that
            contradict each other.
        """
        program = self.program(market)
        bad = faults(program, market)
        solution = explain(program, solve(program, bad), bad)
        if bool(solution.failed.any()):
            solution = with_fallbacks(solution, program, self.fallbacks, bad)
        value = program.value(solution.w.detach())
        unknown = torch.zeros_like(value, dtype=torch.bool)
        unknown[list(bad)] = True
        return replace(
            solution,
            w=solution.w.to(market.mu.dtype),
            objective=value.masked_fill(unknown, torch.nan),
        )

    def program(self, market: Market) -> MandateProgram:
        """The program of ``market``'s days, as it is solved.

        Raises
        ------
        ProblemError
            The market lacks what a constraint needs, or shapes do not match.
        """
        objective = OBJECTIVES[self.objective], self.risk_aversion, self.kappa
        return MandateProgram.build(market, self.terms, *objective, self.tolerance)

    def explain(
        self, solution: MandateSolution, day: int, *, all_rows: bool = False
    ) -> list[ConstraintRow]:
        """Rows (label, value, limit, slack, dual) of what binds on ``day``, or of all constraints.

        The dual is the return a day that one more unit of the limit would bring.
        """
        return [row for row in solution.rows(day) if all_rows or abs(row.dual) > 0]
