"""The methods of the tables, each an adapter of one file, imported only where it runs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from .base import Peer


@dataclass(frozen=True)
class Entry:
    """Where a method lives: its adapter, what it needs installed, and how a table calls it."""

    label: str
    module: str
    distributions: tuple[str, ...]
    kinds: tuple[str, ...]


_QP = ("qp", "lp", "boxlp")
_ALL = (*_QP, "socp")

# A new peer is one file beside this one, and one line here.
PEERS: dict[str, Entry] = {
    "ours": Entry("ours", "ours", ("bpqp-portfolio",), _ALL),
    "authors": Entry("authors' way (OSQP, OSQP)", "authors", ("osqp",), _QP),
    "dqp": Entry("dQP", "dqp_layer", ("libdqp", "qpsolvers"), _QP),
    "proxsuite": Entry("proxsuite QPLayer", "proxsuite_layer", ("proxsuite",), _QP),
    "qpth": Entry("qpth", "qpth_layer", ("qpth",), _QP),
    "cvxpylayers": Entry("cvxpylayers", "cvxpy_layers", ("cvxpylayers", "diffcp"), _ALL),
    "qpax": Entry("qpax", "qpax_layer", ("qpax", "jax"), _QP),
    "altdiff": Entry("Alt-Diff", "alt_diff", (), _QP),
    "inverse": Entry("exact KKT inverse", "kkt_inverse", (), _QP),
    "unrolled": Entry("unrolled ADMM", "unrolled", (), _QP),
}


def label(method: str) -> str:
    """How tables call a method: ``ours``, ``ours:dense/kkt`` or a peer's name."""
    name, _, pair = method.partition(":")
    return f"{PEERS[name].label} ({pair})" if pair else PEERS[name].label


def build(method: str, eps: float | None = None) -> Peer:
    """The adapter of a method; ``eps`` None is the accuracy its module states.

    Raises what importing it raises where it is not installed.
    """
    name, _, pair = method.partition(":")
    module = importlib.import_module(f".{PEERS[name].module}", __package__)
    settings: dict[str, Any] = {} if eps is None else {"eps": eps}
    if pair:
        settings["forward"], _, settings["backward"] = pair.partition("/")
    return module.Adapter(**settings)
