"""A mandate: objective, constraints and costs as objects, solved day by day.

``mandate.py`` is where to start; ``terms/`` has one file for each constraint or cost; ``market.py``
is what is known of the days; the other files build, solve and explain the program.
"""
