"""Features by day and name, and daily cross-sections as tensors.

``expressions.py`` evaluates Qlib's expressions for all names at once, each day from its own window;
``panel.py`` holds the cross-sections that networks learn from.
"""
