"""Files that are written whole or not at all, checked when read, and bounded in size.

Knows nothing of markets or models. Start at ``atomic.py`` (writing) and ``cache.py`` (arrays under
a key of everything that determines them); ``archive.py`` unpacks what is not trusted.
"""
