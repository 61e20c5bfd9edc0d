"""Trading days in a year, by market: what every annual figure and annual limit counts."""

from __future__ import annotations

from ..config import lookup

DAYS_PER_YEAR = {"cn": 238, "us": 252, "tw": 245}
"""By Qlib's region. China's are those of Qlib's ``risk_analysis``."""

QLIB = DAYS_PER_YEAR["cn"]
"""What Qlib's own annual figures count, in any market."""

USUAL = DAYS_PER_YEAR["us"]
"""Where no market is known."""


def days_per_year(region: str) -> int:
    """Trading days in a year of Qlib's ``region``; ConfigError names the nearest known one."""
    return lookup(DAYS_PER_YEAR, region, "region")
