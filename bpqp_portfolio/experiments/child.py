"""One run of a comparison, as a process: python -m bpqp_portfolio.experiments.child FILE."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from ..errors import BPQPError, report_error
from .code import code_digest

KEY = "bpqp.compare_key"
"""Tag of a run that is finished: its configuration."""
CODE = "bpqp.compare_code"
"""Tag of a finished run: the code that made it."""


def end_with_parent() -> None:
    """End this process, and all that it started, as soon as its standard input ends.

    The parent holds the other end of that pipe, which closes however the parent ends; a SIGKILL
    would leave this process running otherwise.
    """
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        while os.read(pipe, 1):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch the parent").start()


def main() -> None:
    """Train, backtest and report the task of the JSON file; tag the run when all is done.

    Raises
    ------
    BPQPError
        The package's code is not that of the comparison which started this process.
    """
    spec = json.loads(Path(sys.argv[1]).read_text())
    if code_digest() != spec["code"]:
        raise BPQPError("the code was changed while the comparison ran; start it again.")
    import qlib
    from qlib.model.trainer import task_train

    config = spec["config"]
    qlib.init(**config["qlib_init"])
    recorder = task_train(config["task"], config["experiment_name"], spec["name"])
    recorder.save_objects(config=config)
    recorder.set_tags(**{KEY: spec["key"], CODE: spec["code"]})


if __name__ == "__main__":
    end_with_parent()
    try:
        main()
    except Exception as error:
        report_error(error)
        sys.exit(1)
