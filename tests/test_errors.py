"""An error ends a program with one line, the last; a traceback only where it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bpqp_portfolio import cli
from bpqp_portfolio.config import check_number
from bpqp_portfolio.errors import explain, report_error

SAID = "error: epochs: expected a number, got 'a'."
SCRIPT = """
from bpqp_portfolio.errors import report_error
def step():
    return {}["absent"]
try:
    step()
except KeyError as error:
    report_error(error)
"""


def raised(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_expected_error_is_its_message():
    assert explain(raised(check_number, "a", "epochs")) == SAID


def test_an_unforeseen_error_names_its_place_in_the_users_file(tmp_path):
    (tmp_path / "desk.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "desk.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: KeyError: 'absent' (at ")
    assert "desk.py, line 4, in step" in line and "BPQP_DEBUG=1" in line


def test_the_place_is_the_last_of_ours_and_not_of_a_library():
    error = raised(check_number, 3, "x") if False else raised(int, "x")
    assert "test_errors.py" in explain(error)
    assert "config.py" in explain(raised(lambda: check_number(1, "x", low="a")))


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_a_traceback_where_it_is_asked_for(monkeypatch, capsys, value, shown):
    monkeypatch.setenv("BPQP_DEBUG", value)
    report_error(raised(check_number, "a", "epochs"))
    out = capsys.readouterr().err
    assert ("Traceback" in out) == shown
    assert out.splitlines()[-1] == SAID


@pytest.mark.parametrize("debug", [False, True])
def test_a_command_ends_in_one_line(monkeypatch, capsys, debug):
    monkeypatch.delenv("BPQP_DEBUG", raising=False)
    monkeypatch.setattr(sys, "argv", ["bpqp", *(["--debug"] * debug), "check", "absent.yaml"])
    monkeypatch.setenv("BPQP_DEBUG", "0")  # put back at the end whatever the option sets
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    out = capsys.readouterr().err
    assert out.splitlines()[-1] == "error: no file absent.yaml."
    assert ("Traceback" in out) == debug
