"""Policies: how forecasts become weights, by name.

Start at ``base.py``; ``optimal.py`` is the portfolio problem itself, the others are what it is
compared with. A policy is a file of its own and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config import build, title
from ...errors import ConfigError
from .base import Policy
from .dc3 import DC3
from .equal_weight import EqualWeight
from .minimum_variance import MinimumVariance
from .optimal import Optimal
from .softmax import Softmax
from .unrolled import Unrolled

__all__ = ["POLICIES", "Policy", "build_policy"]

POLICIES: dict[str, Any] = {
    "bpqp": Optimal,
    "softmax": Softmax,
    "dc3": DC3,
    "unrolled": Unrolled,
    "minimum_variance": MinimumVariance,
    "equal_weight": EqualWeight,
}


def build_policy(spec: Mapping[str, Any] | str) -> Policy:
    """The policy that ``spec`` names, with its options.

    ``spec`` is what :func:`~bpqp_portfolio.config.resolve` takes: a name of ``POLICIES``, a mapping
    of a ``name`` and options, or ``class`` and ``module_path`` of a :class:`Policy`.

    Raises
    ------
    ConfigError
        An unknown name or option (the nearest is named), or an object that is no policy.
    """
    policy = build(spec, POLICIES, "decision")
    if not callable(policy) or not hasattr(policy, "penalty"):
        raise ConfigError(
            f"decision {title(spec)!r}: its objects need a `penalty` and must be callable; see "
            "portfolio.policies.Policy."
        )
    return policy
