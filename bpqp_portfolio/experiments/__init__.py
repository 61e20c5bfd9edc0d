"""Methods × seeds as tracked runs, and one table of what they differ in.

``plan.py`` reads a comparison's file, ``runs.py`` runs what is missing, ``table.py`` and
``page.py`` show the result; ``statistics.py`` tests whether one method is better than another.
"""
