"""Policies: how forecasts become weights, by name.

Start at ``base.py``; ``optimal.py`` is the portfolio problem itself, the others are what it is
compared with. A policy is a file of its own and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config import check_keys, from_mapping, lookup
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


def build_policy(options: Mapping[str, Any]) -> Policy:
    """The policy ``options['name']`` with the other options; ConfigError names the nearest."""
    check_keys(options, options, "decision")
    if "name" not in options:
        raise ConfigError("decision: 'name' is missing.")
    given = dict(options)
    name = given.pop("name")
    return from_mapping(lookup(POLICIES, name, "decision"), given, f"decision {name!r}")  # type: ignore[arg-type]
