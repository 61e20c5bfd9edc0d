"""The benchmark's run: cells, cut-offs, resuming, and what it writes."""

from __future__ import annotations

import json

import pytest

from benchmarks import paper_tables, render
from benchmarks.instances import make
from benchmarks.worker import CutOff, Failed, Worker


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run of two methods, its folder and its report."""
    folder = tmp_path_factory.mktemp("run")
    arguments = ["--methods", "ours,authors", "--tables", "qp,large", "--sizes", "8x2"]
    arguments += ["--rounds", "3", "--threads", "1", "--json", str(folder / "run.json")]
    paper_tables.main([*arguments, "--markdown", str(folder / "run.md")])
    return folder, arguments, json.loads((folder / "run.json").read_text())


def test_cells_have_times_and_accuracy(finished):
    _, _, report = finished
    for table in ("qp", "large"):
        row = report["tables"][table]["8x2"]
        assert list(row) == ["ours", "authors"]
        for cell in row.values():
            assert 0 < cell["iqr"][0] <= cell["total"] <= cell["iqr"][1]
            assert cell["calls"] >= 3
            assert cell["cosine"] == pytest.approx(1.0, abs=1e-12)
            assert cell["error"] <= 1e-6
            assert set(cell["by_parameter"]) == {"P", "q", "A", "b", "G", "h"}
    assert report["meta"]["threads"] == 1
    assert report["meta"]["versions"]["osqp"]


def test_everything_is_written(finished, tmp_path):
    folder, _, report = finished
    full = (folder / "run.md").read_text()
    assert "### QP 8x2" in full
    assert "| *authors' way / ours* |" in full
    render.figure(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    page = tmp_path / "layers.md"
    page.write_text(f"before\n{render.BEGIN}\nold\n{render.END}\nafter\n")
    for _ in range(2):
        render.update(page, render.compact(report))
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n")
        assert "old" not in text
        assert text.count("authors' way (OSQP, OSQP)") >= 1
    page.write_text("no markers")
    with pytest.raises(ValueError, match="expected one"):
        render.update(page, "new")
    assert page.read_text() == "no markers"


def test_resuming_keeps_finished_cells(finished):
    folder, arguments, report = finished
    partial = json.loads(json.dumps(report))
    del partial["tables"]["large"]["8x2"]["authors"]
    partial["tables"]["qp"]["8x2"]["ours"]["total"] = 123.0
    path = folder / "partial.json"
    path.write_text(json.dumps(partial))
    paper_tables.main([*arguments[:-1], str(path), "--resume"])
    again = json.loads(path.read_text())
    assert again["tables"]["qp"] == partial["tables"]["qp"]
    assert again["tables"]["large"]["8x2"]["ours"] == partial["tables"]["large"]["8x2"]["ours"]
    assert again["tables"]["large"]["8x2"]["authors"]["error"] <= 1e-6


def test_a_slow_method_is_cut_off_and_its_worker_starts_again(tmp_path):
    problem = tmp_path / "problem.npz"
    make("qp", 60, 10).save(problem)
    worker = Worker("unrolled", 1)
    try:
        worker.call("memory", 60.0)  # starts it
        with pytest.raises(CutOff, match="> 0 s"):
            worker.call("load", 0.0, problem=problem)
        assert sum(worker.call("load", 60.0, problem=problem)) > 0
        with pytest.raises(Failed, match="FileNotFoundError"):
            worker.call("load", 60.0, problem=tmp_path / "none.npz")
        worker.memory_gb = 1e-3
        with pytest.raises(CutOff, match="GB"):
            worker.call("block", 60.0, seconds=5.0, warm=False)
    finally:
        worker.stop()


def test_a_method_that_is_not_there_says_so():
    worker = Worker("qpth:", 1)
    worker.method = "nobody"
    with pytest.raises(Failed, match="nobody"):
        worker.call("memory", 60.0)


def cell(total, error=1e-9):
    return {"total": total, "error": error}


def test_ratios_leave_out_wrong_gradients_and_our_own():
    row = {
        "ours": cell(1.0),
        "ours:osqp/kkt": cell(0.5),
        "inverse": cell(0.9),
        "qpth": cell(0.1, error=0.5),
        "proxsuite": cell(2.0),
        "dqp": cell(3.0),
        "authors": {"problem": "> 120 s", "at_least": 120.0},
    }
    assert render.ratio(row, None) == "2.0 (proxsuite)"
    assert render.ratio(row, "authors") == "> 120"
    assert render.cell_text(row["qpth"]) == "(100)"
    assert render.cell_text(row["authors"]) == "> 120 s"
    assert render.ratio({"ours": {"problem": "x"}, "dqp": cell(1.0)}, None) == ""


def test_too_large_sizes_are_not_tried(tmp_path):
    options = paper_tables.parse(["--methods", "ours,dqp", "--limit", "10"])
    run = paper_tables.Run(options, tmp_path)
    run.report["tables"] = {
        "qp": {"500x100": {"ours": cell(0.1), "dqp": {"problem": "> 10 s", "at_least": 10.0}}}
    }
    row = {}
    with paper_tables.tqdm(total=4, disable=True) as bar:
        assert not run.hopeless("large", "1000x200", "ours", row, bar)
        assert run.hopeless("large", "1000x200", "dqp", row, bar)
        assert not run.hopeless("lp", "500x100", "dqp", row, bar)
    assert row["dqp"]["problem"].startswith("not run")
    assert row["dqp"]["at_least"] == pytest.approx(80.0)
