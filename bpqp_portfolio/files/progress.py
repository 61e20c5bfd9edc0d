"""One progress bar for the work on data: shown on a terminal, silent elsewhere."""

from __future__ import annotations

from tqdm import tqdm


def progress_bar(stage: str, total: int | None, progress: bool, unit: str, done: int = 0) -> tqdm:
    """A bar of ``total`` ``unit``s, ``done`` already; none unless ``progress`` and a terminal."""
    return tqdm(
        desc=stage,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        disable=None if progress else True,
    )
