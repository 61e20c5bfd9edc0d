"""How long the rest of a comparison will take, from the seconds of its finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean


class Estimate:
    """Seconds left of a comparison.

    A run is expected to take the mean of what the finished runs of its method took, here or in an
    earlier call; where none is finished, the mean over the methods that are known.

    Parameters
    ----------
    known : method → seconds of its finished runs.
    jobs : runs side by side.
    """

    def __init__(self, known: Mapping[str, Sequence[float]], jobs: int) -> None:
        self._known = {method: list(seconds) for method, seconds in known.items() if seconds}
        self._jobs = jobs

    def add(self, method: str, seconds: float) -> None:
        """Another run of ``method`` is finished, after ``seconds``."""
        self._known.setdefault(method, []).append(seconds)

    def left(self, waiting: Sequence[str], working: Sequence[tuple[str, float]]) -> float | None:
        """Seconds until all runs are done, None where nothing is known yet.

        ``waiting`` are the methods of the runs to come, ``working`` those of the runs in progress
        and the seconds that each has taken already.
        """
        if not self._known:
            return None
        means = {method: mean(seconds) for method, seconds in self._known.items()}
        other = mean(means.values())
        rest = [max(0.0, means.get(m, other) - taken) for m, taken in working]
        longest = max(rest, default=0.0)
        return max(longest, (sum(rest) + sum(means.get(m, other) for m in waiting)) / self._jobs)


def as_text(seconds: float | None) -> str:
    """``about 3 min left``; to the minute above two minutes, to ten seconds below.

    >>> as_text(44), as_text(None)
    ('about 40 s left', 'no estimate yet')
    """
    if seconds is None:
        return "no estimate yet"
    if seconds < 115:
        return f"about {10 * max(1, round(seconds / 10))} s left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 100 else f"about {minutes / 60:.1f} h left"
