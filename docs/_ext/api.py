"""Pages of the Python reference: which modules each documents, and the public names."""

from __future__ import annotations

from pathlib import Path

from myst import definitions, markdown

from bpqp_portfolio.reference.docstrings import opening

ROOT = Path(__file__).parents[2]
API: dict[str, tuple[str, ...]] = {
    "layers": (
        "layers.qp", "layers.socp", "layers.convex", "layers.cvxpy.layer", "layers.factor",
    ),
    "problems": (
        "problems.qp", "problems.socp", "problems.convex", "problems.matrices",
        "problems.solution", "problems.reference",
    ),
    "solvers": (
        "solvers.registry", "solvers.common.protocol", "solvers.common.cache",
        "solvers.common.standard_form", "solvers.qp.base", "solvers.conic.base",
        "solvers.smooth.base", "solvers.factor.problem", "solvers.factor.solver",
    ),
    "portfolio": (
        "portfolio.layer", "portfolio.problem", "portfolio.scores", "portfolio.costs",
        "portfolio.policies", "portfolio.policies.base", "portfolio.policies.*",
    ),
    "mandate": (
        "portfolio.mandate.mandate", "portfolio.mandate.market", "portfolio.mandate.solution",
        "portfolio.mandate.fallbacks", "portfolio.mandate.objective", "portfolio.mandate.parts",
        "portfolio.mandate.terms.base", "portfolio.mandate.terms.*",
    ),
    "risk": ("risk.config", "risk.registry", "risk.*"),
    "predictors": ("predictors.registry", "predictors.base", "predictors.*"),
    "losses": ("losses.registry", "losses.terms", "losses.*"),
    "training": ("training.trainer", "training.callbacks", "training.device", "training.threads"),
    "data": (
        "data.provider.provider", "data.provider.importer", "data.provider.download",
        "data.provider.us20", "data.provider.simulate", "data.quality.check",
        "data.quality.findings", "data.quality.exclusions", "data.universe.*",
        "data.features.panel", "data.features.expressions",
    ),
    "markets": ("markets.rules", "markets.price_limits"),
    "backtest": (
        "backtest.mandate_settings", "backtest.account_rules", "backtest.rebalance",
        "backtest.appraisal", "backtest.holdings", "backtest.learned_risk",
        "backtest.implementation_shortfall",
    ),
    "qlib": (
        "qlib_ext.dataset", "qlib_ext.handlers", "qlib_ext.handler_source", "qlib_ext.model",
        "qlib_ext.baselines", "qlib_ext.records", "qlib_ext.mandate_records",
        "qlib_ext.topk_dropout", "qlib_ext.truth_record", "qlib_ext.exchange",
        "qlib_ext.tracking", "qlib_ext.components", "qlib_ext.workflow_checks",
        "qlib_ext.processors",
    ),
    "runs": (
        "runs.results", "runs.tracked", "report.headline", "report.metrics", "report.statistics",
        "report.figures", "report.page",
    ),
    "live": ("live.target_weights", "live.decision"),
    "experiments": (
        "experiments.plan", "experiments.runs", "experiments.table", "experiments.starter",
        "experiments.demo",
    ),
    "config": (
        "errors", "config", "files.workflow", "files.cache", "reference.keys",
        "reference.workflow",
    ),
}  # fmt: skip
"""By page, the modules that it documents; ``x.*`` are those of a room that are not named."""


def modules(page: str) -> list[str]:
    """Dotted names of the modules that a page of the API documents."""
    out: list[str] = []
    for pattern in API[page]:
        if pattern.endswith(".*"):
            folder = ROOT / "bpqp_portfolio" / Path(*pattern.removesuffix(".*").split("."))
            names = [f"{pattern[:-2]}.{p.stem}" for p in sorted(folder.glob("[a-z]*.py"))]
        else:
            names = [pattern]
        out += [name for name in names if name not in out]
    return [f"bpqp_portfolio.{name}" for name in out]


def api(page: str) -> str:
    """The modules of a page, each with its public classes and functions."""
    out = []
    for name in modules(page):
        short = name.removeprefix("bpqp_portfolio.")
        lines = [f".. automodule:: {name}", "   :members:", "   :show-inheritance:"]
        lines.append("   :ignore-module-all:")  # what a room only passes on has its own place
        out.append(f"## {short}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(out)


def public_names() -> str:
    """The names of ``import bpqp_portfolio as bp`` with what each is."""
    import bpqp_portfolio as bp

    rows = [
        (f"{{py:obj}}`bp.{name} <{one.__module__}.{name}>`", markdown(opening(one)))
        for name, one in ((name, getattr(bp, name)) for name in sorted(bp.__all__))
    ]
    return definitions(rows)
