"""Benchmarks: the scripts behind the tables of docs/benchmarks; see benchmarks/README.md."""
