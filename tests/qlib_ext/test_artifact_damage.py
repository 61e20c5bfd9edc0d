"""A tracked run whose files are not what was saved decides nothing, wherever they were damaged."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.errors import BPQPError, DataError
from bpqp_portfolio.files.digests import DIGESTS, seal
from bpqp_portfolio.portfolio.problem import ProblemConfig
from bpqp_portfolio.predictors import build_network
from bpqp_portfolio.runs.artifact import load_run

FEATURES = ["ROC5", "STD20", "KLEN"]
FACTS = {
    "model": {"predictor": {"name": "mlp", "hidden": [4]}, "members": 1},
    "features": FEATURES,
    "score_scale": 0.02,
    "factors": 2,
    "best_epoch": 1,
    "schema": 3,
    "market": "sim",
    "benchmark": "SIMIDX",
    "expressions": ["$close", "$open", "$high"],
    "loader": "market",
    "processors": [{"class": "CSZFillna", "settings": {}}],
    "segments": {name: ["2015-03-02", "2015-07-31"] for name in ("train", "valid", "test")},
    "risk": {"factors": 2, "window": 60, "min_history": 30},
    "problem": vars(ProblemConfig(risk_aversion=5.0)),
    "backtest": {
        "risk_degree": 0.95, "trade_unit": 100, "open_cost": 0.0, "close_cost": 0.0, "min_cost": 5
    },
    "exclusions": "check",
    "mandate": None,
    "data": {"folder": "data", "days": "2015-03-02 2015-03-03", "names": ["A", "B"]},
}  # fmt: skip


def write(folder, sealed: bool = True, trees: bool = False):
    """A run as it is saved, of a small network or of trees."""
    folder.mkdir(parents=True)
    facts = FACTS if sealed else {**FACTS, "schema": 2}
    (folder / "model.json").write_text(json.dumps(facts, indent=1) + "\n")
    (folder / "exclusions.csv").write_text("instrument,date,reason\nA,2015-04-01,looked at\n")
    np.savez(folder / "groups.npz", start=np.array([0]), codes=np.array([[0, 1]]))
    if trees:
        import lightgbm

        x = np.random.default_rng(0).standard_normal((60, 3))
        data = lightgbm.Dataset(x, x[:, 0], params={"verbosity": -1})
        booster = lightgbm.train({"num_leaves": 3, "verbosity": -1}, data, num_boost_round=2)
        booster.save_model(folder / "lightgbm.txt")
    else:
        network = build_network(FACTS["model"]["predictor"], len(FEATURES))
        torch.save(network.state_dict(), folder / "state_dict.pt")
    if sealed:
        seal(folder)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["network", "trees"])
def saved(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("run") / "model", trees=request.param)


def damaged_copy(saved, to, file, content: bytes):
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(saved, to)
    (to / file).write_bytes(content)
    return to


def files(saved) -> list[str]:
    return sorted(path.name for path in saved.iterdir())


def test_what_was_saved_is_read(saved, caplog):
    run = load_run(saved, "r")
    assert torch.isfinite(run.predictor_output(np.ones((2, 1, 3), dtype=np.float32)).scores).all()
    assert len(run.excluded) == 1 and run.groups is not None and not caplog.records


def test_a_run_that_states_no_currency_has_that_of_the_region_whose_rules_it_has(saved, tmp_path):
    assert load_run(saved, "r").market_rules.currency is None  # of schema 3
    facts = {k: v for k, v in FACTS.items() if k != "backtest"}
    block = {"risk_aversion": 5.0, "constraints": {}}
    for changes, currency in (({}, "CNY"), ({"lot": 1, "price_limits": None}, None)):
        rules = {"days_per_year": 238, "lot": 100, "price_limits": "boards", **changes}
        stated = {"schema": 4, "mandate": block, "by_mandate": False, "market_rules": rules}
        content = json.dumps({**facts, **stated}).encode()
        copy = damaged_copy(saved, tmp_path / "copy", "model.json", content)
        seal(copy)
        assert load_run(copy, "r").market_rules.currency == currency


def test_a_flipped_bit_anywhere_is_noticed(saved, tmp_path):
    rng = np.random.default_rng(0)
    for file in files(saved):
        whole = (saved / file).read_bytes()
        for at in rng.integers(0, len(whole), 40):
            content = bytearray(whole)
            content[at] ^= 1 << int(rng.integers(8))
            damaged_copy(saved, tmp_path / "copy", file, bytes(content))
            with pytest.raises(DataError, match=r"run 'r', artifacts bpqp/model: .*again") as error:
                load_run(tmp_path / "copy", "r")
            assert file in str(error.value) or file == DIGESTS


def test_a_file_cut_short_empty_or_gone_is_noticed(saved, tmp_path):
    for file in files(saved):
        whole = (saved / file).read_bytes()
        for length in (0, 1, len(whole) // 3, len(whole) - 2):  # the last may be a line's end
            damaged_copy(saved, tmp_path / "copy", file, whole[:length])
            with pytest.raises(DataError, match=rf"run 'r'.*{file} is damaged.*again"):
                load_run(tmp_path / "copy", "r")
        (damaged_copy(saved, tmp_path / "copy", file, b"") / file).unlink()
        with pytest.raises(DataError, match=rf"run 'r'.*{file} is missing.*again"):
            load_run(tmp_path / "copy", "r")


def test_a_file_that_was_not_saved_is_noticed(saved, tmp_path):
    """Trees beside a network would be decided on in its place."""
    damaged_copy(saved, tmp_path / "copy", "another.txt", b"tree")
    with pytest.raises(DataError, match=r"another\.txt is not listed in digests\.json"):
        load_run(tmp_path / "copy", "r")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tensor_that_is_not_finite_is_refused(tmp_path, value):
    folder = write(tmp_path / "model")
    state = torch.load(folder / "state_dict.pt", weights_only=True)
    name = next(iter(state))
    state[name].view(-1)[1] = value
    torch.save(state, folder / "state_dict.pt")
    seal(folder)
    with pytest.raises(DataError, match=rf"{name} in state_dict\.pt has a value that is not"):
        load_run(folder, "r")


# Runs made before there were digests -----------------------------------------------------------


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    return write(tmp_path_factory.mktemp("earlier") / "model", sealed=False)


def test_an_earlier_run_is_read_with_a_warning(earlier, caplog):
    load_run(earlier, "r")
    assert "run 'r'" in caplog.text and "cannot be verified" in caplog.text


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_an_earlier_run_that_is_damaged_gives_one_clear_error(earlier, tmp_path_factory, data):
    file = data.draw(st.sampled_from(files(earlier)))
    whole = (earlier / file).read_bytes()
    if data.draw(st.booleans()):
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        flipped = bytearray(whole)
        flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        content = bytes(flipped)
    copy = damaged_copy(earlier, tmp_path_factory.getbasetemp() / "damaged", file, content)
    try:
        load_run(copy, "r")
    except BPQPError as error:
        assert "run 'r'" in str(error)


@pytest.mark.parametrize("key", sorted(set(FACTS) - {"best_epoch", "factors", "benchmark"}))
def test_an_earlier_run_without_a_fact_is_refused(earlier, tmp_path, key):
    facts = json.loads((earlier / "model.json").read_text())
    del facts[key]
    damaged_copy(earlier, tmp_path / "copy", "model.json", json.dumps(facts).encode())
    with pytest.raises(DataError, match=r"run 'r', artifacts bpqp/model: .*model\.json"):
        load_run(tmp_path / "copy", "r")


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "{}", ""])
def test_an_earlier_run_of_other_json_is_refused(earlier, tmp_path, content):
    damaged_copy(earlier, tmp_path / "copy", "model.json", content.encode())
    with pytest.raises(DataError, match=r"model\.json"):
        load_run(tmp_path / "copy", "r")
