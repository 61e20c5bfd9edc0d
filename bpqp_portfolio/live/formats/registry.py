"""The formats of `bpqp weights` by name, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from ...config import lookup
from ...errors import ConfigError
from ..target import Target
from .request import Listing, Request


@dataclass(frozen=True)
class _Entry:
    """A format's module in this folder, what its file has, and whether that takes an account."""

    module: str
    text: str
    needs_account: bool = False


# A new format is one file here with a function `rows`, and one line below.
FORMATS = {
    "decision": _Entry("decision", "weights, scores, shares, trades, reasons"),
    "targets": _Entry("targets", "what to hold, by code"),
    "orders": _Entry("orders", "what to buy and sell, sales first", needs_account=True),
}
DEFAULT, NOBODY = "decision", Request()


def check_format(name: str, *, has_account: bool) -> None:
    """Check what can be checked before anything is decided.

    Raises
    ------
    ConfigError
        No format has that name (the nearest is named), or it needs an account and there is none.
    """
    if lookup(FORMATS, name, "format").needs_account and not has_account:
        raise ConfigError(
            f"format {name!r}: trades take an account; give --cash, and --holdings where something "
            "is held, or write --format targets, which does without."
        )


def listed(target: Target, name: str = DEFAULT, request: Request = NOBODY) -> Listing:
    """The decision in the format ``name``.

    Raises
    ------
    ConfigError
        As :func:`check_format`; or what the format asks of ``request`` is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"instrument": ["SH600000"], "weight": [1.0], "reason": [""]})
    >>> summary = {"date": "2020-01-02", "currency": "CNY"}
    >>> listed(Target(table, summary), "targets").rows[["date", "code", "weight"]].values.tolist()
    [['2020-01-02', 'SH600000', 1.0]]
    """
    check_format(name, has_account=target.is_sized)
    rows: Callable[[Target, Request], Listing] = importlib.import_module(
        f".{FORMATS[name].module}", __package__
    ).rows
    return rows(target, request)
