"""Qlib providers as files: reading, importing, downloading and simulating them.

``provider.py`` is the format; ``importer.py`` makes a provider of what a user has, ``download.py``
of the community's release, ``us20.py`` and ``simulate.py`` of what a package carries or of a known
truth.
"""
