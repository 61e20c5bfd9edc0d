"""What a workflow shows: our prints and errors; everything else is in the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NOISE = """
import logging, os, subprocess, sys, warnings
from bpqp_portfolio.files.screen import detail, quieten, status

logger = logging.getLogger("elsewhere")
logger.addHandler(logging.StreamHandler())  # holds on to the first error stream, as Qlib's does
print("before")
path = quieten("noise")
assert quieten("again") == path
print("shown")
detail("only in the log")
status("[stage] ...")
foreign = {"__name__": "qlib.workflow.record_temp"}
exec("print('by qlib'); from pprint import pprint; pprint('by pprint of qlib')", foreign)
logger.error("logged elsewhere")
mlflow = logging.getLogger("mlflow")
mlflow.propagate = False
mlflow.addHandler(logging.StreamHandler())  # takes the stream of now, as MLflow's does
exec("import logging; logging.getLogger('mlflow').warning('by mlflow')", {"__name__": "mlflow.db"})
warnings.warn("a warning")
os.write(2, b"by a library in C\\n")
subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('by a program\\\\n')"])
logging.getLogger("bpqp_portfolio.files.cache").warning("our own warning")
print("an error of ours", file=sys.stderr)
raise ValueError("the last line")
"""
HIDDEN = (
    "only in the log", "[stage] ...", "by qlib", "by pprint of qlib", "logged elsewhere",
    "by mlflow", "a warning", "by a library in C", "by a program",
)  # fmt: skip
SHOWN = ("shown", "our own warning", "an error of ours", "ValueError: the last line")


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Output of a noisy program, standard and error stream together, and its log."""
    folder = tmp_path_factory.mktemp("screen")
    done = subprocess.run(
        [sys.executable, "-c", NOISE],
        env={"BPQP_CACHE": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 1
    (log,) = (folder / "logs").glob("noise-*.log")
    return done.stdout, log.read_text()


@pytest.mark.parametrize("text", HIDDEN)
def test_what_others_say_is_in_the_log_alone(noise, text):
    out, log = noise
    assert text in log and text not in out


@pytest.mark.parametrize("text", SHOWN)
def test_what_we_say_is_in_both_and_once(noise, text):
    out, log = noise
    assert log.count(text) == 1 and out.count(text) == 1


def test_an_error_is_the_last_line_and_nothing_draws_on_a_pipe(noise):
    out, _ = noise
    assert out.startswith("before\nshown\n")
    assert out.splitlines()[-1] == "ValueError: the last line"
    assert "\r" not in out and "\x1b" not in out
