"""What all solvers share: protocol, cache, standard form, active set, finalisation, certificates.

Start at ``protocol.py`` (the laws of a solver), then ``standard_form.py`` (the problem as backends
take it) and ``finalize.py`` (from a raw point to a judged Solution).
"""
