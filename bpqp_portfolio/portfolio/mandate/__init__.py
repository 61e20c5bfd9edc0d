"""The mandate: a portfolio's constraints and costs, solved day by day, and what binds.

``terms/`` has a file for each constraint and cost, ``parts.py`` what they state, ``program.py`` the
program that they make; ``solve.py`` and ``explain.py`` come after it. Start with ``mandate.py``.
"""
