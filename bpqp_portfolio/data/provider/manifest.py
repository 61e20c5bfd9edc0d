"""The manifest of a provider: where its data come from, and how many days and names it holds."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

MANIFEST = "manifest.json"


def write_manifest(root: Path, manifest: Mapping) -> None:
    """Write ``manifest.json`` into the folder ``root``."""
    (Path(root) / MANIFEST).write_text(json.dumps(dict(manifest), indent=2, sort_keys=True) + "\n")


def extent(
    calendar: pd.DatetimeIndex, universes: Mapping[str, pd.DataFrame], instruments: Collection[str]
) -> dict[str, Any]:
    """The part of a manifest on days, names and lists, the same for every provider.

    Parameters
    ----------
    calendar : (T,) its trading days.
    universes : list name → frame with columns ``instrument``, ``start``, ``end``.
    instruments : the names that have prices.
    """
    last = calendar[-1]
    sizes = {}
    for name, spells in universes.items():
        on_last = spells[(spells["start"] <= last) & (spells["end"] >= last)]
        sizes[name] = {
            "names": spells["instrument"].nunique(),
            "on_last_day": on_last["instrument"].nunique(),
            "without_prices": len(set(spells["instrument"]) - set(instruments)),
        }
    return {
        "start": f"{calendar[0]:%Y-%m-%d}",
        "end": f"{last:%Y-%m-%d}",
        "days": len(calendar),
        "instruments": len(instruments),
        "universes": sizes,
    }
