"""Market data, from a provider's files to the tensors that a network learns from.

Rooms from the ground up: ``provider/`` (files), ``quality/`` (checks and exclusions), ``universe/``
(closes, members, sectors, exposures), ``features/``; start at ``provider/provider.py``.
"""
