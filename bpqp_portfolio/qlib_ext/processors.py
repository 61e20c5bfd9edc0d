"""Qlib processors of ours, where Qlib's own is too slow for daily use."""

from __future__ import annotations

import numpy as np
import pandas as pd
from qlib.data.dataset.processor import CSZFillna, get_group_columns


class CrossSectionalFill(CSZFillna):
    """Fill NaN with the mean of the day, as Qlib's ``CSZFillna``, in one pass over all days.

    A day without any value stays NaN. Qlib's takes minutes on ten years of 300 names.
    """

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """Fill ``df``, indexed by (datetime, instrument) in any order; returns it."""
        columns = get_group_columns(df, self.fields_group)
        values = df[columns].to_numpy(dtype=np.float64)
        day, days = pd.factorize(df.index.get_level_values("datetime"))
        known = ~np.isnan(values)
        total, count = np.zeros((len(days), len(columns))), np.zeros((len(days), len(columns)))
        for column in range(len(columns)):
            seen = known[:, column]
            total[:, column] = np.bincount(day[seen], values[seen, column], minlength=len(days))
            count[:, column] = np.bincount(day[seen], minlength=len(days))
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        df[columns] = np.where(known, values, mean[day]).astype(df[columns].dtypes.iloc[0])
        return df
