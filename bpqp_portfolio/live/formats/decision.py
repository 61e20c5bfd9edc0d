"""The whole decision: every name in the target, held or left out, with all that is known of it."""

from __future__ import annotations

from ...report.metrics import counted
from ..target import Target
from .request import Listing, Request


def rows(target: Target, request: Request) -> Listing:
    """The table of :class:`~..target.Target` as it is."""
    count = int((target.table["weight"] > 0).sum())
    return Listing(target.table, f"{counted(count, 'name')} in the target")
