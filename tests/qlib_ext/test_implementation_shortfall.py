"""Target against realised weights by hand: what each cause makes of the difference."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.backtest.implementation_shortfall import implementation_shortfall

DAYS = pd.bdate_range("2020-01-06", periods=3)


def position(cash, **amounts):
    value = cash + sum(amount * price for amount, price in amounts.values())
    return SimpleNamespace(
        calculate_value=lambda: value,
        get_stock_amount_dict=lambda: {name: amount for name, (amount, _) in amounts.items()},
    )


def test_the_parts_add_up_and_are_what_their_names_say():
    """Of an account of 1000, half is wanted in each of two names at a price of 10 (50 shares).

    AAA rises to 11 before the trade and is bought in 45 of the 50; BBB cannot be bought.
    """
    table = pd.DataFrame(
        {
            "previous": 0.0,
            "target": [0.5, 0.5],
            "price": 10.0,
            "held": 0.0,
            "wanted": [50.0, 50.0],
            "trade": [45.0, 50.0],
        },
        index=pd.Index(["AAA", "BBB"], name="instrument"),
    )
    prices = pd.DataFrame({"AAA": [10.0, 11.0, 11.0], "BBB": [10.0, 10.0, 12.0]}, index=DAYS)
    held = {DAYS[1]: position(1000 - 495, AAA=(45.0, 11.0))}
    found = implementation_shortfall(
        {DAYS[1]: SimpleNamespace(table=table)}, held, prices, 1.0
    ).iloc[0]
    assert found["gap_drift"] == pytest.approx(0.05)
    assert found["gap_lots"] == pytest.approx(5 * 11 / 1000)
    assert found["gap_unfilled"] == pytest.approx(0.5)
    assert found["gap"] == pytest.approx(abs(0.495 - 0.5) + 0.5)
    # BBB then earns 20 % that the account does not have.
    assert found["gap_return"] == pytest.approx(-0.5 * 0.2)
    parts = [found[f"gap_return_{cause}"] for cause in ("drift", "lots", "unfilled")]
    np.testing.assert_allclose(parts, [0.0, 0.0, -0.1], atol=1e-12)
    assert found[["orders", "unfilled", "cut"]].tolist() == [2, 1, 0]


def test_the_last_day_has_no_return_yet():
    table = pd.DataFrame(
        {"target": [1.0], "held": [0.0], "wanted": [10.0], "trade": [10.0]},
        index=pd.Index(["AAA"], name="instrument"),
    )
    prices = pd.DataFrame({"AAA": [10.0, 10.0, 10.0]}, index=DAYS)
    held = {DAYS[2]: position(50.0, AAA=(5.0, 10.0))}
    found = implementation_shortfall(
        {DAYS[2]: SimpleNamespace(table=table)}, held, prices, 1.0
    ).iloc[0]
    assert np.isnan(found["gap_return"])
    assert found[["orders", "unfilled", "cut"]].tolist() == [1, 0, 1]
