"""The account: what a day's decision rests on, from target weights to whole lots and costs.

``rebalance.py`` decides one day from what is known and held, in a backtest and outside of one;
``day_inputs.py`` collects what is known; ``lots.py`` and ``holdings.py`` make orders.
"""
