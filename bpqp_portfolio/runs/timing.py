"""The wall time of a run by stage: data, features, risk, training, backtest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ..files.screen import status


class Timing:
    """Adds up the wall time of named stages, and shows when each begins and ends.

    ``seconds`` by stage. A block that raises is not counted.

    >>> timing = Timing()
    >>> with timing("risk"):  # doctest: +ELLIPSIS
    ...     pass
    [risk] ...
    [risk] 0.0 s
    >>> list(timing.seconds)
    ['risk']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str, last: bool = True) -> Iterator[None]:
        """Time the block as a part of ``stage``, whose seconds so far are shown after the last."""
        status(f"[{stage}] ...")
        started = time.perf_counter()
        yield
        elapsed = time.perf_counter() - started
        self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed
        if last:
            print(f"[{stage}] {self.seconds[stage]:.1f} s", flush=True)
