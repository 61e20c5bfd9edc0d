"""The rules of each market, stated once: trading days a year, lot, and daily price limits.

Start with ``rules.py``: the rules by region, which a workflow may change in one block;
``price_limits.py`` has the limits of each board of the Chinese exchanges by date.
"""
