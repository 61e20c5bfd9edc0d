"""What a workflow may say: every key with its text, type, unit and default, read from the code.

Start with ``workflow.py``, the tree of a workflow's blocks; ``docstrings.py`` reads the texts, and
``keys.py`` joins them with annotations and defaults. `bpqp keys` and the pages under
``docs/reference`` print it.
"""
