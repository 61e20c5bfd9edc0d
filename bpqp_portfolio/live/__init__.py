"""What to hold tomorrow, from a tracked run and the provider's last days.

``target_weights.py`` is where to start (`bpqp weights`); ``snapshot.py`` is the decision problem of
one day from prices up to that day, ``mandate.py`` its decision under a mandate.
"""
