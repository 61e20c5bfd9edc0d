"""Memory layouts: the same numbers, laid out as users lay them out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from .problem import Array, Random

TENSORS = ("plain", "transposed", "strided", "read-only", "coo", "csr")
ARRAYS = ("plain", "transposed", "strided", "read-only", "negative", "csc", "coo")
_SPARSE = ("P", "A", "G")


def draw(rng: Random, kinds: tuple[str, ...], name: str) -> str:
    """A layout for an argument: plain in half of the draws."""
    if rng.random() < 0.5:
        return "plain"
    allowed = [k for k in kinds if k not in ("coo", "csr", "csc") or name in _SPARSE]
    return str(rng.choice(allowed))


def tensor(value: Array, layout: str, dtype: torch.dtype) -> Tensor:
    """A tensor of ``value`` in this layout."""
    plain = torch.tensor(np.ascontiguousarray(value), dtype=dtype)
    match layout:
        case "transposed":
            return plain.mT.contiguous().mT if plain.ndim > 1 else plain
        case "strided":
            wide = torch.full((*plain.shape[:-1], 2 * plain.shape[-1] + 1), torch.nan, dtype=dtype)
            out = wide[..., 1::2]
            return out.copy_(plain)
        case "read-only":
            array = plain.numpy().copy()
            array.flags.writeable = False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return torch.from_numpy(array)
        case "coo":
            return plain.to_sparse_coo()
        case "csr":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return plain.to_sparse_csr()
        case _:
            return plain


def array(value: Array, layout: str) -> Any:
    """A numpy array or scipy matrix of ``value`` in this layout."""
    plain = np.array(value, dtype=np.float64)
    match layout:
        case "transposed":
            return np.asfortranarray(plain)
        case "strided":
            wide = np.full((*plain.shape[:-1], 2 * plain.shape[-1] + 1), np.nan)
            wide[..., 1::2] = plain
            return wide[..., 1::2]
        case "read-only":
            plain.flags.writeable = False
            return plain
        case "negative":
            return np.ascontiguousarray(plain[..., ::-1])[..., ::-1]
        case "csc":
            return sparse.csc_array(plain)
        case "coo":
            return sparse.coo_array(plain)
        case _:
            return plain
