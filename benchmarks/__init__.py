"""Benchmarks of freezeout: each folder asks one question; run one as ``python -m benchmarks.…``."""
