"""What to hold next, from a tracked run and the provider's last days.

Start with ``target_weights.py`` (`bpqp weights`): run artifact, then ``snapshot.py`` (scores and
risk of one day), ``day_data.py`` (its inputs), ``decision.py`` (trades, their table and facts).
"""
