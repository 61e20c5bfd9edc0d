"""Cones that share F and g as one group: one norm, one normal, and a row for each cone.

‖Fz + g‖ ≤ cᵢᵀz + dᵢ for i = 1 … k has one norm vector, one normal u and one Hessian, so a robust
linear program with k constraints costs one cone and k rows, not k cones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .matrices import Array, Matrix, largest, row_norms, same


@dataclass(frozen=True, eq=False)
class ConeGroup:
    """‖Fz + g‖₂ ≤ cz + d row by row: the cones of a program that share F and g.

    F (r, n) dense or sparse, None for the identity; g (r,); c (k, n); d (k,); ``members`` (k,) are
    the cones' positions in the program.

    ``size`` is the unit of its rows,
    ``headed`` tells whether any c is not zero.
    """

    F: Matrix | None
    g: Array
    c: Array
    d: Array
    members: tuple[int, ...]
    size: float = field(init=False)
    headed: bool = field(init=False)

    def __post_init__(self) -> None:
        head = largest(self.c)
        size = max(1.0 if self.F is None else largest(self.F), head)
        object.__setattr__(self, "size", size or 1.0)
        object.__setattr__(self, "headed", head > 0)

    @property
    def r(self) -> int:
        """Length of Fz + g."""
        return len(self.g)

    def norm_vector(self, z: Array) -> Array:
        """Fz + g (r,)."""
        return (z if self.F is None else self.F @ z) + self.g

    def push(self, z: Array) -> Array:
        """Fz (r,)."""
        return z if self.F is None else self.F @ z

    def pull(self, w: Array) -> Array:
        """Fᵀw (n,)."""
        return w if self.F is None else self.F.T @ w

    def heads(self, z: Array) -> Array:
        """cz + d (k,)."""
        return self.c @ z + self.d if self.headed else self.d


def grouped(arrays: Sequence[tuple[Matrix | None, Array, Array, float]]) -> tuple[ConeGroup, ...]:
    """Cones (F, g, c, d) by F and g, in the order of the first of each group."""
    if len(arrays) == 1:
        F, g, c, d = arrays[0]
        return (ConeGroup(F, g, c[None], np.array([d]), (0,)),)
    found: list[list[int]] = []
    by_g: dict[bytes, list[list[int]]] = {}
    for i, (F, g, _, _) in enumerate(arrays):
        alike = by_g.setdefault(g.tobytes(), [])
        for members in alike:
            other = arrays[members[0]][0]
            if other is F or (other is not None and F is not None and same(other, F)):
                members.append(i)
                break
        else:
            members = [i]
            alike.append(members)
            found.append(members)
    return tuple(
        ConeGroup(
            *arrays[members[0]][:2],
            np.array([arrays[i][2] for i in members]),
            np.array([arrays[i][3] for i in members]),
            tuple(members),
        )
        for members in found
    )


def lengths(groups: Sequence[ConeGroup]) -> tuple[float, Array]:
    """What cones say of the length of z: no feasible one is much shorter, and how far they reach.

    A cone that 0 does not meet is at least (‖g‖ − d) / (‖F‖ + ‖c‖) away; z gets about as far as
    (‖g‖ + |d|) over the larger of ‖F‖ and ‖c‖. The norm is that of a matrix's longest row.
    """
    least, reaches = 0.0, []
    for group in groups:
        push = 1.0 if group.F is None else _longest_row(group.F)
        shift = float(np.linalg.norm(group.g))
        head = _longest_row(group.c) if group.headed else 0.0
        if push or head:
            least = max(least, (shift - float(group.d.min(initial=np.inf))) / (push + head))
            reaches.append((shift + np.abs(group.d)) / max(push, head))
    return least, np.concatenate(reaches) if reaches else np.zeros(0)


def _longest_row(rows: Matrix) -> float:
    return float(row_norms(rows).max()) if largest(rows) else 0.0
