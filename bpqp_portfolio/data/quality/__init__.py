"""What is wrong or doubtful in a provider, and which moves are excluded.

``check.py`` runs the checks that ``findings.py`` lists; ``moves.py`` judges each daily move from
its past; ``exclusions.py`` keeps what was excluded as a CSV file.
"""
