"""The epoch benchmark: it runs, its table is what it measured, large markets stay on disk."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks import epoch, render


def test_it_prints_its_table_and_draws_its_figure(tmp_path, capsys):
    figure = tmp_path / "epoch.png"
    small = ["--simulated", "--days", "24", "--names", "30", "--rounds", "1"]
    epoch.main([*small, "--figure", str(figure)])
    out = capsys.readouterr().out
    for stage in epoch.STAGES:
        assert re.search(rf"\| {stage} \| \d+\.\d+ \| \d+\.\d+ \|", out), stage
    assert re.search(r"End-to-end / two-stage: \*\*\d+\.\d+\*\*", out)
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert torch.cuda.is_available() or "skipped, no CUDA device" in out


def test_stages_are_those_of_the_loss():
    study = epoch.simulated_study(None, 24, 30, 4)
    two_stage, end_to_end = study.stages("mse"), study.stages("squared_regret")
    assert two_stage["solver forward"] == 0 < end_to_end["solver forward"]
    assert list(two_stage) == list(end_to_end) == list(epoch.STAGES)
    assert all(value >= 0 for value in end_to_end.values())


def test_a_large_market_is_read_from_disk_and_cleaned_up(tmp_path):
    said = epoch.large_market(24, 30, 4, tmp_path)
    assert "30 names, 24 days and 4 features" in said
    assert not list(tmp_path.iterdir())


def test_a_memory_mapped_market_is_the_same_as_one_in_memory(tmp_path):
    on_disk = epoch.simulated_study(tmp_path, 24, 30, 4).panel
    in_memory = epoch.simulated_study(None, 24, 30, 4).panel
    assert (tmp_path / "features").stat().st_size == 24 * 30 * 4 * 4
    for name, value in vars(in_memory).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(on_disk, name)), name


def test_no_data_is_a_usage_error(monkeypatch, capsys):
    monkeypatch.delenv("BPQP_PROVIDER_URI", raising=False)
    with pytest.raises(SystemExit):
        epoch.parse(["--rounds", "1"])
    assert "--provider" in capsys.readouterr().err


def test_the_page_has_its_markers(tmp_path):
    page = tmp_path / "epoch.md"
    page.write_text(epoch.PAGE.read_text())
    render.update(page, "new\n", epoch.MARKS)
    assert f"{epoch.MARKS[0]}\nnew\n{epoch.MARKS[1]}" in page.read_text()
