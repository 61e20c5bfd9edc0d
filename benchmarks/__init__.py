"""Benchmarks: the scripts behind the README's tables; see benchmarks/README.md."""
