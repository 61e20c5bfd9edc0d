"""Several QPs of the same sizes as arrays with one leading axis, for solvers that work on many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from .matrices import Array, to_dense
from .qp import ARGUMENTS, QP, Scaling

_MATRICES = ("P", "A", "G")


def together(arrays: Sequence[Array]) -> Array:
    """``np.stack``, and for a single array without a copy."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


@dataclass(frozen=True, eq=False)
class QPStack:
    """T problems: P (T, n, n), A (T, p, n), G (T, m, n), and q, b, h, lb, ub with T rows.

    A matrix that is one and the same object in all of them is kept once, with a leading 1. All are
    dense.
    """

    P: Array
    q: Array
    A: Array
    b: Array
    G: Array
    h: Array
    lb: Array
    ub: Array
    scaling: Scaling
    bounded: bool

    @classmethod
    def of(cls, problems: Sequence[QP]) -> QPStack:
        """The stack of ``problems``."""
        first = problems[0]
        if len(problems) == 1:
            units = first.scaling
            scaling = replace(units, rows_A=units.rows_A[None], rows_G=units.rows_G[None])
            arrays = {name: to_dense(getattr(first, name))[None] for name in ARGUMENTS}
            return cls(**arrays, scaling=scaling, bounded=first.bounded)
        arrays = {}
        for name in ARGUMENTS:
            values = [getattr(problem, name) for problem in problems]
            shared = all(value is values[0] for value in values)
            if name in _MATRICES:
                values = [to_dense(value) for value in (values[:1] if shared else values)]
            arrays[name] = together(values)
        all_units = [p.scaling for p in problems]
        names = [f.name for f in fields(Scaling)]
        scaling = Scaling(*(np.stack([getattr(u, name) for u in all_units]) for name in names))
        return cls(**arrays, scaling=scaling, bounded=any(p.bounded for p in problems))

    def __len__(self) -> int:
        return len(self.q)
