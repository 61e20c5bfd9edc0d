"""Codes of China's exchanges, as vendors write them and as Qlib does: ``SH600000``."""

from __future__ import annotations

import re

# Vendors' marks of an exchange: Wind and Tushare, Yahoo, ISO 10383, Goldminer.
_EXCHANGES = {
    "SH": ("SH", "SS", "XSHG", "SHSE", "SSE"),
    "SZ": ("SZ", "XSHE", "SZSE"),
    "BJ": ("BJ", "XBSE", "BSE"),
}
_EXCHANGE = {mark: exchange for exchange, marks in _EXCHANGES.items() for mark in marks}
_MARKS = "|".join(sorted(_EXCHANGE, key=len, reverse=True))
_WITH_MARK = re.compile(
    rf"(?P<before>{_MARKS})[._-]?(?P<a>\d{{6}})|(?P<b>\d{{6}})\.(?P<after>{_MARKS})"
)

# The exchanges' number ranges by the first digits, for six digits alone: shares of each board, then
# funds and indices. 000300 is no share in Shenzhen, so it can only be the CSI 300.
_RANGES = (
    (re.compile(r"(60|68|90)\d{4}|000300"), "SH"),
    (re.compile(r"(00|20|30)\d{4}"), "SZ"),
    (re.compile(r"(4\d|8\d|92)\d{4}"), "BJ"),
    (re.compile(r"5\d{5}"), "SH"),
    (re.compile(r"(15|16|18|39)\d{4}"), "SZ"),
)


def qlib_code(code: str) -> str:
    """The code of one of China's exchanges as Qlib writes it; any other code as it is.

    With a mark of the exchange before or after six digits, in any case; of six digits alone by the
    exchanges' number ranges, so that 000001 is the share in Shenzhen and not the index in Shanghai.

    >>> [qlib_code(c) for c in ("600000.SH", "sh.600000", "600519.SS", "000001", "BRK.B")]
    ['SH600000', 'SH600000', 'SH600519', 'SZ000001', 'BRK.B']
    """
    upper = code.upper()
    if match := _WITH_MARK.fullmatch(upper):
        mark, digits = match["before"] or match["after"], match["a"] or match["b"]
        return _EXCHANGE[mark] + digits
    for digits_of, exchange in _RANGES:
        if digits_of.fullmatch(upper):
            return exchange + upper
    return code
