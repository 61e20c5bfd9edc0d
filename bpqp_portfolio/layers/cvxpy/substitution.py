"""Auxiliary variables of cvxpy that an equality defines, y = Fx in a sum of squares: put in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Substitution:
    """z = Tx + s, from the rows of Az = b that define the variables ``gone`` by the others.

    ``rows`` are those rows, ``others`` the other rows of A, ``kept`` the variables x, and
    ``pivots`` the entries of A at (rows, gone), which no other row of A has anything at.
    """

    rows: Tensor
    others: Tensor
    kept: Tensor
    gone: Tensor
    pivots: Tensor

    def basis(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """T (..., n, len(kept)) and s (..., n)."""
        n, k = A.shape[-1], len(self.kept)
        own = A.index_select(-2, self.rows).index_select(-1, self.kept) / -self.pivots[:, None]
        eye = torch.eye(k, dtype=A.dtype).expand(*own.shape[:-2], k, k)
        T = own.new_zeros(*own.shape[:-2], n, k)
        T = T.index_copy(-2, self.kept, eye).index_copy(-2, self.gone, own)
        f = b.index_select(-1, self.rows) / self.pivots
        return T, f.new_zeros(*f.shape[:-1], n).index_copy(-1, self.gone, f)

    def reduced(self, arguments: dict[str, Any], T: Tensor, s: Tensor) -> dict[str, Any]:
        """The problem in x: P ← TᵀPT, q ← Tᵀ(q + Ps), G ← GT, h ← h − Gs, other rows of A, b."""
        out = dict(arguments)
        if "P" in out:
            P = out["P"]
            if isinstance(P, tuple):
                PT, Ps = P[1][..., None] * T, P[1] * s
            else:
                PT, Ps = _dense(P) @ T, _times(_dense(P), s)
            out["P"] = T.mT @ PT
            out["q"] = out["q"] + Ps
        out["q"] = _times(T.mT, out["q"])
        if "G" in out:
            G = _dense(out["G"])
            out["G"], out["h"] = G @ T, out["h"] - _times(G, s)
        for name in ("lb", "ub"):
            if name in out:
                out[name] = out[name].index_select(-1, self.kept)
        A, b = out.pop("A"), out.pop("b")
        if len(self.others):
            out["A"] = A.index_select(-2, self.others).index_select(-1, self.kept)
            out["b"] = b.index_select(-1, self.others)
        return out

    def cone(
        self, F: Tensor, g: Tensor, c: Tensor, d: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A cone (F, g, c, d), where the variables that are gone have no entry."""
        return _dense(F).index_select(-1, self.kept), g, c.index_select(-1, self.kept), d


def _dense(matrix: Tensor) -> Tensor:
    return matrix.to_dense() if matrix.is_sparse else matrix


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
