"""The handler has Qlib's own Alpha158 features, processed on train alone, and a cache to trust."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
from qlib.contrib.data.handler import Alpha158
from qlib.data import D
from qlib.data.dataset.processor import CSZFillna, CSZScoreNorm, DropCol, DropnaLabel
from qlib_markets import FEW, KEPT, SEGMENTS, build, connect, rewrite

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.qlib_ext import column_groups, handlers
from bpqp_portfolio.qlib_ext.handlers import EXCLUDED_FEATURES, feature_config
from bpqp_portfolio.qlib_ext.processors import CrossSectionalFill

RAW = {"infer_processors": [], "learn_processors": []}
FIRST, LAST = SEGMENTS["train"][0], SEGMENTS["test"][1]


def table(dataset) -> pd.DataFrame:
    """Features of the handler as a frame."""
    index, features, _, _ = dataset.handler.arrays()
    return pd.DataFrame(features, index=index, columns=dataset.handler.feature_names)


def same(a, b) -> bool:
    """Are the arrays of two datasets' handlers the same bit for bit?"""
    (index, *left), (other, *right) = a.handler.arrays(), b.handler.arrays()
    return index.equals(other) and all(
        x.tobytes() == y.tobytes() for x, y in zip(left, right, strict=True)
    )


# Features --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(market, tmp_path_factory):
    """The dataset before any processing, and Qlib's own table for the same names and days."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPQP_CACHE", str(tmp_path_factory.mktemp("cache")))
        ours = build(market.root, handler={"kwargs": RAW})
    return ours, Alpha158("sim", FIRST, LAST, **RAW).fetch().sort_index()


def test_features_are_qlibs_alpha158_without_the_named_columns(raw):
    ours, theirs = raw
    got = table(ours)
    assert set(theirs.columns) - set(got.columns) - {"LABEL0"} == set(EXCLUDED_FEATURES)
    expected = theirs.loc[got.index, got.columns].to_numpy(np.float32)
    np.testing.assert_array_equal(got, expected)


def test_rows_are_the_members_that_trade_and_labels_are_qlibs(market, raw):
    ours, theirs = raw
    index, _, _, label = ours.handler.arrays()
    connect(market.root)
    close = D.features(D.instruments("sim"), ["$close"], FIRST, LAST)["$close"]
    assert index.equals(close.dropna().swaplevel().sort_index().index)
    assert len(index) < len(theirs)
    np.testing.assert_array_equal(label, theirs.loc[index, "LABEL0"])


def test_features_that_need_other_fields_are_left_out():
    expressions, names = feature_config(["close"], [])
    assert len(names) == len(set(names)) == 75
    assert not any(f"${field}" in e for e in expressions for field in ("open", "volume", "vwap"))
    assert len(feature_config(handlers.FIELDS, EXCLUDED_FEATURES)[1]) == 158 - 5
    few = feature_config(handlers.FIELDS, EXCLUDED_FEATURES, ["VMA5", "ROC20"])
    assert few[1] == ["ROC20", "VMA5"]


def test_processing_is_fitted_on_the_training_rows_alone(dataset, raw):
    """Robust z-score of the training rows, cut at 3, then the mean of the day."""
    values = table(raw[0])
    train = values.loc[: dataset.span_names["train"][1]]
    median = train.median()
    spread = 1.4826 * (train - median).abs().median()
    score = ((values - median) / spread).clip(-3, 3)
    score = score.fillna(score.groupby("datetime").transform("mean")).fillna(0.0)
    steady = spread > 1e-6  # Qlib adds a hair to a spread of zero
    assert steady.mean() > 0.95 and values.isna().any(axis=None)
    pd.testing.assert_frame_equal(
        table(dataset).loc[:, steady], score.loc[:, steady], rtol=1e-3, atol=1e-4
    )


def test_the_fill_equals_qlibs():
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2020-01-06", periods=6), list("abcdefg")],
        names=["datetime", "instrument"],
    )
    values = rng.standard_normal((len(index), 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:7, 1] = np.nan  # a day without any value
    columns = [("feature", "A"), ("feature", "B"), ("label", "L")]
    frame = pd.DataFrame(values, index, pd.MultiIndex.from_tuples(columns))
    frame = frame.iloc[rng.permutation(len(frame))]
    theirs = CSZFillna(fields_group="feature")(frame.copy())
    ours = CrossSectionalFill(fields_group="feature")(frame.copy())
    pd.testing.assert_frame_equal(ours, theirs.loc[ours.index], rtol=1e-6)
    assert ours["feature", "B"].isna().sum() == 7 and not ours["feature", "A"].isna().any()


# Cache -----------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """A list that grows by one whenever features are computed."""
    computed = []
    honest = handlers.evaluate

    def evaluate(*args):
        computed.append(args)
        return honest(*args)

    monkeypatch.setattr(handlers, "evaluate", evaluate)
    return computed


def test_the_second_build_reads_the_same_numbers_from_disk(market, counted, monkeypatch, tmp_path):
    first = build(market.root, handler=FEW)
    done = len(counted)
    second = build(market.root, handler=FEW)
    assert done > 0 and len(counted) == done
    assert same(first, second)
    for key in ("infer", "learn", "raw"):
        kwargs = {"col_set": ["feature", "label"]} if key != "raw" else {"col_set": "label"}
        data = getattr(first.handler, f"DK_{key[0].upper()}")
        frames = [d.prepare("train", data_key=data, **kwargs) for d in (first, second)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    monkeypatch.setenv("BPQP_CACHE", str(tmp_path / "elsewhere"))
    assert same(first, build(market.root, handler=FEW)) and len(counted) > done


def test_what_is_read_can_be_changed_without_touching_the_cache(market):
    first = build(market.root, handler=FEW)
    _, features, _, _ = first.handler.arrays()
    features[:] = 0.0
    assert not same(first, build(market.root, handler=FEW))


@pytest.mark.parametrize("how", ["flip", "cut", "lost", "meta", "foreign"])
def test_a_damaged_or_foreign_entry_is_built_anew(market, own_cache, counted, caplog, how):
    first = build(market.root, handler=FEW)
    done = len(counted)
    (entry,) = (own_cache / "features").iterdir()
    file, meta = entry / "features.npy", entry / "meta.json"
    content = file.read_bytes()
    file.unlink()  # the first dataset still has it mapped
    if how == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how != "lost":
        file.write_bytes(content)
    if how == "meta":
        meta.write_text(meta.read_text()[:-20])
    elif how == "foreign":
        facts = json.loads(meta.read_text())
        facts["key"]["fit"][0] = "2001-01-01"
        meta.write_text(json.dumps(facts))
    assert same(first, build(market.root, handler=FEW))
    assert len(counted) > done
    assert "built anew" in caplog.text and entry.name in caplog.text


def test_a_changed_provider_makes_the_entry_stale(market, tmp_path, counted):
    provider = rewrite(market, tmp_path / "market")
    first = build(provider.root, handler=FEW)
    done = len(counted)
    file = provider.root / "features" / "sim0003" / "close.day.bin"
    series = np.fromfile(file, dtype="<f4")
    series[40:] *= 1.5
    series.tofile(file)
    second = build(provider.root, handler=FEW)
    assert len(counted) > done and not same(first, second)


def test_every_setting_has_an_entry_of_its_own(market, own_cache):
    class Another(handlers.CachedAlpha158):
        def get_feature_config(self):
            expressions, names = super().get_feature_config()
            return [*expressions, "$close / Ref($close, 3)"], [*names, "MINE"]

    few = FEW["kwargs"]
    variants = [
        {"handler": FEW},
        {"handler": {"kwargs": {**few, "exclude": [*few["exclude"], KEPT[0]]}}},
        {"handler": {"kwargs": {**few, "infer_processors": handlers.INFER_PROCESSORS[:1]}}},
        {"handler": {**FEW, "class": Another}},
        {"handler": FEW, "market": "all"},
        {"handler": FEW, "segments": {**SEGMENTS, "train": ["2015-03-09", "2015-07-31"]}},
    ]
    keys = []
    for settings in [*variants, variants[0]]:
        data = build(market.root, **settings)
        keys.append((data.handler.key, data.run_key()))
    assert len(list((own_cache / "features").iterdir())) == len(variants)
    assert keys[0] == keys[-1]
    # A training that is continued must be of the same data, too.
    for kind in zip(*keys, strict=True):
        assert len(set(kind)) == len(variants)


def test_features_in_groups_of_columns_are_those_of_the_whole_table(market, tmp_path, monkeypatch):
    """Default processors: bit for bit, labels and what was fitted too."""
    found = []
    for how in ("groups", "whole"):
        monkeypatch.setenv("BPQP_CACHE", str(tmp_path / how))
        monkeypatch.setattr(column_groups, "COLUMNS", 3)
        if how == "whole":
            monkeypatch.setattr(handlers, "by_column", lambda *_: False)
        found.append(build(market.root, handler=FEW))
    one, other = found
    assert same(one, other) and one.handler.processors == other.handler.processors


def test_processors_of_the_whole_table_are_told_from_those_by_column():
    by_column = column_groups.by_column
    feature, label = {"fields_group": "feature"}, {"fields_group": "label"}
    assert by_column([CSZFillna(**feature)], [DropnaLabel(), CSZScoreNorm(**label)])
    assert not by_column([CSZFillna()], [])
    assert not by_column([DropCol(["KMID"])], [])
    assert not by_column([], [CSZScoreNorm(**feature)])


# Bad settings and bad data ---------------------------------------------------------------------


def test_defaults_are_not_changed_by_use(market):
    """Qlib writes the dates of the fit into the processors' settings it is given."""
    mine = [{"class": "RobustZScoreNorm", "kwargs": {"fields_group": "feature"}}]
    before = copy.deepcopy(mine)
    build(market.root, handler={"kwargs": {**FEW["kwargs"], "infer_processors": mine}})
    build(market.root, handler=FEW)
    assert mine == before
    assert "fit_start_time" not in str(handlers.INFER_PROCESSORS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feilds": ["close"]}, "handler: unknown key 'feilds'. Did you mean 'fields'"),
        ({"fields": ["close", "volumes"]}, "fields: .*'volumes'.* Did you mean 'volume'"),
        ({"fields": []}, "fields: no Alpha158 feature"),
        ({"exclude": ["KUPP"]}, "exclude: no Alpha158 feature 'KUPP'. Did you mean 'KUP'"),
        ({"include": ["ROC55"]}, "include: no Alpha158 feature 'ROC55'. Did you mean 'ROC5'"),
        ({"fields": ["close"], "include": ["VMA5"]}, "include: VMA5 needs more price fields"),
        ({"include": ["ROC5"], "exclude": ["ROC5"]}, "include: ROC5 is in exclude as well"),
        ({"include": []}, "include: names no feature"),
        ({"label": [["$close"], ["L"]]}, "handler: unknown key 'label'"),
        ({"instruments": "all"}, "'instruments' follows from the dataset"),
    ],
)
def test_bad_settings_are_refused(market, counted, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(market.root, handler={"kwargs": settings})
    assert not counted


@pytest.mark.parametrize("missing", ["file", "values"])
def test_features_without_any_value_are_named(market, tmp_path, missing):
    def change(name, frame):
        return frame.drop(columns="open") if missing == "file" else frame.assign(open=np.nan)

    provider = rewrite(market, tmp_path / "market", change)
    keep = ("KMID", "OPEN0", "ROC5")
    exclude = [n for n in feature_config(handlers.FIELDS, [])[1] if n not in keep]
    settings = {"kwargs": {"exclude": exclude}}
    with pytest.raises(DataError, match=r"features KMID, OPEN0 \(2 in all\) are NaN .* `fields`"):
        build(provider.root, handler=settings)
    settings["kwargs"]["fields"] = ["high", "low", "close", "volume"]
    settings["kwargs"]["exclude"] = [
        name for name in feature_config(settings["kwargs"]["fields"], [])[1] if name != "ROC5"
    ]
    assert build(provider.root, handler=settings).handler.feature_names == ["ROC5"]


def test_a_constant_label_is_refused(market, tmp_path):
    def change(name, frame):
        return frame.assign(close=10.0, change=0.0) if name != "SIMIDX" else frame

    provider = rewrite(market, tmp_path / "market", change)
    with pytest.raises(DataError, match="label is constant on the training rows"):
        build(provider.root, handler=FEW)
