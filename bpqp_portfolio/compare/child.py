"""One run of a comparison in a process of its own: python -m bpqp_portfolio.compare.child FILE."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..errors import BPQPError

KEY = "bpqp.compare_key"
"""Tag of a run that is finished: what determines its result."""


def main() -> None:
    """Train, backtest and report what the JSON file says; tag the run when all is done."""
    import qlib
    from qlib.model.trainer import task_train

    spec = json.loads(Path(sys.argv[1]).read_text())
    config = spec["config"]
    qlib.init(**config["qlib_init"])
    recorder = task_train(config["task"], config["experiment_name"], spec["name"])
    recorder.save_objects(config=config)
    recorder.set_tags(**{KEY: spec["key"]})


if __name__ == "__main__":
    try:
        main()
    except BPQPError as error:
        sys.exit(f"error: {error}")
