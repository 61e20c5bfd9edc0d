"""Qlib's feature processors on a few columns at a time, so that memory holds the features once."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pandas as pd
from qlib.data.dataset.processor import Processor

from .processors import RESTORABLE

COLUMNS = 8
# Learning processors that touch no more than the group of columns that they name.
_OF_GROUP = ("DropnaLabel", "CSZScoreNorm", "CSRankNorm", "CSZFillna")


def by_column(infer: Sequence[Processor], learn: Sequence[Processor]) -> bool:
    """Whether ``infer`` treats each feature by itself and ``learn`` nothing but labels."""
    names = [type(item).__name__ for item in learn]
    return (
        all(type(item).__name__ in RESTORABLE and _group(item) == "feature" for item in infer)
        and all(name in _OF_GROUP for name in names)
        and all(_group(item) == "label" for item in learn)
    )


def _group(item: Processor) -> object:
    group = getattr(item, "fields_group", None)
    return group[0] if isinstance(group, list) and len(group) == 1 else group


def process_features(
    values: np.ndarray, index: pd.MultiIndex, names: Sequence[str], processors: Sequence[Processor]
) -> None:
    """Fit ``processors`` and apply them to ``values`` (R, F), in place; all must be by column.

    The result and what they are fitted to are those of the whole table at once.
    """
    fitted: list[list[Processor]] = []
    for start in range(0, len(names), COLUMNS):
        part = slice(start, start + COLUMNS)
        columns = pd.MultiIndex.from_product([["feature"], list(names[part])])
        table = pd.DataFrame(values[:, part].copy(), index=index, columns=columns)
        own = copy.deepcopy(list(processors))
        for item in own:
            item.fit(table)
            table = item(table)
        values[:, part] = table.to_numpy(values.dtype)
        fitted.append(own)
    for i, item in enumerate(processors):
        parts = [own[i] for own in fitted]
        for key in RESTORABLE[type(item).__name__]:
            setattr(item, key, np.concatenate([np.asarray(getattr(p, key)) for p in parts]))
