"""The way of `bpqp weights` through the package: python docs/trip.py RUN > trip.json

A stop is a call from one file of the package into another, counted once for each pair of files and
listed in the order in which it first happens; checks of settings (``config.py``) are no stops. It
climbs where the file called stands above the caller in the order of imports.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

PACKAGE = "bpqp_portfolio"
GROUND = "config.py"


def trace(call: Any, *arguments: Any) -> list[tuple[str, str]]:
    """Pairs (file that calls, file that is called) of the package, in order of first calls."""
    home = Path(importlib.import_module(PACKAGE).__file__ or "").parent
    names: dict[str, str] = {}
    stops: dict[tuple[str, str], None] = {}

    def name(frame: FrameType) -> str:
        path = frame.f_code.co_filename
        if path not in names:
            inside = path.startswith(str(home))
            found = str(Path(path).relative_to(home)) if inside else ""
            names[path] = "" if found == GROUND else found
        return names[path]

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not (called := name(frame)):
            return
        before = frame.f_back
        while before is not None and not name(before):
            before = before.f_back
        if before is not None and name(before) != called:
            stops.setdefault((name(before), called))

    sys.setprofile(profile)
    try:
        call(*arguments)
    finally:
        sys.setprofile(None)
    return list(stops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="id or unique name of a tracked run")
    parser.add_argument("--call", default=f"{PACKAGE}.live.target_weights:target_weights")
    options = parser.parse_args()
    module, function = options.call.split(":")
    call = getattr(importlib.import_module(module), function)
    call(options.run)  # what is imported on the way is no part of it
    json.dump(trace(call, options.run), sys.stdout, indent=0)


if __name__ == "__main__":
    main()
