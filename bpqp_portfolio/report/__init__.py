"""The report of one run: its summary table, figures and the HTML page.

Start at ``page.py``; ``figures.py`` lists the figures, ``metrics.py`` the final table; what they
read is saved by ``runs/results.py``.
"""
