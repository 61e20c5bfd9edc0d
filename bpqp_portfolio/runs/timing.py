"""Seconds by stage of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class StageClock:
    """Adds up the wall time of named stages and says on the terminal when each ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        print(f"[{stage}] ...", flush=True)
        started = time.perf_counter()
        yield
        elapsed = time.perf_counter() - started
        self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed
        print(f"[{stage}] {elapsed:.1f} s", flush=True)
