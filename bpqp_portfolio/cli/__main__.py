"""`python -m bpqp_portfolio.cli` is `bpqp`."""

from . import main

if __name__ == "__main__":
    main()
