"""The account: what a day's decision rests on, from target weights to whole lots and costs.

Start with ``day_inputs.py``, what is known at a day's close, from the panel of ``segment.py`` or a
live snapshot; ``rebalance.py`` decides from it and from what is held; ``lots.py`` and
``holdings.py`` make orders; ``appraisal.py`` says what decisions were worth.
"""
