"""Where in a source something stands, as a message names it: a file and its line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Place:
    """The rows of one file: ``lines`` (rows,) are their numbers in it, ``unit`` what they count."""

    path: Path
    lines: np.ndarray
    unit: str = "line"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def at(self, row: int) -> str:
        """File and line of the ``row``-th of these rows."""
        return f"{self.name} {self.unit} {self.lines[row]}"
