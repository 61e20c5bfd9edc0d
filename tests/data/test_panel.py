"""Daily panels: padding, history and days whose universes differ, against plain loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import random_panel

from bpqp_portfolio.data.features.panel import DailyPanel, previous_rows

DAYS = torch.tensor([5, 0, 11, 6])
TABLES = ("label", "returns", "specific")


@pytest.fixture(scope="module")
def panel() -> DailyPanel:
    panel = random_panel(days=14, window=3, unknown=0.3)
    panel.oracle_value.copy_(torch.arange(14))
    return panel


def day_rows(panel: DailyPanel, t: int) -> range:
    return range(int(panel.offsets[t]), int(panel.offsets[t + 1]))


def test_the_universes_of_the_test_differ(panel):
    assert len(set(panel.counts[DAYS].tolist())) > 2
    assert panel.counts.tolist() == [len(day_rows(panel, t)) for t in range(14)]


def test_a_batch_holds_its_days_padded_to_the_largest(panel):
    batch = panel.batch(DAYS)
    widest = int(panel.counts[DAYS].max())
    assert batch.mask.shape == (4, widest) and batch.loadings.shape == (4, widest, 2)
    for i, t in enumerate(DAYS.tolist()):
        count = int(panel.counts[t])
        assert batch.mask[i].tolist() == [True] * count + [False] * (widest - count)
        for j, row in enumerate(day_rows(panel, t)):
            assert torch.equal(batch.loadings[i, j], panel.loadings[row])
            assert batch.names[i, j] == panel.name_index[row]
            for name in TABLES:
                value, expected = getattr(batch, name)[i, j], getattr(panel, name)[row]
                assert value == (0 if expected.isnan() else expected)
            assert batch.known[i, j] == (not panel.label[row].isnan())
    assert batch.days.tolist() == batch.oracle_value.tolist() == DAYS.tolist()


def test_padding_is_neutral(panel):
    batch = panel.batch(DAYS)
    padding = ~batch.mask
    assert padding.any()
    for name in ("label", "returns", "known", "loadings"):
        assert (getattr(batch, name)[padding] == 0).all()
    assert (batch.specific[padding] == 1).all()
    assert (batch.names[padding] == -1).all()


def test_values_that_are_not_finite_are_unknown_and_do_not_leak():
    panel = random_panel(days=6, unknown=0.0)
    first = day_rows(panel, 0)[0]  # where padding points to
    other = day_rows(panel, 2)[1]
    for row, value in ((first, torch.nan), (other, torch.inf)):
        panel.label[row], panel.returns[row] = value, value
    panel.loadings[first] = torch.nan
    batch = panel.batch(torch.arange(1, 6))
    assert torch.isfinite(batch.label).all() and torch.isfinite(batch.loadings).all()
    assert batch.label[1, 1] == batch.returns[1, 1] == 0 and not batch.known[1, 1]
    assert batch.known.sum() == batch.mask.sum() - 1


def test_features_are_the_history_of_each_row(panel):
    batch = panel.batch(DAYS)
    assert batch.features.shape == (int(panel.counts[DAYS].sum()), 3, 4)
    history = panel.history(torch.arange(len(panel.features)))
    i = 0
    for t in DAYS.tolist():
        for row in day_rows(panel, t):
            for lag in range(3):
                expected = panel.features[history[row, lag]]
                assert torch.equal(batch.features[i, lag], expected)
            i += 1


def tensors(batch):
    """What the batch holds, by name; all but what a network has to say itself."""
    found = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    assert {name for name, value in found.items() if value is None} == {
        "log_specific",
        "log_factors",
    }
    return {name: value for name, value in found.items() if value is not None}


def test_features_may_be_left_out(panel):
    full, bare = panel.batch(DAYS), panel.batch(DAYS, features=False)
    assert bare.features.shape == (0, 3, 4)
    given, kept = tensors(full), tensors(bare)
    assert given.keys() == kept.keys()
    for name, value in given.items():
        if name != "features":
            assert torch.equal(value, kept[name])


def test_rows_and_pad_are_inverse(panel):
    rows, batch = panel.rows(DAYS), panel.batch(DAYS)
    assert rows.tolist() == [row for t in DAYS.tolist() for row in day_rows(panel, t)]
    table = batch.pad(panel.returns[rows].nan_to_num())
    assert torch.equal(table, batch.returns)
    scores = torch.randn(len(rows), requires_grad=True)
    batch.pad(scores).sum().backward()
    assert torch.equal(scores.grad, torch.ones(len(rows)))


def test_no_day_is_an_empty_batch(panel):
    batch = panel.batch(DAYS[:0])
    assert batch.mask.shape == (0, 0) and batch.features.shape == (0, 3, 4)
    assert panel.rows(DAYS[:0]).shape == (0,)


def test_a_batch_moves_to_a_device_as_a_whole(panel):
    batch = panel.batch(DAYS)
    learned = {"log_specific": batch.specific.log(), "log_factors": batch.loadings[:, 0]}
    moved = dataclasses.replace(batch, **learned).to("meta")
    assert {getattr(moved, f.name).device.type for f in dataclasses.fields(moved)} == {"meta"}
    assert tensors(batch.to("meta")).keys() == tensors(batch).keys()


def test_a_batch_is_a_copy(panel):
    batch = panel.batch(DAYS)
    for name, value in tensors(batch).items():
        if name != "days":
            value.zero_()
    for name in (*TABLES, "features", "loadings", "oracle_value"):
        assert getattr(panel, name).any()


def test_between_includes_both_ends_and_only_days_that_are_there():
    panel = dataclasses.replace(
        random_panel(days=5),
        dates=np.array(
            ["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-02-03"], "datetime64[D]"
        ),
    )
    assert len(panel) == 5
    assert panel.between("2020-01-03", "2020-01-07").tolist() == [1, 2, 3]
    assert panel.between("2020-01-04", "2020-01-31").tolist() == [2, 3]
    assert panel.between("2019-01-01", "2030-01-01").tolist() == [0, 1, 2, 3, 4]
    assert panel.between("2020-02-04", "2030-01-01").tolist() == []
    assert panel.between("2020-01-07", "2020-01-03").tolist() == []


def naive_history(offsets, name_index, window):
    """For each row, a walk back over the days."""
    out = []
    for t in range(len(offsets) - 1):
        for row in range(offsets[t], offsets[t + 1]):
            earlier = [r for r in range(offsets[t]) if name_index[r] == name_index[row]]
            last = [*earlier, row][-window:]
            out.append([last[0]] * (window - len(last)) + last)
    return np.array(out)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 6), st.integers(1, 6))
def test_history_is_that_of_a_plain_loop(seed, days, names, window):
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(rng.random(names) < 0.6) for _ in range(days)]
    members[0] = np.arange(names)
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in members])])
    name_index = np.concatenate(members)
    panel = dataclasses.replace(
        random_panel(), previous=torch.from_numpy(previous_rows(name_index)), window=window
    )
    found = panel.history(torch.arange(len(name_index))).numpy()
    np.testing.assert_array_equal(found, naive_history(offsets, name_index, window))


def test_history_never_looks_ahead(panel):
    rows = torch.arange(len(panel.features))
    history = panel.history(rows)
    assert (history <= rows.unsqueeze(1)).all() and torch.equal(history[:, -1], rows)
    assert (panel.name_index[history] == panel.name_index.unsqueeze(1)).all()
    assert (history[:, 0] < history[:, -1]).any()


def test_features_of_consecutive_days_are_not_copied():
    panel = random_panel(days=14)
    whole, torn = panel.batch(torch.arange(3, 8)), panel.batch(torch.tensor([3, 4, 6, 7]))
    assert whole.features.data_ptr() == panel.features[panel.offsets[3]].data_ptr()
    for batch in (whole, torn):
        assert torch.equal(batch.features[:, 0], panel.features[panel.rows(batch.days)])
    backwards = torch.tensor([7, 6, 5])
    rows = panel.rows(backwards)
    assert torch.equal(panel.batch(backwards).features[:, 0], panel.features[rows])


def test_chunks_hold_all_days_and_few_rows(panel):
    for rows in (1, 30, 10**9):
        parts = panel.chunks(DAYS, rows)
        assert torch.equal(torch.cat(parts), DAYS)
        for part in parts:
            assert len(part) == 1 or len(part) * int(panel.counts.max()) <= rows
    assert len(panel.chunks(DAYS, 1)) == 4 and len(panel.chunks(DAYS, 10**9)) == 1
    assert panel.chunks(DAYS[:0]) == []


def test_a_panel_moves_to_a_device_as_a_whole(panel):
    moved = panel.to("meta")
    assert moved.device.type == "meta" and moved.nbytes == panel.nbytes
    tensors = [t for t in vars(moved).values() if isinstance(t, torch.Tensor)]
    assert len(tensors) == 9 and {t.device.type for t in tensors} == {"meta"}
