"""Qlib's feature expressions for many names at once, each day's value from its own window alone.

1. An expression is parsed to a syntax tree, ``$close`` as the name ``close``.
2. From the tree follow the days before and after a day that its value needs (:func:`reach`).
3. Names are taken in groups that fit the processor's cache; in each, every subexpression is
   computed once, and the running sums of :mod:`.windows` serve all operators and lengths.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...config import nearest
from ...errors import ConfigError
from ..provider.provider import Provider
from . import windows

CELLS = 50_000  # name-days that are computed together, so that they stay in the processor's cache


@dataclass(frozen=True)
class Table:
    """``values`` (T, n); the rows of name j are stored from ``first[j]`` to ``last[j]``, NaN else.

    A stored NaN is a day without trade, and windows know it from a day before the listing.
    """

    values: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def part(self, days: slice, names: slice) -> Table:
        """The table of some days and names."""
        values, start = self.values[days, names], days.start
        last = np.minimum(self.last[names] - start, len(values) - 1)
        return Table(values, np.maximum(self.first[names] - start, 0), last)


Value = Table | float

_ELEMENTWISE: dict[str, tuple[int, Callable[..., np.ndarray]]] = {
    "Abs": (1, np.abs),
    "Log": (1, np.log),
    "Greater": (2, np.maximum),
    "Less": (2, np.minimum),
}
_OPERATORS: dict[type, Callable[..., np.ndarray]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Gt: np.greater,
    ast.Lt: np.less,
}


def parse(expression: str) -> ast.expr:
    """The syntax tree of a Qlib expression, ``$field`` as a name.

    Raises
    ------
    ConfigError
        It is no expression, or uses an operator that is not known here.
    """
    try:
        tree = ast.parse(re.sub(r"\$(\w+)", r"\1", expression.strip()), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"feature {expression!r} cannot be read: {error.msg}.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "?")
            known = (*_ELEMENTWISE, *windows.ROLLING, "Ref")
            if name not in known or node.keywords:
                raise ConfigError(
                    f"feature {expression!r}: operator {name!r} is not known.{nearest(name, known)}"
                )
    return tree


def fields_of(expressions: Iterable[str]) -> list[str]:
    """The price fields that the expressions use, in alphabetical order.

    >>> fields_of(["Mean($close, 5) / $close", "$volume"])
    ['close', 'volume']
    """
    return sorted({field for e in expressions for field in re.findall(r"\$(\w+)", e)})


def reach(expressions: Iterable[str]) -> tuple[int, int]:
    """Trading days before and after a day that its values need, by the longest chains of them.

    Raises
    ------
    ConfigError
        An expression that cannot be read.

    >>> reach(["Mean(Ref($close, 1), 5)", "Ref($close, -2)"])
    (5, 2)
    """
    spans = [_reach(parse(e)) for e in expressions]
    return max((b for b, _ in spans), default=0), max((a for _, a in spans), default=0)


def _reach(node: ast.AST) -> tuple[int, int]:
    lag = 0
    if isinstance(node, ast.Call):
        name = node.func.id  # type: ignore[attr-defined]
        if name == "Ref":
            lag = _whole(node.args[1])
        elif name in windows.ROLLING:
            lag = _whole(node.args[_arity(name)]) - 1
    inner = [_reach(child) for child in ast.iter_child_nodes(node)]
    back, ahead = (max((span[i] for span in inner), default=0) for i in (0, 1))
    return back + max(lag, 0), ahead + max(-lag, 0)


def _arity(name: str) -> int:
    return windows.ROLLING[name].inputs


def _whole(node: ast.AST) -> int:
    value = ast.literal_eval(node)  # type: ignore[arg-type]
    if not isinstance(value, int):
        raise ConfigError(f"a window or lag must be a whole number, got {value!r}.")
    return value


def read_tables(
    provider: Provider, names: Sequence[str], fields: Iterable[str], days: slice
) -> dict[str, Table]:
    """The series of ``names`` on the trading days ``days`` (positions), a field as one table.

    A name without a field has nothing stored. Raises ProviderError for an unreadable file.
    """
    count = days.stop - days.start
    out = {}
    for item in fields:
        values = np.full((count, len(names)), np.nan, dtype=np.float32)
        first, last = np.full(len(names), count), np.full(len(names), -1)
        for i, name in enumerate(names):
            if not provider.has(name, item):
                continue
            start, series = provider.raw(name, item)
            low, high = max(start, days.start), min(start + len(series), days.stop)
            if low < high:
                values[low - days.start : high - days.start, i] = series[low - start : high - start]
                first[i], last[i] = low - days.start, high - 1 - days.start
        out[item] = Table(values, first, last)
    return out


def evaluate(
    expressions: Sequence[str], fields: Mapping[str, Table], keep: np.ndarray
) -> np.ndarray:
    """Values (R, F) float32 of ``expressions`` in the R cells where ``keep`` (T, n), by day.

    As Qlib's own up to rounding: its rolling sums carry their rounding from the first day that is
    loaded, so that a value depends a little on when the loading begins. Here the value of day t is
    computed from the days that :func:`reach` gives and no other, in a fixed order, and is the same
    bit for bit however many days and names are computed with it.

    Raises
    ------
    ConfigError
        An unreadable expression, an unknown operator or a field that is not given.
    """
    # Step 1: trees, the window lengths of each series, and the reach in days.
    trees = [parse(e) for e in expressions]
    sizes = _windows(trees)
    back, ahead = reach(expressions)
    days, names = keep.shape
    # Step 2: groups of names, each on the days that its cells need and no others.
    row = np.cumsum(keep.ravel()).reshape(keep.shape) - 1
    out = np.empty((int(keep.sum()), len(trees)), dtype=np.float32)
    step = max(16, CELLS // max(days, 1))
    for start in range(0, names, step):
        part = slice(start, start + step)
        wanted = np.flatnonzero(keep[:, part].any(1))
        if not len(wanted):
            continue
        span = slice(max(int(wanted[0]) - back, 0), min(int(wanted[-1]) + ahead + 1, days))
        cells = keep[span, part]
        rows = row[span, part][cells]
        # Step 3: the expressions, whose common parts are computed once.
        work = _Evaluation({f: t.part(span, part) for f, t in fields.items()}, sizes)
        with np.errstate(all="ignore"):
            for i, tree in enumerate(trees):
                value = work.value(tree)
                out[rows, i] = value.values[cells] if isinstance(value, Table) else value
    return out


def _windows(trees: Iterable[ast.expr]) -> dict[str, set[int]]:
    """The window lengths that are asked of each series (or pair of series)."""
    sizes: dict[str, set[int]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.func.id in windows.ROLLING:  # type: ignore
                arity = _arity(node.func.id)  # type: ignore[attr-defined]
                for key in {_key(node.args[:arity]), *(_key([a]) for a in node.args[:arity])}:
                    sizes.setdefault(key, set()).add(_whole(node.args[arity]))
    return sizes


def _key(nodes: Sequence[ast.expr]) -> str:
    return ", ".join(ast.unparse(node) for node in nodes)


class _Evaluation:
    """Values of subexpressions on one group of names, each computed once."""

    def __init__(self, fields: Mapping[str, Table], sizes: Mapping[str, set[int]]) -> None:
        self.fields, self.sizes = fields, sizes
        self._values: dict[str, Value] = {}
        self._statistics: dict[tuple[str, str], dict[int, tuple[np.ndarray, ...]]] = {}

    def value(self, node: ast.expr) -> Value:
        key = ast.unparse(node)
        if key not in self._values:
            self._values[key] = self._compute(node)
        return self._values[key]

    def _compute(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Name):
            if node.id not in self.fields:
                raise ConfigError(f"no field ${node.id}.{nearest(node.id, self.fields)}")
            return self.fields[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return self._apply(_OPERATORS[type(node.op)], node.left, node.right)
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
            return self._apply(_OPERATORS[type(node.ops[0])], node.left, node.comparators[0])
        if isinstance(node, ast.Call):
            return self._call(node.func.id, node.args)  # type: ignore[attr-defined]
        return float(ast.literal_eval(node))

    def _call(self, name: str, args: list[ast.expr]) -> Value:
        if name in _ELEMENTWISE:
            arity, function = _ELEMENTWISE[name]
            return self._apply(function, *args[:arity])
        table = self.value(args[0])
        assert isinstance(table, Table)
        if name == "Ref":
            return _within(windows.shift(table.values, _whole(args[1])), table)
        operator = windows.ROLLING[name]
        inputs, rest = args[: operator.inputs], args[operator.inputs :]
        tables = [self.value(node) for node in inputs]
        size, options = _whole(rest[0]), [ast.literal_eval(node) for node in rest[1:]]

        def statistics(what: str, *which: int) -> tuple[np.ndarray, ...]:
            """A family of running sums of the inputs ``which`` (all by default) over ``size``."""
            nodes = [inputs[i] for i in which] or inputs
            key = (what, _key(nodes))
            if key not in self._statistics:
                given = [t for t in (self.value(node) for node in nodes) if isinstance(t, Table)]
                asked = sorted(self.sizes[key[1]])
                first = np.min([t.first for t in given], axis=0)
                self._statistics[key] = windows.FAMILIES[what](
                    [np.asarray(t.values) for t in given], asked, first
                )
            return self._statistics[key][size]

        result = operator.result(statistics, *options)
        return _within(result, *(t for t in tables if isinstance(t, Table)))

    def _apply(self, function: Callable[..., np.ndarray], *nodes: ast.expr) -> Value:
        parts = [self.value(node) for node in nodes]
        tables = [p for p in parts if isinstance(p, Table)]
        result = function(*(p.values if isinstance(p, Table) else p for p in parts))
        if not tables:
            return float(result)
        # A comparison with a missing value is false, as in Qlib: a suspended day counts.
        return _within(result.astype(np.float64) if result.dtype == bool else result, *tables)


def _within(values: np.ndarray, *tables: Table) -> Table:
    """``values`` as a table that is stored where any of ``tables`` is."""
    first = np.min([t.first for t in tables], axis=0)
    last = np.max([t.last for t in tables], axis=0)
    day = np.arange(len(values))[:, None]
    outside = (day < first) | (day > last)
    return Table(np.where(outside, values.dtype.type(np.nan), values), first, last)
