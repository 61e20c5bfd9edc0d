"""Files that a decision is written as: the whole of it, a target list, an order list.

Start with ``registry.py``: the formats by name, and what checks and writes them. A format is a file
here with one function ``rows``, and a line in ``FORMATS``.
"""
