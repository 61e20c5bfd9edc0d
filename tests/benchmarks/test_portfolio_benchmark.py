"""The portfolio benchmark's quick run: what it reports, writes and puts into its page."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks import portfolio_qp, render
from benchmarks.portfolio_days import Days, simulated
from benchmarks.portfolio_peers import Timed


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("portfolio")
    before = torch.get_num_threads()
    try:
        arguments = ["--quick", "--threads", "1", "--rounds", "3"]
        arguments += ["--json", str(folder / "run.json"), "--figure", str(folder / "run.png")]
        portfolio_qp.main(arguments)
    finally:
        torch.set_num_threads(before)
    assert (folder / "run.png").stat().st_size > 10_000
    return json.loads((folder / "run.json").read_text())


def test_a_run_measures_ours_and_the_authors_way_on_the_same_days(report):
    assert report["meta"]["market"].startswith("simulated")
    for cells in (report["peers"], *report["sizes"].values()):
        assert list(cells) == ["ours", "authors"]
        assert all(cell["ms"] > 0 for cell in cells.values())
        assert cells["authors"]["gradient_error"] < 1e-4
    assert set(report["constraints"]) == {"plain", "cap", "all"}


def test_it_is_as_accurate_as_clarabel_can_tell(report):
    found = report["accuracy"]
    assert found["days"] == 20
    assert found["unclear"] <= 2
    assert found["weights"] <= 1e-10
    assert found["gradient"] <= 1e-9
    assert found["clarabel"] <= 1e-7


def test_the_text_goes_between_its_own_markers(report, tmp_path):
    page = tmp_path / "portfolio.md"
    page.write_text(f"{render.BEGIN}\na\n{render.END}\n<!-- portfolio_qp:begin -->\nstale\n")
    with pytest.raises(ValueError, match="portfolio_qp:begin"):
        render.update(page, "new", portfolio_qp.MARKS)
    page.write_text(page.read_text() + "<!-- portfolio_qp:end -->\nafter\n")
    render.update(page, portfolio_qp.text(report), portfolio_qp.MARKS)
    text = page.read_text()
    assert "stale" not in text
    assert text.startswith(f"{render.BEGIN}\na\n")
    assert text.endswith("\nafter\n")
    assert "authors' way (OSQP, OSQP)" in text


def test_the_exponent_of_a_power_is_its_power():
    assert portfolio_qp.exponent({n: 3.0 * n**1.5 for n in (10, 100, 1000)}) == pytest.approx(1.5)


def test_a_peer_that_cannot_run_says_why():
    days = Days.of(*simulated(2, 10))

    class Broken:
        def load(self, *_):
            raise RuntimeError("first line\nno such thing")

    timed = Timed("authors", days, 10.0, 1)
    timed.peer = Broken()
    timed.turn(0, np.ones(10))
    assert timed.cell() == {"problem": "RuntimeError: no such thing"}
