"""Feature expressions of many names: hand-computed windows, and no memory beyond the look-back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.features.expressions import Table, evaluate, fields_of, reach, read_tables
from bpqp_portfolio.data.provider.provider import write_provider
from bpqp_portfolio.errors import ConfigError

ROLLING = [
    "Mean($x, 5)",
    "Sum($x, 5)",
    "Std($x, 5)",
    "Slope($x, 5)",
    "Resi($x, 5)",
    "Rsquare($x, 5)",
    "Max($x, 5)",
    "Min($x, 5)",
    "IdxMax($x, 5)",
    "IdxMin($x, 5)",
    "Rank($x, 5)",
    "Quantile($x, 5, 0.8)",
    "Corr($x, Log($y+1), 5)",
    "Mean($x>Ref($x, 1), 20)/Std(Abs($x/Ref($x, 1)-1)*$y, 20)",
]


def table(values: np.ndarray) -> Table:
    """A table stored over its whole length."""
    days, names = values.shape
    return Table(values.astype(np.float32), np.zeros(names, int), np.full(names, days - 1))


@pytest.fixture
def fields():
    """Prices with gaps, ties and a name that is listed late, and volumes."""
    rng = np.random.default_rng(3)
    x = np.round(20 * np.exp(np.cumsum(0.03 * rng.standard_normal((90, 7)), axis=0)), 1)
    y = rng.uniform(0, 1e6, x.shape)
    x[rng.random(x.shape) < 0.08] = np.nan
    x[30:50, 2] = np.nan
    x[60:75, 3] = 12.5
    x[:40, 4] = np.nan
    given = {"x": table(x), "y": table(y)}
    first = given["x"].first.copy()
    first[4] = 40
    return {**given, "x": Table(given["x"].values, first, given["x"].last)}


def everything(fields) -> np.ndarray:
    return np.ones(fields["x"].values.shape, dtype=bool)


def regression(y: np.ndarray) -> np.ndarray:
    """Slope, residual of the last and R² of the known values on their days."""
    known = np.isfinite(y)
    if known.sum() < 2:
        return np.full(3, np.nan)
    i = np.arange(len(y))[known]
    slope, level = np.polyfit(i, y[known], 1)
    r = np.corrcoef(i, y[known])[0, 1] if np.std(y[known]) > 0 else np.nan
    return np.array([slope, y[-1] - level - slope * (len(y) - 1), r * r])


def test_windows_equal_those_of_pandas_and_numpy(fields):
    got = evaluate(ROLLING[:13], fields, everything(fields)).reshape(90, 7, 13)
    for name in range(7):
        first = int(fields["x"].first[name])
        x = pd.Series(fields["x"].values[first:, name].astype(float))
        y = pd.Series(np.log(fields["y"].values[first:, name] + np.float32(1)).astype(float))
        window = x.rolling(5, min_periods=1)
        lines = np.array([regression(x.to_numpy()[max(0, t - 4) : t + 1]) for t in range(len(x))])
        deviation = window.std()
        flat = deviation <= 2e-5
        expected = [
            window.mean(),
            window.sum(),
            deviation,
            lines[:, 0],
            lines[:, 1],
            np.where(flat, np.nan, lines[:, 2]),
            window.max(),
            window.min(),
            window.apply(lambda v: v.argmax() + 1, raw=True),
            window.apply(lambda v: v.argmin() + 1, raw=True),
            window.rank(pct=True),
            window.quantile(0.8),
            window.corr(y).where(~flat),
        ]
        for i, (expression, column) in enumerate(zip(ROLLING, expected, strict=False)):
            column = np.asarray(column, dtype=float)
            if expression.startswith(("Slope", "Resi")):
                column[x.isna().to_numpy()] = got[first:, name, i][x.isna().to_numpy()]
            np.testing.assert_allclose(
                got[first:, name, i], column, rtol=2e-6, atol=2e-6, err_msg=expression
            )
        assert np.isnan(got[:first, name]).all()


def test_a_value_is_the_same_however_few_days_and_names_are_computed_with_it(fields):
    whole = evaluate(ROLLING, fields, everything(fields)).reshape(90, 7, -1)
    back, ahead = reach(ROLLING)
    assert (back, ahead) == (20, 0)
    for day in (back, 55, 89):
        for names in (slice(0, 7), slice(2, 5)):
            part = {f: t.part(slice(day - back, day + 1), names) for f, t in fields.items()}
            keep = np.zeros((back + 1, part["x"].values.shape[1]), dtype=bool)
            keep[-1] = True
            np.testing.assert_array_equal(evaluate(ROLLING, part, keep), whole[day, names])


def test_an_enormous_value_leaves_nothing_behind(fields):
    """Running sums would carry its rounding for ever."""
    clean = evaluate(ROLLING, fields, everything(fields)).reshape(90, 7, -1)
    values = fields["y"].values.copy()
    values[10] = 1e30
    spoilt = evaluate(ROLLING, {**fields, "y": table(values)}, everything(fields))
    np.testing.assert_array_equal(spoilt.reshape(90, 7, -1)[40:], clean[40:])


def test_elementwise_operators_keep_the_type_of_the_data(fields):
    x = fields["x"].values
    got = evaluate(
        ["2*$x-$y", "Greater($x-Ref($x, 1), 0)", "Less($x, $y)", "Ref($x, -2)/$x - 1"],
        fields,
        everything(fields),
    ).reshape(90, 7, 4)
    np.testing.assert_array_equal(got[..., 0], 2 * x - fields["y"].values)
    np.testing.assert_array_equal(got[1:, :, 1], np.maximum(x[1:] - x[:-1], 0))
    np.testing.assert_array_equal(got[..., 2], np.minimum(x, fields["y"].values))
    np.testing.assert_array_equal(got[:-2, :, 3], x[2:] / x[:-2] - 1)
    assert np.isnan(got[-2:, :, 3]).all() and reach(["Ref($x, -2)/Ref($x, 3)"]) == (3, 2)


def test_tables_are_read_as_they_are_stored(tmp_path):
    calendar = pd.bdate_range("2020-01-01", periods=10)
    close = pd.Series(np.arange(5.0), calendar[3:8])
    series = {"A": pd.DataFrame({"close": close}), "B": pd.DataFrame({"close": close[:2]})}
    (tmp_path / "p").mkdir()
    provider = write_provider(tmp_path / "p", calendar, series, {})
    got = read_tables(provider, ["A", "B", "C"], ["close"], slice(4, 9))["close"]
    np.testing.assert_array_equal(got.values[:, 0], [1, 2, 3, 4, np.nan])
    np.testing.assert_array_equal(got.values[:, 1], [1, *[np.nan] * 4])
    assert np.isnan(got.values[:, 2]).all()
    assert list(got.first[:2]) == [0, 0] and list(got.last[:2]) == [3, 0]
    assert got.last[2] < got.first[2]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("Men($x, 5)", r"operator 'Men' is not known. Did you mean 'Mean'"),
        ("$x +", r"cannot be read"),
        ("Mean($x, 0.5)", r"must be a whole number, got 0.5"),
        ("Mean($z, 5)", r"no field \$z"),
    ],
)
def test_what_cannot_be_computed_is_refused(fields, expression, message):
    with pytest.raises(ConfigError, match=message):
        evaluate([expression], fields, everything(fields))


def test_fields_of_expressions():
    assert fields_of(["$close/$open", "Mean($close, 5)"]) == ["close", "open"]
