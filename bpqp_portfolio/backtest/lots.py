"""From wanted holdings to orders: whole lots, least orders, and no more than the cash can pay."""

from __future__ import annotations

import numpy as np

from ..markets.price_limits import least_order
from ..portfolio.costs import TradingCosts

# Parts of a lot by which a wanted number of shares may miss it and still count as it.
LOT_TOLERANCE = 1e-6


def lot_trades(
    names: np.ndarray,
    wanted: np.ndarray,
    held: np.ndarray,
    factor: np.ndarray,
    price: np.ndarray,
    cash: float,
    *,
    lot: int | None,
    costs: TradingCosts,
    whole_shares: bool = False,
) -> np.ndarray:
    """Whole lots of what is wanted, (N,), and no more than the cash after all costs can pay.

    A name that is given up is sold with its odd shares; else lots are rounded towards no trade,
    and what is less than the board's least order is not bought. Where the cash is short all
    purchases are cut in proportion, and where that does not settle it (a broker's least fee does
    not shrink with its order) the smallest are left out.

    Parameters
    ----------
    names : (N,) codes.
    wanted, held : (N,) units of holdings, >= 0.
    factor : (N,) shares in one unit of a holding.
    price : (N,) currency for one unit, 0 where there is none.
    cash : currency, >= 0.
    lot : shares in a lot; None for any amount.
    whole_shares : whether, where there are lots, a fraction of a share cannot be sold; the
        purchases are then paid by the whole shares that are.

    Returns
    -------
    (N,) units of holdings, a purchase above zero.
    """
    change = wanted - held
    change[np.abs(change) <= 1e-9 * np.maximum(np.abs(wanted), np.abs(held))] = 0.0
    trade = _lots(change, factor, lot)
    gone = (wanted == 0) & (held > 0)
    trade[gone] = -held[gone]
    if whole_shares and lot is not None:
        shares = _shares_in_unit(factor)
        trade = np.where(trade < 0, np.trunc(settled(trade * shares)) / shares, trade)
    for _ in range(20):
        if lot is not None:
            least = np.array([least_order(str(name)) for name in names[trade > 0]])
            bought = trade[trade > 0] * factor[trade > 0]
            trade[np.flatnonzero(trade > 0)[bought < least * (1 - LOT_TOLERANCE)]] = 0.0
        spent = _spent(trade, price, costs)
        buys = spent[trade > 0].sum()
        left = cash - spent.sum()
        if left >= 0 or buys == 0:
            return trade
        part = max(0.0, (buys + left) / buys)
        trade = np.where(trade > 0, _lots(part * trade, factor, lot), trade)
    bought = np.flatnonzero(trade > 0)
    for i in bought[np.argsort((trade * price)[bought], kind="stable")]:
        if _spent(trade, price, costs).sum() <= cash:
            break
        trade[i] = 0.0
    return trade


def account_after(
    held: np.ndarray, trade: np.ndarray, price: np.ndarray, cash: float, costs: TradingCosts
) -> dict[str, float]:
    """``value`` of the account before the trades, ``cash`` after them and their ``cost``."""
    cost = float(costs.of_orders(trade * price).sum())
    return {
        "value": cash + float(held @ price),
        "cash": cash - float(trade @ price) - cost,
        "cost": cost,
    }


def settled(amount: np.ndarray) -> np.ndarray:
    """Amounts of shares (n,) without the rounding of their sums: a millionth off a whole is it."""
    whole = np.round(amount)
    return np.where(np.abs(amount - whole) <= LOT_TOLERANCE, whole, amount)


def _spent(trade: np.ndarray, price: np.ndarray, costs: TradingCosts) -> np.ndarray:
    value = trade * price
    return value + costs.of_orders(value)


def _lots(amount: np.ndarray, factor: np.ndarray, lot: int | None) -> np.ndarray:
    if lot is None:
        return amount.copy()
    unit = lot / _shares_in_unit(factor)
    lots = np.floor(np.abs(amount) / unit + LOT_TOLERANCE)
    return np.where(lots > 0, np.sign(amount) * lots * unit, 0.0)


def _shares_in_unit(factor: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(factor) & (factor > 0), factor, 1.0)
