"""The rules of each market, stated once: trading days a year, and daily price limits.

``trading_year.py`` is what annual figures and limits count; ``price_limits.py`` has the limits of
each board of the Chinese exchanges by date.
"""
