"""`python -m bpqp_portfolio.cli` is `bpqp`."""

from . import main

main()
